//! Which version is called the best, and what the last line says, before and after a resume.

use clap::{Args as _, Command, FromArgMatches as _};

use super::*;

fn open(run_dir: &Path, saved: Option<u64>) -> Validations {
    let command = LearnerArgs::augment_args(Command::new("test"));
    let given = ["test", "--validate-every=2", "--steps=8"];
    let args = LearnerArgs::from_arg_matches(&command.get_matches_from(given)).unwrap();
    Validations::open(run_dir, &args, saved).unwrap()
}

fn answer(version: u64, accuracy: f64, problems: &str) -> Validation {
    Validation {
        version: PolicyVersion(version),
        publication: version + 1,
        data: "test".to_owned(),
        limit: None,
        problems: problems.to_owned(),
        num_problems: 10,
        num_right: 0,
        accuracy,
        interval: [accuracy, accuracy],
        well_formed: 1.0,
        mean_response_tokens: 20.0,
        finished_stop: 10,
        finished_length: 0,
        num_skipped: 0,
        skipped: Vec::new(),
        seconds: 0.25,
    }
}

/// What a run does with an answer: its file, its row, and the link where it is the best.
fn take(run_dir: &Path, validations: &mut Validations, answer: Validation) -> bool {
    let step = answer.version.0;
    answer.write(run_dir).unwrap();
    log(run_dir, step);
    std::fs::create_dir_all(crate::checkpoint::path(run_dir, step)).unwrap();
    let is_best = validations.add(answer);
    if is_best {
        best::link(run_dir, step).unwrap();
    }
    is_best
}

fn log(run_dir: &Path, step: u64) {
    let mut metrics = shared::telemetry::Metrics::open(run_dir, Source::Learner).unwrap();
    metrics.log(step, &[(SCORE, 0.5)]).unwrap();
}

#[test]
fn a_checkpoint_below_the_beginning_is_not_called_the_best_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path();
    let mut validations = open(run_dir, None);
    assert_eq!(validations.line(), None);
    assert!(!take(run_dir, &mut validations, answer(0, 0.7, "a")));
    assert_eq!(validations.line().unwrap(), "validation: 70.0 % at step 0");
    assert!(take(run_dir, &mut validations, answer(2, 0.6, "a")));
    let below = "validation: 70.0 % at step 0, 60.0 % at step 2 at the end; no checkpoint is above step 0, the best one: \
                 60.0 % at step 2, checkpoints/best";
    assert_eq!(validations.line().unwrap(), below);
    assert!(take(run_dir, &mut validations, answer(4, 0.8, "a")));
    assert!(!take(run_dir, &mut validations, answer(6, 0.8, "a")));
    let above = "validation: 70.0 % at step 0, 80.0 % at step 6 at the end; best: 80.0 % at step 4, checkpoints/best";
    assert_eq!(validations.line().unwrap(), above);
}

#[test]
fn a_resumed_run_says_where_it_began_and_what_was_best_before() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path();
    let mut validations = open(run_dir, None);
    for (step, accuracy) in [(0, 0.5), (2, 0.9), (4, 0.6)] {
        take(run_dir, &mut validations, answer(step, accuracy, "a"));
    }
    let before = validations.line().unwrap();
    let mut validations = open(run_dir, Some(4));
    assert!(!validations.is_open(), "step 4 is answered");
    assert_eq!(validations.line().unwrap(), before);
    assert!(!take(run_dir, &mut validations, answer(6, 0.8, "a")));
    let line = "validation: 50.0 % at step 0, 80.0 % at step 6 at the end; best: 90.0 % at step 2, checkpoints/best";
    assert_eq!(validations.line().unwrap(), line);

    // From an earlier checkpoint what came later is forgotten, and what was never taken is asked again.
    let again = open(run_dir, Some(4));
    assert_eq!(again.answers.len(), 3);
    answer(8, 0.1, "a").write(run_dir).unwrap();
    let again = open(run_dir, Some(8));
    assert!(again.is_open() && again.answers.len() == 3);
}

#[test]
fn other_problems_after_a_resume_are_compared_among_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path();
    let mut validations = open(run_dir, None);
    for (step, accuracy) in [(0, 0.7), (2, 0.9)] {
        take(run_dir, &mut validations, answer(step, accuracy, "a"));
    }
    // Within one start of the program other problems are a mistake.
    assert!(!take(run_dir, &mut validations, answer(4, 1.0, "b")));
    assert_eq!(validations.answers.len(), 2);
    let mut validations = open(run_dir, Some(4));
    assert_eq!(best::step(run_dir), Some(2), "and stay one");
    assert!(take(run_dir, &mut validations, answer(6, 0.2, "c")));
    assert!(take(run_dir, &mut validations, answer(8, 0.3, "c")));
    let line = "validation: 20.0 % at step 6, 30.0 % at step 8 at the end; best: 30.0 % at step 8, checkpoints/best";
    assert_eq!(validations.line().unwrap(), line);
}
