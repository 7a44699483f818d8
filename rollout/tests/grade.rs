//! `rollout grade` as a process.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Exit code, standard output, standard error.
fn grade(flags: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rollout"))
        .arg("grade")
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn one_answer() {
    let (code, out, _) = grade(
        &[
            "--prediction",
            "\\frac{15}{\\sqrt5}",
            "--answer",
            "3\\sqrt5",
        ],
        "",
    );
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "right: \"\\\\frac{15}{\\\\sqrt5}\" for \"3\\\\sqrt5\" (expression, same_value)\n"
        )
    );
    let (_, out, _) = grade(
        &[
            "--prediction",
            "-3 or \\boxed{-4}",
            "--answer",
            "-4",
            "--response",
        ],
        "",
    );
    assert_eq!(out, "right: \"-4\" for \"-4\" (number, same_value)\n");
    let flags = ["--mode", "compat", "--prediction", "z=4", "--answer", "x=4"];
    assert!(grade(&flags, "").1.starts_with("right"));
}

#[test]
fn lines_with_something_expected() {
    let input = concat!(
        "{\"prediction\": \"\\\\boxed{0.5}\", \"answer\": \"1/2\", \"mode\": \"response\", \"expected\": true, \"category\": \"a\"}\n\n",
        "{\"prediction\": \"0.5\", \"answer\": \"1/2\", \"expected\": false, \"category\": \"a\"}\n",
        "{\"prediction\": \"0.4\", \"answer\": \"1/2\", \"expected\": true, \"category\": \"b\"}\n",
    );
    let (code, out, _) = grade(&[], input);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(code, 0);
    assert_eq!(
        lines[0],
        "right: \"0.5\" for \"1/2\" (number, same_value, expected wrong)"
    );
    assert_eq!(
        lines[1],
        "wrong: \"0.4\" for \"1/2\" (number, other_value, expected right)"
    );
    assert_eq!(lines[2], "3 graded, 2 taken as right");
    let fields = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(fields(lines[4]), ["a", "2", "50.0", "%", "1", "0"]);
    assert_eq!(fields(lines[5]), ["b", "1", "0.0", "%", "0", "1"]);
    assert_eq!(fields(lines[6]), ["all", "3", "33.3", "%", "1", "1"]);

    let (_, out, _) = grade(&["--json"], input);
    let rows: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows[0]["extracted"], "0.5");
    assert_eq!(rows[2]["reason"], "other_value");
    assert_eq!(rows[3]["summary"]["expected"]["false_positives"], 1);
    assert_eq!(rows[3]["summary"]["categories"]["b"]["false_negatives"], 1);
}

#[test]
fn what_it_cannot_read_is_said() {
    let (code, _, error) = grade(
        &[],
        "{\"prediction\": \"1\", \"answer\": \"1\"}\n{\"prediction\": 1}\n",
    );
    assert_eq!(code, 1);
    assert!(
        error.starts_with("error: standard input:2: expected {\"prediction\": text"),
        "{error}"
    );
    let (code, _, error) = grade(&["--verifier-timeout-s", "3"], "");
    assert_eq!(code, 1);
    assert!(error.contains("give that too, or leave it out"), "{error}");
    let (code, _, error) = grade(&["/no/such/file"], "");
    assert_eq!(code, 1);
    assert!(
        error.starts_with("error: cannot read /no/such/file"),
        "{error}"
    );
}
