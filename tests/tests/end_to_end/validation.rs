//! `--validate-every` between the built programs: what a rollout answers is what `rollout eval` would, and training does not notice.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shared::ids::PolicyVersion;
use shared::telemetry::read_metrics;
use shared::validation::{Validation, responses_path};
use tests::programs::{geo_mini, geo_mini_data, output};

use crate::bad_input::{assert_says, complaint};
use crate::run::{HANG, Run, STEPS};

const LIMIT: &str = "24";

/// Question, response and verdict of each line of a predictions file but the first, which says how they were made.
fn answers(path: &std::path::Path) -> Result<Vec<[Value; 3]>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().skip(1);
    lines
        .map(|line| {
            let line: Value = serde_json::from_str(line)?;
            Ok(["id", "response", "is_right"].map(|key| line[key].clone()))
        })
        .collect()
}

#[test]
fn a_rollout_answers_as_eval_does_and_training_goes_the_same_way() -> Result<()> {
    let run = Run::new(STEPS)?;
    let data = geo_mini_data("test");
    let data = data.to_str().context("UTF-8 path")?;
    let validation = ["--validation-data", data, "--validation-limit", LIMIT];
    let rollout = run.rollout_with(&validation)?;
    run.learner(&["--validate-every", "2"])?.succeed(HANG)?;
    rollout.succeed(HANG)?;
    assert!(run.final_weights()? == Run::undisturbed(STEPS)?);

    let rows = read_metrics(&run.dir().join("metrics.jsonl"))?;
    let scores = rows.iter().filter_map(|row| {
        let score = row.values.iter().find(|(name, _)| name == "val/score")?;
        Some((row.step, score.1))
    });
    let mut expected = Vec::new();
    for version in [0, 2, STEPS] {
        let validation = Validation::read(&run.dir(), PolicyVersion(version))?;
        assert_eq!(validation.num_problems, 24);
        expected.push((version, validation.accuracy));
    }
    assert_eq!(scores.collect::<Vec<_>>(), expected);

    let (predictions, run_dir) = (run.file("predictions.jsonl"), run.dir());
    let path = |path: &std::path::Path| path.to_str().map(str::to_owned).context("UTF-8 path");
    let (model, folder, file) = (path(&geo_mini())?, path(&run_dir)?, path(&predictions)?);
    let result = output(
        "rollout",
        &[
            "eval",
            "--model",
            &model,
            "--run-dir",
            &folder,
            "--data",
            data,
            "--limit",
            LIMIT,
            "--max-response-tokens",
            "24",
            "--predictions",
            &file,
        ],
    )?;
    ensure!(
        result.status.success(),
        "{}",
        String::from_utf8_lossy(&result.stderr)
    );
    let evaluated = answers(&predictions)?;
    assert_eq!(evaluated.len(), 24);
    assert_eq!(
        answers(&responses_path(&run_dir, PolicyVersion(STEPS)))?,
        evaluated
    );
    Ok(())
}

#[test]
fn a_rollout_without_a_data_set_for_it_says_so() -> Result<()> {
    let run = Run::new(STEPS)?;
    let _learner = run.learner(&["--validate-every", "2"])?;
    let arguments = run.rollout_arguments()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert_says(
        &complaint("rollout", &arguments)?,
        &["error: ", "--validation-data", "--validate-every 0"],
    );
    Ok(())
}
