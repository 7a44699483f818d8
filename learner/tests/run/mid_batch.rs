//! Stopped and killed while a batch is half there, under dynamic sampling and with staleness.

use std::path::Path;
use std::process::Child;

use learner::checkpoint::{self, Saved};
use shared::telemetry::read_metrics;

use super::*;
use crate::dice::Dice;

/// Where the learner was when it was stopped.
#[derive(Default)]
struct Stops {
    /// Groups were kept and others awaited.
    num_mid_batch: usize,
    /// And some had already been dropped and others opened in their place.
    num_later_round: usize,
}

impl Stops {
    fn add(&mut self, saved: &Saved) {
        let source = &saved.source;
        if source.kept.is_empty() || source.awaited.is_empty() {
            return;
        }
        self.num_mid_batch += 1;
        self.num_later_round += usize::from(source.tally.num_rounds > 1);
        // What waits in the checkpoint is what the rollout made, but for the model's part in it.
        let dice = Dice::open();
        for kept in &source.kept {
            let mut expected = dice.record(kept.ticket, kept.responses[0].first_version);
            for (expected, kept) in expected.responses.iter_mut().zip(&kept.responses) {
                expected.logprobs.clone_from(&kept.logprobs);
            }
            assert_eq!(*kept, expected);
        }
    }
}

/// Learners follow each other, each with a rollout that works off a few tickets and keeps one back for the next. They are
/// killed and stopped in turns; what was killed is done again, what was stopped goes on.
fn run_in_pieces(run_dir: &Path, args: &[&str]) -> Stops {
    let mut stops = Stops::default();
    let mut previous: Option<DiceRollout> = None;
    for piece in 0.. {
        assert!(piece < 60, "no end in sight");
        let mut learner = learner(run_dir, args).arg("--resume").spawn().unwrap();
        if let Some(previous) = previous.take() {
            previous.join();
        }
        let rollout = DiceRollout::start(run_dir, Shift::Short(5));
        if has_ended(&mut learner, &rollout) {
            let output = finish(learner);
            assert!(output.status.success(), "{}", text(&output));
            break;
        }
        if piece % 2 == 0 {
            send(learner.id(), Signal::INT);
            let output = finish(learner);
            assert!(output.status.success(), "{}", text(&output));
            let saved = checkpoint::newest(run_dir).unwrap();
            stops.add(&saved.expect("a learner that is stopped saves"));
        } else {
            send(learner.id(), Signal::KILL);
            learner.wait().unwrap();
        }
        previous = Some(rollout);
    }
    stops
}

/// Waits until the learner has ended, or nothing more comes from the rollout.
fn has_ended(learner: &mut Child, rollout: &DiceRollout) -> bool {
    let started = Instant::now();
    while !rollout.is_quiet() {
        if learner.try_wait().unwrap().is_some() {
            return true;
        }
        assert!(started.elapsed() < PATIENCE, "the rollout got no work");
        sleep(Duration::from_millis(10));
    }
    // What was pushed last is read by now, or is read by the next learner.
    sleep(Duration::from_millis(100));
    learner.try_wait().unwrap().is_some()
}

#[test]
fn cut_into_pieces_it_ends_like_an_undisturbed_run() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--steps", "4", "--save-every", "0"];
    let expected = undisturbed(folder.path(), &args);
    let run_dir = folder.path().join("pieces");
    let stops = run_in_pieces(&run_dir, &args);
    assert_same_end(&expected, &run_dir, 4);
    // Else the test has shown nothing.
    assert!(
        stops.num_mid_batch > 1 && stops.num_later_round > 0,
        "stopped in mid-batch {} times, in a later round {} times",
        stops.num_mid_batch,
        stops.num_later_round
    );
}

#[test]
fn with_staleness_it_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("pieces");
    let args = ["--steps", "4", "--save-every", "0", "--max-staleness", "2"];
    let stops = run_in_pieces(&run_dir, &args);
    assert!(stops.num_mid_batch > 1);

    let rows = read_metrics(&run_dir.join("metrics.jsonl")).unwrap();
    let value = |row: &shared::telemetry::MetricsRow, name: &str| -> f64 {
        row.values
            .iter()
            .find(|(known, _)| known == name)
            .unwrap()
            .1
    };
    let steps: Vec<(u64, f64)> = rows
        .iter()
        .map(|row| (row.step, value(row, "train/groups")))
        .collect();
    assert_eq!(steps, [(1, 4.0), (2, 4.0), (3, 4.0), (4, 4.0)]);

    // Every ticket opened was dropped, or trained on once, or is still there; none is lost, none counts twice.
    let end = checkpoint::newest(&run_dir).unwrap().unwrap().source;
    let sum = |name: &str| rows.iter().map(|row| value(row, name)).sum::<f64>();
    let dropped = sum("sampled/all_right")
        + sum("sampled/all_wrong")
        + (end.tally.num_all_right + end.tally.num_all_wrong) as f64;
    let left = (end.kept.len() + end.awaited.len()) as f64;
    assert_eq!(
        end.next_ticket.0 as f64,
        dropped + sum("train/groups") + left
    );
}
