//! `kill -9` of either program at random moments: the run ends as if nothing had happened.

use std::time::Duration;

use anyhow::Result;
use shared::telemetry::{MetricsRow, read_metrics};
use tests::programs::Background;

use crate::run::{HANG, Run};

/// A small generator of waiting times (splitmix64): a failure can be run again by its seed.
struct Moments(u64);

impl Moments {
    fn next(&mut self, at_most_ms: u64) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Duration::from_millis((x ^ (x >> 31)) % at_most_ms)
    }
}

/// Long enough for some kills while it goes on.
const STEPS: u64 = 12;
const KILLS: u32 = 8;

/// A run whose programs are killed in turns at random moments, and started again.
fn killed_again_and_again(run: &Run, more: &[&str]) -> Result<()> {
    let mut moments = Moments(7);
    let mut rollout = run.rollout()?;
    let mut learner = run.learner(more)?;
    let mut kills = 0;
    while kills < KILLS {
        std::thread::sleep(Duration::from_millis(100) + moments.next(600));
        if learner.ended()? {
            break;
        }
        if kills % 2 == 0 {
            rollout.kill()?;
            rollout = run.rollout()?;
        } else {
            learner.kill()?;
            learner = run.learner(&[more, &["--resume"]].concat())?;
        }
        kills += 1;
    }
    assert!(
        kills >= 2,
        "the run was over after {kills} kills: give it more steps"
    );
    finish(learner, rollout)
}

/// The steps in metrics.jsonl with the groups that each was trained on.
fn steps(run: &Run) -> Result<Vec<(u64, f64)>> {
    let rows = read_metrics(&run.dir().join("metrics.jsonl"))?;
    let groups = |row: &MetricsRow| {
        let found = row.values.iter().find(|(name, _)| name == "train/groups");
        found.map_or(f64::NAN, |(_, value)| *value)
    };
    Ok(rows.iter().map(|row| (row.step, groups(row))).collect())
}

#[test]
fn killed_programs_lose_nothing_and_count_nothing_twice() -> Result<()> {
    let expected = Run::undisturbed(STEPS)?;
    let run = Run::new(STEPS)?;
    killed_again_and_again(&run, &[])?;
    let all: Vec<(u64, f64)> = (1..=STEPS).map(|step| (step, 4.0)).collect();
    assert_eq!(steps(&run)?, all);
    assert!(
        run.final_weights()? == expected,
        "the disturbed run ended with other weights"
    );
    Ok(())
}

/// With staleness who is quick decides what is trained on when, so there are no weights to compare with.
#[test]
fn killed_programs_take_every_step_once_with_staleness_too() -> Result<()> {
    let run = Run::new(STEPS)?;
    killed_again_and_again(&run, &["--max-staleness", "2"])?;
    let all: Vec<(u64, f64)> = (1..=STEPS).map(|step| (step, 4.0)).collect();
    assert_eq!(steps(&run)?, all);
    assert!(run.final_weights()?.iter().all(|weight| weight.is_finite()));
    Ok(())
}

fn finish(learner: Background, rollout: Background) -> Result<()> {
    learner.succeed(HANG)?;
    rollout.succeed(HANG)
}
