//! Whether a stage works, waits for input or stands before a full channel: which of them holds the others up.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The stages of a run, in the order of the metrics' rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Loads new weights.
    Reload,
    /// Claims tickets and makes prompts.
    Claim,
    /// Runs the engine.
    Generate,
    /// Verifies and writes records.
    Emit,
}

/// Number of stages.
const NUM_STAGES: usize = 4;

/// Names in the metrics: busy, waiting, blocked.
const KEYS: [[&str; 3]; NUM_STAGES] = [
    [
        "rollout/stage/reload_busy",
        "rollout/stage/reload_waiting",
        "rollout/stage/reload_blocked",
    ],
    [
        "rollout/stage/claim_busy",
        "rollout/stage/claim_waiting",
        "rollout/stage/claim_blocked",
    ],
    [
        "rollout/stage/generate_busy",
        "rollout/stage/generate_waiting",
        "rollout/stage/generate_blocked",
    ],
    [
        "rollout/stage/emit_busy",
        "rollout/stage/emit_waiting",
        "rollout/stage/emit_blocked",
    ],
];

/// What a stage is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Doing {
    #[default]
    Busy,
    Waiting,
    Blocked,
}

/// What a stage did with its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Neither of the other two.
    pub busy: Duration,
    /// Without input.
    pub waiting: Duration,
    /// With output that nobody takes.
    pub blocked: Duration,
}

/// The clocks of all stages.
#[derive(Debug)]
pub struct StageClocks {
    start: Instant,
    /// Under one lock, so that all of them are read at one moment.
    clocks: Mutex<[Clock; NUM_STAGES]>,
}

/// One stage's time so far, and what it has been doing since when.
#[derive(Debug, Clone, Copy)]
struct Clock {
    times: Times,
    doing: Doing,
    since: Instant,
}

/// The clocks at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Occupancy {
    /// Since the clocks were made.
    pub wall: Duration,
    stages: [Times; NUM_STAGES],
}

impl Default for StageClocks {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl StageClocks {
    /// Clocks that begin at `start`.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        let clock = Clock {
            times: Times::default(),
            doing: Doing::default(),
            since: start,
        };
        Self {
            start,
            clocks: Mutex::new([clock; NUM_STAGES]),
        }
    }

    /// Runs `wait`, in which `stage` waits for input.
    pub fn waiting<T>(&self, stage: Stage, wait: impl FnOnce() -> T) -> T {
        self.during(stage, Doing::Waiting, wait)
    }

    /// Runs `send`, in which `stage` waits until its output is taken.
    pub fn blocked<T>(&self, stage: Stage, send: impl FnOnce() -> T) -> T {
        self.during(stage, Doing::Blocked, send)
    }

    /// Whether `stage` waits for input now.
    #[must_use]
    pub fn is_waiting(&self, stage: Stage) -> bool {
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks[stage as usize].doing == Doing::Waiting
    }

    fn during<T>(&self, stage: Stage, doing: Doing, act: impl FnOnce() -> T) -> T {
        self.turn(stage, doing);
        let result = act();
        self.turn(stage, Doing::Busy);
        result
    }

    fn turn(&self, stage: Stage, doing: Doing) {
        // A stage that died takes the run down by itself; its clock is whole.
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks[stage as usize].turn(doing, Instant::now());
    }

    /// The clocks now, unfinished waits included.
    #[must_use]
    pub fn now(&self) -> Occupancy {
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        Occupancy {
            wall: now - self.start,
            stages: clocks.map(|mut clock| {
                clock.turn(clock.doing, now);
                clock.times
            }),
        }
    }
}

impl Clock {
    fn turn(&mut self, doing: Doing, now: Instant) {
        let past = now.saturating_duration_since(self.since);
        *match self.doing {
            Doing::Busy => &mut self.times.busy,
            Doing::Waiting => &mut self.times.waiting,
            Doing::Blocked => &mut self.times.blocked,
        } += past;
        (self.doing, self.since) = (doing, now);
    }
}

impl Occupancy {
    /// What happened since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut stages = self.stages;
        for (times, before) in stages.iter_mut().zip(&before.stages) {
            times.busy = times.busy.saturating_sub(before.busy);
            times.waiting = times.waiting.saturating_sub(before.waiting);
            times.blocked = times.blocked.saturating_sub(before.blocked);
        }
        Self {
            wall: self.wall.saturating_sub(before.wall),
            stages,
        }
    }

    /// One stage's times.
    #[must_use]
    pub fn of(&self, stage: Stage) -> Times {
        self.stages[stage as usize]
    }

    /// Share of the wall time, in [0, 1]; 0 when no time has passed.
    #[must_use]
    pub fn share(&self, part: Duration) -> f64 {
        if self.wall.is_zero() {
            return 0.0;
        }
        part.as_secs_f64() / self.wall.as_secs_f64()
    }

    /// Rows of metrics: each stage's shares.
    #[must_use]
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let shares = |times: &Times| [times.busy, times.waiting, times.blocked];
        KEYS.iter()
            .zip(&self.stages)
            .flat_map(|(keys, times)| keys.iter().copied().zip(shares(times)))
            .map(|(key, part)| (key, self.share(part)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_clock_files_time_under_what_was_done_in_it() {
        let start = Instant::now();
        let mut clock = Clock {
            times: Times::default(),
            doing: Doing::Busy,
            since: start,
        };
        clock.turn(Doing::Waiting, start + ms(10));
        clock.turn(Doing::Busy, start + ms(13));
        clock.turn(Doing::Blocked, start + ms(113));
        clock.turn(Doing::Busy, start + ms(120));
        let expected = Times {
            busy: ms(110),
            waiting: ms(3),
            blocked: ms(7),
        };
        assert_eq!(clock.times, expected);
    }

    #[test]
    fn shares_are_of_the_time_since_the_last_look_and_count_a_wait_under_way() {
        let clocks = StageClocks::default();
        std::thread::sleep(ms(2));
        let before = clocks.now();
        let seen = clocks.waiting(Stage::Claim, || {
            clocks.blocked(Stage::Emit, || std::thread::sleep(ms(5)));
            clocks.now().since(&before)
        });
        assert!(seen.wall >= ms(5));
        for (stage, times) in [Stage::Reload, Stage::Claim, Stage::Generate, Stage::Emit]
            .map(|stage| (stage, seen.of(stage)))
        {
            assert_eq!(
                times.busy + times.waiting + times.blocked,
                seen.wall,
                "{stage:?}"
            );
        }
        assert!(seen.of(Stage::Claim).waiting >= ms(5));
        assert!(seen.of(Stage::Emit).blocked >= ms(5));
        assert_eq!(seen.of(Stage::Reload).busy, seen.wall);
        let rows = seen.metrics();
        assert_eq!(rows.len(), 3 * NUM_STAGES);
        let at = |name| rows.iter().find(|(key, _)| *key == name).unwrap().1;
        let claim = seen.of(Stage::Claim);
        assert_eq!(at("rollout/stage/claim_waiting"), seen.share(claim.waiting));
        assert_eq!(at("rollout/stage/claim_blocked"), 0.0);
        assert_eq!(at("rollout/stage/reload_busy"), 1.0);
    }
}
