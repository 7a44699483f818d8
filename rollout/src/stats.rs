//! What a rollout did: live counters from the engine, and sums over the records of one policy version.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::record::{FinishReason, GroupRecord};

use crate::engine::Spent;
use crate::occupancy::{Occupancy, Stage, StageClocks};
use crate::reward::VerifierCounts;

/// Written by the stages, the engine's above all, and read by the last one.
#[derive(Debug, Default)]
pub struct Counters {
    tokens: AtomicU64,
    steps: AtomicU64,
    busy_us: AtomicU64,
    spent: Mutex<Spent>,
    /// What the stages do.
    pub clocks: StageClocks,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// Response tokens drawn.
    pub tokens: u64,
    /// Decoding steps taken.
    pub steps: u64,
    /// Time spent in them, blank passes included.
    pub busy: Duration,
    /// Where that time went.
    pub spent: Spent,
    /// What the stages did.
    pub occupancy: Occupancy,
}

impl Counters {
    /// Counts a step that drew `tokens`; `spent` is the engine's since its start.
    pub fn add_step(&self, busy: Duration, tokens: u64, spent: Spent) {
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        self.busy_us.fetch_add(us, Ordering::Relaxed);
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) = spent;
    }

    /// The counters now.
    #[must_use]
    pub fn now(&self) -> Counted {
        Counted {
            tokens: self.tokens.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
            busy: Duration::from_micros(self.busy_us.load(Ordering::Relaxed)),
            spent: *self.spent.lock().unwrap_or_else(PoisonError::into_inner),
            occupancy: self.clocks.now(),
        }
    }
}

impl Counted {
    /// What was counted since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            tokens: self.tokens - before.tokens,
            steps: self.steps - before.steps,
            busy: self.busy.saturating_sub(before.busy),
            spent: self.spent.since(&before.spent),
            occupancy: self.occupancy.since(&before.occupancy),
        }
    }

    /// Response tokens per second of work; time without work does not count.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        ratio(to_f64(self.tokens), self.busy.as_secs_f64())
    }

    /// Mean number of rows that drew a token per step.
    #[must_use]
    pub fn rows(&self) -> f64 {
        ratio(to_f64(self.tokens), to_f64(self.steps))
    }

    /// Shares of the wall time: what each stage did, and the parts of the engine's work, which lie within `generate_busy`.
    #[must_use]
    pub fn shares(&self) -> Vec<(&'static str, f64)> {
        let mut shares = self.occupancy.metrics();
        let Spent {
            vision,
            prefill,
            decode,
            sampling,
            blank,
        } = self.spent;
        shares.extend(
            [
                ("rollout/engine/vision_share", vision),
                ("rollout/engine/prefill_share", prefill),
                ("rollout/engine/decode_share", decode),
                ("rollout/engine/sampling_share", sampling),
                ("rollout/engine/blank_share", blank),
            ]
            .map(|(name, part)| (name, self.occupancy.share(part))),
        );
        shares
    }

    /// How busy the stages were, for a person.
    #[must_use]
    pub fn busy_line(&self) -> String {
        let percent = |part| 100.0 * self.occupancy.share(part);
        let busy = |stage| percent(self.occupancy.of(stage).busy);
        format!(
            "busy: claim {:.0} %  generate {:.0} % (prompts {:.0} %  decode {:.0} %  blank {:.0} %)  emit {:.0} %",
            busy(Stage::Claim),
            busy(Stage::Generate),
            percent(self.spent.vision + self.spent.prefill),
            percent(self.spent.decode + self.spent.sampling),
            percent(self.spent.blank),
            busy(Stage::Emit),
        )
    }
}

/// Sums over records.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sums {
    /// Groups that were generated.
    pub groups: u64,
    /// Groups that were answered without responses.
    pub skipped: u64,
    /// Responses.
    pub responses: u64,
    tokens: u64,
    stopped: u64,
    accuracy: f64,
    format: f64,
    reward: f64,
    /// What the verifier graded.
    pub verified: VerifierCounts,
}

impl Sums {
    /// Adds a record's responses.
    pub fn add(&mut self, record: &GroupRecord) {
        self.groups += 1;
        for response in &record.responses {
            self.responses += 1;
            self.tokens += response.token_ids.len() as u64;
            self.stopped += u64::from(response.finish_reason == FinishReason::Stop);
            self.accuracy += f64::from(response.reward.accuracy);
            self.format += f64::from(response.reward.format);
            self.reward += f64::from(response.reward.total);
        }
    }

    /// Adds everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.groups += other.groups;
        self.skipped += other.skipped;
        self.responses += other.responses;
        self.tokens += other.tokens;
        self.stopped += other.stopped;
        self.accuracy += other.accuracy;
        self.format += other.format;
        self.reward += other.reward;
        self.verified += other.verified;
    }

    /// Mean over responses of accuracy, in [0, 1].
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        ratio(self.accuracy, to_f64(self.responses))
    }

    /// Mean over responses of the total reward.
    #[must_use]
    pub fn reward(&self) -> f64 {
        ratio(self.reward, to_f64(self.responses))
    }

    /// Mean tokens per response.
    #[must_use]
    pub fn response_tokens(&self) -> f64 {
        ratio(to_f64(self.tokens), to_f64(self.responses))
    }

    /// Share of responses that ended by themselves.
    #[must_use]
    pub fn stop_share(&self) -> f64 {
        ratio(to_f64(self.stopped), to_f64(self.responses))
    }

    /// One row of metrics, with the engine's counters of the same time.
    #[must_use]
    pub fn metrics(&self, counted: &Counted) -> Vec<(&'static str, f64)> {
        let mut values = vec![
            ("rollout/groups", to_f64(self.groups)),
            ("rollout/skipped", to_f64(self.skipped)),
            ("rollout/reward", self.reward()),
            ("rollout/accuracy", self.accuracy()),
            ("rollout/format", ratio(self.format, to_f64(self.responses))),
            (
                "rollout/verifier_disagreement",
                ratio(
                    to_f64(self.verified.disagreed),
                    to_f64(self.verified.graded),
                ),
            ),
            ("rollout/verifier_failures", to_f64(self.verified.failed)),
            ("rollout/response_tokens", self.response_tokens()),
            ("rollout/stop_share", self.stop_share()),
            ("rollout/tokens_per_second", counted.tokens_per_second()),
            ("rollout/rows", counted.rows()),
            ("rollout/busy_s", counted.busy.as_secs_f64()),
        ];
        values.extend(counted.shares());
        values
    }

    /// The same for a person.
    #[must_use]
    pub fn line(&self, counted: &Counted) -> String {
        let skipped = if self.skipped > 0 {
            format!("  skipped {}", self.skipped)
        } else {
            String::new()
        };
        format!(
            "groups {}  reward {:.3}  accuracy {:.1} %  length {:.1}  stopped {:.1} %  {:.0} tokens/s  rows {:.1}{skipped}",
            self.groups,
            self.reward(),
            100.0 * self.accuracy(),
            self.response_tokens(),
            100.0 * self.stop_share(),
            counted.tokens_per_second(),
            counted.rows(),
        )
    }
}

/// 0 of 0 is 0: nothing was done yet.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts for people, far below 2^52"
)]
fn to_f64(n: u64) -> f64 {
    n as f64
}
