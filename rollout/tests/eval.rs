//! `rollout eval` as a process.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod data_set;

use std::path::Path;
use std::process::Command;

use common::fixtures;
use data_set::write_data;
use serde_json::Value;

/// The text and the JSON report.
fn eval(folder: &Path, flags: &[&str]) -> (String, Value) {
    let json = folder.join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_rollout"))
        .arg("eval")
        .arg("--model")
        .arg(fixtures().join("model"))
        .arg("--data")
        .arg(folder.join("data.jsonl"))
        .arg("--json")
        .arg(&json)
        .args([
            "--max-response-tokens",
            "24",
            "--max-prompt-tokens",
            "200",
            "--threads",
            "1",
        ])
        .args(flags)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    (String::from_utf8(output.stdout).unwrap(), report)
}

#[test]
fn greedy_is_the_default_and_skips_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    write_data(folder.path());
    let (text, report) = eval(folder.path(), &[]);
    assert!(
        text.contains("4 problems, 3 skipped") && text.contains("(greedy)"),
        "{text}"
    );
    assert_eq!(report["num_problems"], 4);
    assert_eq!(report["num_skipped"], 3);
    assert_eq!(report["skipped"].as_array().unwrap().len(), 3);
    let finished =
        report["finished_stop"].as_u64().unwrap() + report["finished_length"].as_u64().unwrap();
    assert_eq!(finished, 4);
    let ids: Vec<&str> = report["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["a", "b", "c", "d"]);
    // The same again, whatever shares the pass.
    assert_eq!(
        eval(folder.path(), &["--greedy", "--rows", "1"]).1["samples"],
        report["samples"]
    );
}

#[test]
fn sampling_gives_pass_at_k_and_depends_on_the_seed_alone() {
    let folder = tempfile::tempdir().unwrap();
    write_data(folder.path());
    let (_, report) = eval(folder.path(), &["--samples", "4", "--seed", "3"]);
    assert_eq!(report["temperature"], 1.0);
    assert_eq!(report["pass_at_k"].as_array().unwrap().len(), 4);
    let (_, again) = eval(
        folder.path(),
        &["--samples", "4", "--seed", "3", "--rows", "3"],
    );
    assert_eq!(again["samples"], report["samples"]);
    let (_, other) = eval(folder.path(), &["--samples", "4", "--seed", "4"]);
    assert_ne!(other["samples"], report["samples"]);
}
