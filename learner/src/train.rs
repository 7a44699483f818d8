//! One training step: read, batch, advantages, token weights, loss, step, publish.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use shared::config::{ImportanceCorrection, LearnerArgs, Resolved};
use shared::control::LearnerControl;
use shared::ids::PolicyVersion;
use shared::record::Precision;

use crate::advantage::group_advantages;
use crate::batch::{Batch, Group};
use crate::loss::{Importance, Scope};
use crate::metrics::{StepReport, Timing};
use crate::publish::publish;
use crate::source::{Next, Source};
use crate::tally::Tally;
use crate::token_weights::{Ties, TokenWeights, TorSettings};
use crate::update::{Policy, Targets};

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
    /// The page that tickets and versions are announced on.
    pub control: LearnerControl,
    /// Where groups come from.
    pub source: Source,
    /// The network, its reference and its optimizer.
    pub policy: Policy,
    /// Rollout batches trained on; also the policy's version.
    pub step: u64,
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
    pub fn step(&mut self, is_stopping: &dyn Fn() -> bool, note: &dyn Fn(&str)) -> Result<Stepped> {
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

        // batch, advantages, token weights
        note("training");
        let batch = Batch::new(records);
        let advantages = group_advantages(
            &batch.rewards(),
            &batch.group_spans(),
            self.args.advantage_std,
        );
        let tor = self.token_weights(&batch);
        timing.weigh = clock.lap();

        // loss, step
        let reference_logprobs = self.policy.reference_logprobs(&batch)?;
        timing.reference = clock.lap();
        let targets = Targets {
            advantages: &advantages,
            weights: &tor.weights,
            reference_logprobs: &reference_logprobs,
            importance: self.importance(&batch),
        };
        let update = self.policy.update(&batch, targets)?;
        timing.update = clock.lap();

        // publish
        self.step += 1;
        let weights = self.publish()?;
        timing.publish = clock.lap();
        timing.step = clock.total();

        let report = StepReport {
            step: self.step,
            batch,
            advantages,
            tally,
            shares: tor.shares,
            update,
            kl_coef: self.resolved.kl_coef,
            num_skipped_updates: self.policy.optimizer.num_skipped(),
            timing,
        };
        Ok(Stepped::Trained(weights, Box::new(report)))
    }

    /// Publishes the policy as the version of the steps taken so far.
    pub fn publish(&self) -> Result<PathBuf> {
        publish(
            &self.run_dir,
            &self.control,
            PolicyVersion(self.step),
            self.policy.model.parameters(),
        )
    }

    fn token_weights(&self, batch: &Batch) -> TokenWeights {
        if self.args.no_tor {
            return TokenWeights::ones(batch.num_tokens());
        }
        // Another permutation at each step, the same one when the step is repeated after a restart.
        let seed = self.seed.rotate_left(32) ^ self.step;
        let settings = TorSettings {
            alpha: self.args.alpha,
            beta: self.args.beta,
            rho_reasoning: self.resolved.rho_reasoning,
            rho_perception: self.resolved.rho_perception,
            signal: self.args.perception_signal,
            scope: self.args.tor_scope,
            ties: Ties::new(self.args.tor_ties, seed),
        };
        TokenWeights::new(batch, &settings)
    }

    /// The correction that this batch needs: `auto` is none where all of it was generated in f32.
    fn importance(&self, batch: &Batch) -> Option<Importance> {
        let is_exact = |group: &Group| group.precision == Precision::F32;
        let scope = match self.args.importance_correction {
            ImportanceCorrection::Auto if batch.groups.iter().all(is_exact) => return None,
            ImportanceCorrection::Off => return None,
            ImportanceCorrection::Auto | ImportanceCorrection::Token => Scope::Token,
            ImportanceCorrection::Sequence => Scope::Sequence,
        };
        let cap = self.args.importance_cap;
        Some(Importance { scope, cap })
    }

    /// The run folder.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }
}

/// Seconds since the last lap and since the start.
struct Clock {
    start: Instant,
    lap: Instant,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            lap: now,
        }
    }

    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = now.duration_since(self.lap).as_secs_f64();
        self.lap = now;
        seconds
    }

    fn total(&self) -> f64 {
        self.lap.duration_since(self.start).as_secs_f64()
    }
}
