//! What a rollout did: live counters from the engine, and sums over the records of one policy version.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::record::{FinishReason, GroupRecord};

/// Written by the engine's thread, read by the last stage.
#[derive(Debug, Default)]
pub struct Counters {
    tokens: AtomicU64,
    steps: AtomicU64,
    busy_us: AtomicU64,
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
}

impl Counters {
    /// Counts a step that drew `tokens`.
    pub fn add_step(&self, busy: Duration, tokens: u64) {
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        self.busy_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The counters now.
    #[must_use]
    pub fn now(&self) -> Counted {
        Counted {
            tokens: self.tokens.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
            busy: Duration::from_micros(self.busy_us.load(Ordering::Relaxed)),
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
        vec![
            ("rollout/groups", to_f64(self.groups)),
            ("rollout/skipped", to_f64(self.skipped)),
            ("rollout/reward", self.reward()),
            ("rollout/accuracy", self.accuracy()),
            ("rollout/format", ratio(self.format, to_f64(self.responses))),
            ("rollout/response_tokens", self.response_tokens()),
            ("rollout/stop_share", self.stop_share()),
            ("rollout/tokens_per_second", counted.tokens_per_second()),
            ("rollout/rows", counted.rows()),
            ("rollout/busy_s", counted.busy.as_secs_f64()),
        ]
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
