//! `rollout eval` by each verifier, as a process.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/outcome.rs"]
mod outcome;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::fixtures;
use outcome::{refused, succeeded};
use serde_json::{Value, json};

fn rollout(folder: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollout"));
    command.current_dir(folder).arg("eval").args(flags);
    command.output().unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn report(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap()
}

/// A predictions file of before verifiers could be chosen. mathruler takes the first of its responses, we the second.
fn write_predictions(folder: &Path) {
    let head = json!({"benchmark": null, "data": "d.jsonl", "model": "m", "protocol": "model", "prompt_template": "none",
        "image_rule": "model", "min_pixels": null, "max_pixels": null, "with_text_rows": false, "max_prompt_tokens": 100,
        "max_response_tokens": 100, "precision": "f32", "temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 0,
        "samples_per_problem": 1});
    let line = |index: u64, response: &str| {
        json!({"index": index, "id": "a", "question": "?", "answer": "x=4", "cluster": index.to_string(), "sample": 0,
            "prompt": "?", "response": response, "finish": "stop", "num_tokens": 5, "extraction": null,
            "is_right_by_rules": false, "is_right": false, "is_well_formed": false})
    };
    let text = [
        head,
        line(0, "\\boxed{z=4}"),
        line(1, "<think>so</think> \\boxed{x=4.0}"),
    ];
    let text: Vec<String> = text.iter().map(Value::to_string).collect();
    fs::write(folder.join("p.jsonl"), text.join("\n") + "\n").unwrap();
}

fn verdicts(path: &Path) -> Vec<bool> {
    let lines = lines(path);
    let verdicts = lines.iter().skip(1);
    verdicts
        .map(|line| line["is_right"].as_bool().unwrap())
        .collect()
}

#[test]
fn scoring_again_goes_by_the_files_verifier_or_the_given_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_predictions(folder);
    let (p, q) = (folder.join("p.jsonl"), folder.join("q.jsonl"));
    let rescore = |flags: &[&str]| rollout(folder, &[&["--rescore"], flags].concat());

    let text = succeeded(&rescore(&["p.jsonl"]));
    assert!(text.contains("\nverifier     robust\n"), "{text}");
    assert_eq!(verdicts(&p), [false, true]);
    assert_eq!(lines(&p)[0]["verifier"], "robust");

    let flags = ["--predictions", "q.jsonl", "--json", "report.json"];
    let compat = ["p.jsonl", "--verifier", "compat"];
    let text = succeeded(&rescore(&[&compat[..], &flags].concat()));
    assert!(text.contains("\nverifier     compat\n"), "{text}");
    assert_eq!(verdicts(&q), [true, false]);
    assert_eq!(lines(&q)[0]["verifier"], "compat");
    assert_eq!(report(folder)["verifier"], "compat");
    assert_eq!(verdicts(&p), [false, true], "the source stays as it was");

    // Nothing said: as the file says. A form is not a mode.
    succeeded(&rescore(&["q.jsonl"]));
    assert_eq!(verdicts(&q), [true, false]);
    succeeded(&rescore(&["q.jsonl", "--format-rule", "r1v"]));
    assert_eq!(lines(&q)[0]["verifier"], "compat");
    assert_eq!(lines(&q)[0]["format_rule"], "r1v");
    assert_eq!(lines(&q)[2]["is_well_formed"], false);
    let robust = ["--verifier", "robust", "--format-rule", "easy-r1"];
    succeeded(&rescore(&[&["q.jsonl"], &robust[..]].concat()));
    assert_eq!(verdicts(&q), [false, true]);
    assert_eq!(lines(&q)[2]["is_well_formed"], true);
}

/// It gives a quarter, and dies of `x=4.0`. What stands in a file is not run by itself.
#[test]
fn a_command_judges_in_parts_and_is_run_when_it_is_given_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_predictions(folder);
    let command = r#"touch ran; while IFS= read -r line; do
        case "$line" in *4.0*) exit 1;; esac
        id=${line#*:}; id=${id%%,*}; echo "{\"id\": $id, \"accuracy\": 0.25}"
    done"#;
    let flags = ["--rescore", "p.jsonl", "--json", "report.json"];
    let rescore = |more: &[&str]| rollout(folder, &[&flags[..], more].concat());
    let text = succeeded(&rescore(&["--verifier-command", command]));
    assert!(text.contains("\naccuracy     12.50 %"), "{text}");
    let said = "it gave no answer on 1 responses, which count as wrong";
    assert!(text.contains("verifier     the command touch ran; while") && text.contains(said));
    let report = report(folder);
    assert_eq!(
        (&report["accuracy"], &report["rules_accuracy"]),
        (&json!(0.125), &json!(0.125))
    );
    assert_eq!(report["samples"][0]["responses"][0]["accuracy"], 0.25);
    // Right is a full score alone, in the verdicts and in pass@k.
    assert_eq!(verdicts(&folder.join("p.jsonl")), [false, false]);
    assert_eq!(report["pass_at_k"], json!([0.0]));

    fs::remove_file(folder.join("ran")).unwrap();
    let message = refused(&rescore(&[]));
    assert!(
        message.contains("p.jsonl: its verdicts are those of --verifier-command")
            && message.contains("give that again"),
        "{message}"
    );
    assert!(!folder.join("ran").exists());
    let message = refused(&rescore(&["--verifier-command", "exit 1"]));
    assert!(message.contains("--verifier-command ended"), "{message}");
    succeeded(&rescore(&["--verifier", "robust"]));
    assert_eq!(verdicts(&folder.join("p.jsonl")), [false, true]);
    assert_eq!(
        lines(&folder.join("p.jsonl"))[0]["verifier_command"],
        Value::Null
    );
}

#[test]
fn an_evaluation_goes_on_with_the_verifier_that_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let row = r#"{"id": "a", "problem": "1 + 1?", "answer": "2"}"#;
    fs::write(folder.join("d.jsonl"), row).unwrap();
    let model = fixtures().join("model");
    let flags = [
        "--model",
        model.to_str().unwrap(),
        "--data",
        "d.jsonl",
        "--predictions",
        "p.jsonl",
        "--max-response-tokens",
        "2",
        "--threads",
        "1",
    ];
    let run = |more: &[&str]| rollout(folder, &[&flags[..], more].concat());
    succeeded(&run(&[]));
    let message = refused(&run(&["--verifier", "compat"]));
    let said = r#"judged otherwise (verifier "robust", now "compat"): first --rescore p.jsonl"#;
    assert!(message.contains(said), "{message}");
    succeeded(&rollout(
        folder,
        &["--rescore", "p.jsonl", "--verifier", "compat"],
    ));
    let text = succeeded(&run(&["--verifier", "compat"]));
    assert!(text.contains("\nverifier     compat\n"), "{text}");

    let message = refused(&run(&["--benchmark", "wemath", "--verifier", "compat"]));
    assert!(
        message.contains("--verifier has no effect on wemath"),
        "{message}"
    );
    let message = refused(&run(&["--verifier-timeout-s", "5"]));
    assert!(message.contains("--verifier-command may take"), "{message}");
}
