//! The numbers of a step under the names that the field uses.

use crate::batch::Batch;
use crate::tally::Tally;
use crate::token_weights::Shares;
use crate::update::{BatchUpdate, is_truncated};

/// Seconds that the parts of a step took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// Waiting for the rollouts.
    pub read: f64,
    /// Advantages and token weights.
    pub weigh: f64,
    /// Reference logprobs.
    pub reference: f64,
    /// Forward, backward and optimizer.
    pub update: f64,
    /// Writing and announcing the weights.
    pub publish: f64,
    /// All of it.
    pub step: f64,
}

/// Everything there is to say about a training step.
#[derive(Debug)]
pub struct StepReport {
    /// The step, counted from 1; also the version that it published.
    pub step: u64,
    /// The batch that was trained on.
    pub batch: Batch,
    /// The rewards that its advantages are made of: those of the records, less a penalty for KL.
    pub rewards: Vec<f32>,
    /// Its advantages, as the loss had them.
    pub advantages: Vec<f32>,
    /// KL(rollout policy, reference) over the batch before the step, nats per token; `None` without a reference.
    pub reference_kl: Option<f64>,
    /// What came in, filtered groups included.
    pub tally: Tally,
    /// The token sets; `None` where every token counts the same.
    pub shares: Option<Shares>,
    /// Losses and optimizer steps.
    pub update: BatchUpdate,
    /// The KL term's coefficient.
    pub kl_coef: f64,
    /// Share of the speed of bare matrix products that the update reached with those it cannot do without, see `bench::floor`.
    pub utilisation: f64,
    /// Updates that the run has skipped so far because of a gradient that was not finite.
    pub num_skipped_updates: u64,
    /// How long it took.
    pub timing: Timing,
}

impl StepReport {
    /// Names and values, in a fixed order. A value that is not known at this step is NaN.
    #[must_use]
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let mut metrics = Vec::with_capacity(64);
        self.actor(&mut metrics);
        self.critic(&mut metrics);
        self.lengths(&mut metrics);
        self.token_weights(&mut metrics);
        self.data(&mut metrics);
        self.resources(&mut metrics);
        metrics
    }

    fn actor(&self, metrics: &mut Vec<(&'static str, f64)>) {
        let sums = &self.update.sums;
        let num_updates = self.update.updates.len() as f64;
        let per_token = |count: usize| count as f64 / sums.num_tokens as f64;
        let last = self.update.updates.last();
        let norms = self.update.updates.iter().map(|update| update.grad_norm);
        metrics.extend([
            ("actor/pg_loss", sums.policy_loss / num_updates),
            ("actor/kl_loss", sums.kl_loss / num_updates),
            ("actor/kl_coef", self.kl_coef),
            ("actor/entropy", sums.entropy_sum / sums.num_tokens as f64),
            ("actor/perception_kl", sums.perception_kl / num_updates),
            ("actor/pg_clipfrac_higher", per_token(sums.num_clipped_high)),
            ("actor/pg_clipfrac_lower", per_token(sums.num_clipped_low)),
            ("actor/pg_clipfrac_dual", per_token(sums.num_dual_clipped)),
            ("actor/ppo_kl", sums.ppo_kl / sums.num_tokens as f64),
            ("actor/grad_norm", norms.sum::<f64>() / num_updates),
            ("actor/lr", last.map_or(f64::NAN, |update| update.lr)),
            ("actor/skipped_updates", self.num_skipped_updates as f64),
            (
                "actor/importance_factor",
                sums.importance_sum / sums.num_tokens as f64,
            ),
            ("actor/importance_capfrac", per_token(sums.num_capped)),
            ("train/mismatch_kl", self.update.mismatch.kl()),
            (
                "train/logprob_diff_max",
                self.update.mismatch.max_difference,
            ),
        ]);
        if let Some(kl) = self.reference_kl {
            metrics.push(("actor/reference_kl", kl));
        }
    }

    fn critic(&self, metrics: &mut Vec<(&'static str, f64)>) {
        let scores = self.batch.rewards();
        let [scores, rewards, advantages] = [&scores, &self.rewards, &self.advantages]
            .map(|values| Summary::new(values.iter().map(|&value| f64::from(value))));
        let part = |of: fn(&shared::record::Reward) -> f32| {
            Summary::new(
                self.batch
                    .responses
                    .iter()
                    .map(|response| f64::from(of(&response.reward))),
            )
            .mean
        };
        metrics.extend([
            ("critic/score/mean", scores.mean),
            ("critic/score/max", scores.max),
            ("critic/score/min", scores.min),
            ("critic/rewards/mean", rewards.mean),
            ("critic/rewards/max", rewards.max),
            ("critic/rewards/min", rewards.min),
            ("critic/advantages/mean", advantages.mean),
            ("critic/advantages/max", advantages.max),
            ("critic/advantages/min", advantages.min),
            ("reward/accuracy", part(|reward| reward.accuracy)),
            ("reward/format", part(|reward| reward.format)),
            ("reward/overlong", part(|reward| reward.overlong)),
        ]);
        if let Some(greedy) = self.batch.greedy_rewards() {
            let greedy = Summary::new(greedy.into_iter().map(f64::from));
            metrics.push(("critic/greedy_score", greedy.mean));
        }
    }

    fn lengths(&self, metrics: &mut Vec<(&'static str, f64)>) {
        let responses = &self.batch.responses;
        let response = Summary::new(
            responses
                .iter()
                .map(|response| response.tokens.len() as f64),
        );
        let prompt = Summary::new(
            self.batch
                .groups
                .iter()
                .map(|group| group.prompt_ids.len() as f64),
        );
        let num_cut = responses
            .iter()
            .filter(|response| is_truncated(response))
            .count();
        metrics.extend([
            ("response_length/mean", response.mean),
            ("response_length/max", response.max),
            ("response_length/min", response.min),
            (
                "response_length/clip_ratio",
                num_cut as f64 / responses.len() as f64,
            ),
            ("prompt_length/mean", prompt.mean),
            ("prompt_length/max", prompt.max),
            ("prompt_length/min", prompt.min),
        ]);
    }

    fn token_weights(&self, metrics: &mut Vec<(&'static str, f64)>) {
        let Some(shares) = self.shares else { return };
        metrics.extend([
            ("tor/reasoning_fraction", shares.reasoning),
            ("tor/perception_fraction", shares.perception),
            ("tor/overlap_fraction", shares.overlap),
            ("tor/entropy_threshold", shares.entropy_threshold),
            ("tor/sensitivity_threshold", shares.sensitivity_threshold),
            ("tor/rank_correlation", shares.rank_correlation),
        ]);
    }

    fn data(&self, metrics: &mut Vec<(&'static str, f64)>) {
        let tally = &self.tally;
        metrics.extend([
            ("sampled/accuracy", tally.accuracy()),
            (
                "sampled/reward",
                tally.reward_sum / tally.num_responses as f64,
            ),
            ("sampled/groups", tally.num_groups as f64),
            ("sampled/rounds", tally.num_rounds as f64),
            ("sampled/all_right", tally.num_all_right as f64),
            ("sampled/all_wrong", tally.num_all_wrong as f64),
            ("sampled/all_equal", tally.num_all_equal as f64),
            ("sampled/skipped", tally.num_skipped as f64),
            ("sampled/stale", tally.num_stale as f64),
            ("sampled/lacking", tally.num_lacking as f64),
            ("sampled/unexpected", tally.num_unexpected as f64),
            ("sampled/damaged", tally.num_damaged as f64),
            ("sampled/reopened", tally.num_reopened as f64),
            ("train/groups", self.batch.groups.len() as f64),
        ]);
    }

    fn resources(&self, metrics: &mut Vec<(&'static str, f64)>) {
        let timing = &self.timing;
        let num_tokens = self.num_tokens();
        metrics.extend([
            ("timing_s/gen", timing.read),
            ("timing_s/adv", timing.weigh),
            ("timing_s/ref", timing.reference),
            ("timing_s/update_actor", timing.update),
            ("timing_s/sync", timing.publish),
            ("timing_s/step", timing.step),
            ("perf/total_num_tokens", num_tokens as f64),
            ("perf/time_per_step", timing.step),
            ("perf/throughput", num_tokens as f64 / timing.step),
            ("perf/mfu", self.utilisation),
            ("memory/rss_mib", resident_mib()),
        ]);
    }

    /// Prompt and response tokens trained on, a prompt counted once per response as the field does.
    fn num_tokens(&self) -> usize {
        let prompts: usize = self
            .batch
            .groups
            .iter()
            .map(|group| group.prompt_ids.len() * group.responses.len())
            .sum();
        prompts + self.batch.num_tokens()
    }

    /// The step on one line.
    #[must_use]
    pub fn line(&self) -> String {
        let tally = &self.tally;
        let reward = tally.reward_sum / tally.num_responses as f64;
        let mut line = format!(
            "reward {reward:.3}  accuracy {:.1} %",
            100.0 * tally.accuracy()
        );
        line += &format!(
            "  {:.0} tokens/s",
            self.num_tokens() as f64 / self.timing.step
        );
        if let Some(shares) = self.shares {
            let percent =
                [shares.reasoning, shares.perception, shares.overlap].map(|share| 100.0 * share);
            line += &format!(
                "  R/P/both {:.0}/{:.0}/{:.0} %",
                percent[0], percent[1], percent[2]
            );
        }
        line += &format!("  mismatch {:.1e}", self.update.mismatch.max_difference);
        if tally.num_groups > self.batch.groups.len() {
            line += &format!(
                "  {} of {} groups",
                self.batch.groups.len(),
                tally.num_groups
            );
        }
        line
    }
}

/// Mean, largest and smallest of a list; NaN when it is empty.
struct Summary {
    mean: f64,
    max: f64,
    min: f64,
}

impl Summary {
    fn new(values: impl Iterator<Item = f64>) -> Self {
        let (mut count, mut sum, mut max, mut min) = (0.0, 0.0, f64::NAN, f64::NAN);
        for value in values {
            count += 1.0;
            sum += value;
            max = value.max(max);
            min = value.min(min);
        }
        Self {
            mean: sum / count,
            max,
            min,
        }
    }
}

/// Resident memory of this process in MiB; NaN where the system does not say.
#[must_use]
pub fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| {
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<f64>()
            .ok()
    });
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}
