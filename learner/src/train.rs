//! One training step: read, batch, rewards, advantages, token weights, loss, step, publish.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use shared::config::{Advantage, ImportanceCorrection, KlIn, LearnerArgs, Resolved};
use shared::control::LearnerControl;
use shared::ids::PolicyVersion;
use shared::record::Precision;
use shared::validation::Validation;
use tch::Kind;

use crate::advantage::advantages;
use crate::batch::{Batch, Group};
use crate::bench::floor::Work;
use crate::clock::Clock;
use crate::loss::{Importance, Scope};
use crate::metrics::{StepReport, Timing};
use crate::publish::{Haste, Publisher};
use crate::reference_kl::{KlController, mean_kl, penalised, response_kls};
use crate::source::{Next, Source};
use crate::tally::Tally;
use crate::token_weights::TokenWeights;
use crate::update::{Policy, Targets};
use crate::validation::Validations;

/// Everything that a step works on.
#[derive(Debug)]
pub struct Trainer {
    /// The run folder.
    pub run_dir: PathBuf,
    /// The run's seed.
    pub seed: u64,
    /// The configuration.
    pub args: LearnerArgs,
    /// Its defaults that depend on the algorithm, filled in.
    pub resolved: Resolved,
    /// Makes versions known.
    pub publisher: Publisher,
    /// Whether a command of the user's waits for each version.
    pub is_followed: bool,
    /// The page that tickets and versions are announced on.
    pub control: LearnerControl,
    /// Where groups come from.
    pub source: Source,
    /// The network, its reference and its optimizer.
    pub policy: Policy,
    /// The coefficient of the KL term.
    pub kl: KlController,
    /// Rollout batches trained on; also the policy's version.
    pub step: u64,
    /// Operations per second that this machine reaches in the model's matrix products: what utilisation is a share of.
    pub products_per_second: f64,
}

/// How a step ended.
#[derive(Debug)]
pub enum Stepped {
    /// It was taken; the published weights and what there is to say.
    Trained(PathBuf, Box<StepReport>),
    /// No group was left to train on after all sampling rounds.
    Starved(Tally),
    /// The stop flag went up while waiting for groups: nothing changed.
    Stopped,
}

impl Trainer {
    /// Takes one training step.
    ///
    /// `is_due` says whether the version that it publishes is to be validated.
    pub fn step(
        &mut self,
        is_stopping: &dyn Fn() -> bool,
        note: &dyn Fn(&str),
        is_due: &dyn Fn(u64) -> bool,
    ) -> Result<Stepped> {
        let mut clock = Clock::start();
        let mut timing = Timing::default();
        let version = PolicyVersion(self.step);

        // read
        let (records, tally) =
            match self
                .source
                .next_batch(&mut self.control, version, is_stopping, note)?
            {
                Next::Batch(records, tally) => (records, tally),
                Next::Starved(tally) => return Ok(Stepped::Starved(tally)),
                Next::Stopped => return Ok(Stepped::Stopped),
            };
        timing.read = clock.lap();

        // batch, rewards, advantages, token weights
        note("training");
        let batch = Batch::new(records);
        timing.weigh = clock.lap();
        let reference_logprobs = self.policy.reference_logprobs(&batch)?;
        timing.reference = clock.lap();
        let kl_coef = self.kl.coefficient();
        let (rewards, reference_kl) = self.rewards(&batch, &reference_logprobs);
        let mut advantages = self.advantages(&batch, &rewards)?;
        let tor = self.token_weights(&batch);
        for (advantage, factor) in advantages.iter_mut().zip(&tor.advantage_factors) {
            *advantage *= factor;
        }
        timing.weigh += clock.lap();

        // loss, step
        if self.resolved.kl_in == KlIn::Loss {
            self.policy.settings.loss.kl_coef = kl_coef;
        }
        let targets = Targets {
            advantages: &advantages,
            weights: &tor.weights,
            reference_logprobs: &reference_logprobs,
            importance: self.importance(&batch),
        };
        let update = self.policy.update(&batch, targets)?;
        if let Some(kl) = reference_kl {
            self.kl.update(kl, batch.responses.len());
        }
        timing.update = clock.lap();
        let utilisation = self.work(&batch, &targets) / timing.update / self.products_per_second;

        // publish
        self.step += 1;
        let weights = self.publish(is_due(self.step))?;
        timing.publish = clock.lap();
        timing.step = clock.total();

        let report = StepReport {
            step: self.step,
            batch,
            rewards,
            advantages,
            reference_kl,
            tally,
            shares: tor.shares,
            update,
            kl_coef,
            utilisation,
            num_skipped_updates: self.policy.optimizer.num_skipped(),
            timing,
        };
        Ok(Stepped::Trained(weights, Box::new(report)))
    }

    /// Operations of the matrix products that the update cannot do without.
    fn work(&self, batch: &Batch, targets: &Targets<'_>) -> f64 {
        let Policy {
            model, settings, ..
        } = &self.policy;
        let has_gradient = |response, token| {
            let policy = &self.policy;
            policy.has_gradient(batch, targets, response, token)
        };
        let work = Work::new(model.config(), model.parameters(), batch, &has_gradient);
        settings.num_epochs as f64 * work.flops
    }

    /// Publishes the policy as the version of the steps taken so far, to be validated or not. Where rollouts may be behind, and
    /// nobody waits for just this version, the next step doesn't wait for the disk.
    pub fn publish(&mut self, is_validated: bool) -> Result<PathBuf> {
        let may_be_late =
            self.args.max_staleness > 0 && !self.is_followed && self.control.version().is_some();
        let haste = match (is_validated, may_be_late) {
            (true, _) => Haste::Validated,
            (false, true) => Haste::Later,
            (false, false) => Haste::Now,
        };
        self.publisher.publish(
            &self.control,
            PolicyVersion(self.step),
            self.policy.model.parameters(),
            haste,
        )
    }

    /// Waits for what the rollouts say of the version published last, and reads meanwhile what they send for the next step.
    /// `None` when stopped first.
    pub fn validated(
        &mut self,
        validations: &mut Validations,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Option<Validation>> {
        let (version, has_next) = (PolicyVersion(self.step), self.step < self.args.steps);
        let mut answer = None;
        let is_over = &mut |control: &LearnerControl| {
            answer = validations.look(control, version)?;
            Ok(answer.is_some() || is_stopping())
        };
        self.source
            .read_until(&mut self.control, version, has_next, is_over)?;
        Ok(answer)
    }

    /// The records' rewards, less the KL penalty where it stands in the reward; and the mean KL per token.
    fn rewards(&self, batch: &Batch, reference_logprobs: &[f32]) -> (Vec<f32>, Option<f64>) {
        let rewards = batch.rewards();
        if reference_logprobs.is_empty() {
            return (rewards, None);
        }
        let kls = response_kls(batch, reference_logprobs, self.resolved.kl_estimator);
        let kl = Some(mean_kl(batch, &kls));
        match self.resolved.kl_in {
            KlIn::Loss => (rewards, kl),
            KlIn::Reward => (penalised(&rewards, &kls, self.kl.coefficient()), kl),
        }
    }

    fn advantages(&self, batch: &Batch, rewards: &[f32]) -> Result<Vec<f32>> {
        let lens: Vec<usize> = batch
            .responses
            .iter()
            .map(|response| response.tokens.len())
            .collect();
        let (kind, pass_k) = (self.resolved.advantage, self.resolved.pass_k);
        let (spans, greedy) = (batch.group_spans(), batch.greedy_rewards());
        ensure!(
            kind != Advantage::Remax || greedy.is_some(),
            "a group without the reward of its greedy response"
        );
        let greedy = greedy.unwrap_or_default();
        Ok(advantages(kind, rewards, &spans, &lens, pass_k, &greedy))
    }

    fn token_weights(&self, batch: &Batch) -> TokenWeights {
        // Another permutation at each step, the same one when the step is repeated after a restart.
        let seed = self.seed.rotate_left(32) ^ self.step;
        TokenWeights::of(batch, &self.args.tokens, &self.resolved, seed)
    }

    /// The correction that this batch needs: `auto` is none where all of it was generated in f32, by a policy that computes in f32.
    fn importance(&self, batch: &Batch) -> Option<Importance> {
        let is_f32 = self.policy.model.kind() == Kind::Float;
        let is_exact = |group: &Group| is_f32 && group.precision == Precision::F32;
        let resolved = &self.resolved;
        let cap = resolved.importance_cap;
        let (low, high) = (resolved.importance_low, resolved.importance_high);
        let truncated = |scope| Some(Importance::Truncated { scope, cap });
        match self.args.objective.importance_correction {
            ImportanceCorrection::Auto if batch.groups.iter().all(is_exact) => None,
            ImportanceCorrection::Off => None,
            ImportanceCorrection::Auto | ImportanceCorrection::Token => truncated(Scope::Token),
            ImportanceCorrection::Sequence => truncated(Scope::Sequence),
            ImportanceCorrection::SequenceMask => Some(Importance::SequenceMask { low, high }),
            ImportanceCorrection::Icepop => Some(Importance::IcePop { low, high }),
        }
    }
}
