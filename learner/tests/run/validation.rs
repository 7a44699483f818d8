//! `--validate-every`: asked, waited for, interrupted, gone on with; the best checkpoint stays.

use std::thread::JoinHandle;

use shared::control::Seat;
use shared::telemetry::MetricsRow;
use shared::validation::{self, Validation};

use super::*;

/// A rollout that only validates, by a rule in place of an engine.
struct Validator {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Validator {
    /// Answers about each version and its announcement.
    fn start(run_dir: &Path, answer: fn(PolicyVersion, u64) -> Validation) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (run_dir, stopping) = (run_dir.to_owned(), Arc::clone(&stop));
        let thread = spawn(move || {
            let is_over = || stopping.load(Ordering::SeqCst);
            let Some(seat) = Seat::join(&run_dir, &is_over, &mut |_| ()).unwrap() else {
                return;
            };
            while !is_over() {
                let publication = seat.publications();
                if seat.claim_validation(publication) {
                    let version = seat.version().unwrap();
                    answer(version, publication).write(&run_dir).unwrap();
                    seat.finish_validation(publication);
                }
                seat.wait_work(Duration::from_millis(20)).unwrap();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Validator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let panicked = self.thread.take().unwrap().join().is_err();
        assert!(
            !panicked || std::thread::panicking(),
            "the validator panicked"
        );
    }
}

fn answer(version: PolicyVersion, publication: u64) -> Validation {
    with_accuracy(version, publication, accuracy(version.0))
}

fn with_accuracy(version: PolicyVersion, publication: u64, accuracy: f64) -> Validation {
    Validation {
        version,
        publication,
        data: "test".to_owned(),
        limit: None,
        problems: "the ten".to_owned(),
        num_problems: 10,
        num_right: 0,
        accuracy,
        interval: [accuracy - 0.1, accuracy + 0.1],
        well_formed: 1.0,
        mean_response_tokens: 20.0,
        finished_stop: 9,
        finished_length: 1,
        num_skipped: 0,
        skipped: Vec::new(),
        seconds: 0.25,
    }
}

fn accuracy(version: u64) -> f64 {
    [0.7, 0.1, 0.6, 0.2, 0.5, 0.6][usize::try_from(version).unwrap()]
}

/// What the run says at its end, whether or not it was interrupted.
const CLOSING: &str = "validation: 70.0 % at step 0, 60.0 % at step 5 at the end; no checkpoint is above step 0, the best one: \
                       60.0 % at step 2, checkpoints/best";

const ARGS: [&str; 4] = ["--validate-every", "2", "--keep-checkpoints", "1"];

fn rows(run_dir: &Path) -> Vec<MetricsRow> {
    read_metrics(&run_dir.join("metrics.jsonl")).unwrap()
}

/// Steps with their scores, and whether the row is that of a training step.
fn scores(run_dir: &Path) -> Vec<(u64, Option<f64>, bool)> {
    let value = |row: &MetricsRow, name: &str| {
        let found = row.values.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value)
    };
    rows(run_dir)
        .iter()
        .map(|row| {
            let is_step = value(row, "actor/pg_loss").is_some();
            (row.step, value(row, "val/score"), is_step)
        })
        .collect()
}

fn checkpoints(run_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(run_dir.join("checkpoints")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

fn weights_of(run_dir: &Path, step: u64) -> Vec<u8> {
    std::fs::read(checkpoint(run_dir, step).join("model.safetensors")).unwrap()
}

/// Versions 0, 2, 4 and the last one are validated. The second is the best of those with a checkpoint; 5 is as good, which is
/// not better.
#[test]
fn the_best_checkpoint_stays_beside_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let _rollout = DiceRollout::start(&run_dir, Shift::Endless);
    let _validator = Validator::start(&run_dir, answer);
    let args = [&ARGS[..], &["--save-every", "0"]].concat();
    let output = finish(learner(&run_dir, &args).spawn().unwrap());
    assert!(output.status.success(), "{}", text(&output));
    let expected = [
        (0, Some(0.7), false),
        (1, None, true),
        (2, None, true),
        (2, Some(0.6), false),
        (3, None, true),
        (4, None, true),
        (4, Some(0.5), false),
        (5, None, true),
        (5, Some(0.6), false),
    ];
    assert_eq!(scores(&run_dir), expected);
    assert_eq!(
        checkpoints(&run_dir),
        ["best", "step-00000002", "step-00000005"]
    );
    let best = run_dir.join("checkpoints/best/model.safetensors");
    assert!(std::fs::read(best).unwrap() == weights_of(&run_dir, 2));
    let said = text(&output);
    for part in [
        "validation of v2: accuracy 60.0 % (50.0 to 70.0) on 10 problems, 20.0 tokens per response, 0.2 s; the best checkpoint so far, but not above the 70.0 % of step 0",
        CLOSING,
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

/// Stopped and killed while no answer comes, three times over; what was unanswered is asked again, and nothing else.
#[test]
fn interrupted_in_a_validation_it_asks_again_and_ends_like_an_undisturbed_run() {
    let folder = tempfile::tempdir().unwrap();
    let undisturbed = folder.path().join("undisturbed");
    {
        let _rollout = DiceRollout::start(&undisturbed, Shift::Endless);
        let _validator = Validator::start(&undisturbed, answer);
        let output = finish(learner(&undisturbed, &ARGS).spawn().unwrap());
        assert!(output.status.success(), "{}", text(&output));
    }

    let run_dir = folder.path().join("interrupted");
    let args = [&ARGS[..], &["--resume"]].concat();
    let _rollout = DiceRollout::start(&run_dir, Shift::Endless);
    let waits_for = |version: u64| {
        let learner = learner(&run_dir, &args).spawn().unwrap();
        wait_for(&weights::path(&run_dir, PolicyVersion(version)));
        sleep(Duration::from_millis(300)); // nothing more comes of its own accord
        assert!(!weights::path(&run_dir, PolicyVersion(version + 1)).exists());
        learner
    };
    // At the first version, and in the middle of the run.
    let first = waits_for(0);
    send(first.id(), Signal::INT);
    let output = finish(first);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(scores(&run_dir), []);
    {
        let validator = Validator::start(&run_dir, answer);
        let second = learner(&run_dir, &args).spawn().unwrap();
        // Not the file: that may be the answer to the learner before, which this one does not take.
        let started = Instant::now();
        while scores(&run_dir).is_empty() {
            assert!(started.elapsed() < PATIENCE, "version 0 was not answered");
            sleep(Duration::from_millis(20));
        }
        drop(validator);
        wait_for(&weights::path(&run_dir, PolicyVersion(2)));
        sleep(Duration::from_millis(300));
        send(second.id(), Signal::INT);
        let output = finish(second);
        assert!(output.status.success(), "{}", text(&output));
    }
    let so_far = [(0, Some(0.7), false), (1, None, true), (2, None, true)];
    assert_eq!(scores(&run_dir), so_far);
    assert_eq!(checkpoints(&run_dir), ["step-00000002"]);
    let mut killed = waits_for(2);
    send(killed.id(), Signal::KILL);
    killed.wait().unwrap();
    // From here on it is answered.
    let _validator = Validator::start(&run_dir, answer);
    let mut killed = learner(&run_dir, &args).spawn().unwrap();
    wait_for(&checkpoint(&run_dir, 4));
    send(killed.id(), Signal::KILL);
    killed.wait().unwrap();
    let output = finish(learner(&run_dir, &args).spawn().unwrap());
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains(CLOSING), "{}", text(&output));
    let expected = [
        (0, Some(0.7), false),
        (1, None, true),
        (2, None, true),
        (2, Some(0.6), false),
        (3, None, true),
        (4, None, true),
        (4, Some(0.5), false),
        (5, None, true),
        (5, Some(0.6), false),
    ];
    assert_eq!(scores(&run_dir), expected);
    assert_eq!(
        checkpoints(&run_dir),
        ["best", "step-00000002", "step-00000005"]
    );
    assert!(weights_of(&undisturbed, 5) == weights_of(&run_dir, 5));
    assert!(weights_of(&undisturbed, 2) == weights_of(&run_dir, 2));
}

/// A run that begins anew in its folder forgets what was answered there; one that goes on from an earlier step forgets the rest.
#[test]
fn what_was_answered_later_than_the_checkpoint_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let _rollout = DiceRollout::start(&run_dir, Shift::Endless);
    let args = [&ARGS[..], &["--keep-checkpoints", "9"]].concat();
    let run = |more: &[&str], answer| {
        let _validator = Validator::start(&run_dir, answer);
        let args = [&args[..], more].concat();
        let output = finish(learner(&run_dir, &args).spawn().unwrap());
        assert!(output.status.success(), "{}", text(&output));
    };
    run(&[], answer);
    for step in [3, 4, 5] {
        std::fs::remove_dir_all(checkpoint(&run_dir, step)).unwrap();
    }
    // Step 2 is answered, and is not asked again: 0.9 would be the best.
    run(&["--resume"], |version, publication| {
        let accuracy = [0.9, 0.9, 0.9, 0.3, 0.4, 0.65][usize::try_from(version.0).unwrap()];
        with_accuracy(version, publication, accuracy)
    });
    let answered: Vec<_> = scores(&run_dir)
        .into_iter()
        .filter_map(|(step, score, _)| Some((step, score?)))
        .collect();
    assert_eq!(answered, [(0, 0.7), (2, 0.6), (4, 0.4), (5, 0.65)]);
    assert_eq!(learner::best::step(&run_dir), Some(5));

    std::fs::remove_dir_all(run_dir.join("checkpoints")).unwrap();
    run(&["--steps", "1"], |version, publication| {
        with_accuracy(version, publication, 0.2)
    });
    assert_eq!(
        scores(&run_dir),
        [
            (0, Some(0.2), false),
            (1, None, true),
            (1, Some(0.2), false)
        ]
    );
    assert!(!validation::path(&run_dir, PolicyVersion(2)).exists());
}

#[test]
fn an_answer_about_other_weights_is_asked_again_and_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let _validator = Validator::start(&run_dir, |version, publication| {
        answer(version, publication + 1)
    });
    let output = finish(learner(&run_dir, &ARGS).spawn().unwrap());
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert_eq!(said.matches("v0 is validated again").count(), 2, "{said}");
    let last = said.trim_end().lines().last().unwrap();
    assert!(
        last.starts_with("error: ")
            && last.ends_with("v00000000.json answers publication 2, not 1"),
        "{last}"
    );
}

/// A rollout with another data set has the last word on version 4 alone: it can neither win nor lose.
#[test]
fn an_answer_to_other_problems_counts_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let _rollout = DiceRollout::start(&run_dir, Shift::Endless);
    let _validator = Validator::start(&run_dir, |version, publication| {
        let mut answer = answer(version, publication);
        if version.0 == 4 {
            answer.accuracy = 1.0;
            answer.problems = "others".to_owned();
        }
        answer
    });
    let output = finish(learner(&run_dir, &ARGS).spawn().unwrap());
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(
        said.matches("v4 was asked other problems").count(),
        1,
        "{said}"
    );
    assert_eq!(learner::best::step(&run_dir), Some(2));
}
