//! `rollout eval --benchmark` as a process: its predictions file, scoring again, the judge, going on after an end.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/outcome.rs"]
mod outcome;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::fixtures;
use outcome::{refused, succeeded};
use serde_json::{Value, json};

fn rollout(folder: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollout"));
    command.current_dir(folder).arg("eval").args(flags);
    for name in [
        "OPENAI_API_KEY",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
}

fn generate(folder: &Path, flags: &[&str]) -> Output {
    let mut command = rollout(folder, &["--benchmark", "hallusionbench"]);
    command.args(["--data", "HallusionBench.json", "--json", "report.json"]);
    command.arg("--model").arg(fixtures().join("model"));
    command.args(["--max-response-tokens", "6", "--threads", "1"]);
    command.args(flags).output().unwrap()
}

/// Three questions about two figures; the second one's image is missing.
fn write_benchmark(folder: &Path) {
    let row = |figure: &str, question: &str, gold: &str, file: &str| {
        json!({"category": "VD", "subcategory": "illusion", "visual_input": "1", "set_id": "0", "figure_id": figure,
            "sample_note": "", "question_id": question, "question": "Is it so?", "gt_answer_details": "", "gt_answer": gold,
            "filename": file})
    };
    let rows = json!([
        row("0", "0", "1", "./a.png"),
        row("0", "1", "0", "./a.png"),
        row("1", "0", "1", "./b.png"),
    ]);
    fs::write(folder.join("HallusionBench.json"), rows.to_string()).unwrap();
    fs::copy(fixtures().join("images/triangle.png"), folder.join("a.png")).unwrap();
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn write_lines(path: &Path, lines: &[Value]) {
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs::write(path, text.join("\n") + "\n").unwrap();
}

fn report(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap()
}

#[test]
fn a_missing_image_is_wrong_and_named_until_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_benchmark(folder);
    let text = succeeded(&generate(folder, &[]));
    assert!(
        text.contains("3 problems, 1 could not be asked and count as wrong"),
        "{text}"
    );
    assert!(
        text.contains("VD_illusion_0_1_0: image ./b.png: not in"),
        "{text}"
    );
    assert_eq!(report(folder)["num_unasked"], 1);
    assert_eq!(report(folder)["figures"][0]["name"], "aAcc");

    // Going on asks what is missing and nothing else: the first response stays as somebody changed it; a torn line is nothing.
    let path = folder.join("eval-hallusionbench.jsonl");
    let mut kept = lines(&path);
    assert_eq!(kept.len(), 4, "a head and three predictions");
    assert_eq!(kept[0]["benchmark"], "hallusionbench");
    assert!(
        kept[1]["prompt"]
            .as_str()
            .unwrap()
            .contains("Is it so? You final answer")
    );
    assert_eq!(kept[3]["response"], Value::Null);
    kept[1]["response"] = json!("changed");
    kept.remove(2);
    write_lines(&path, &kept);
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.write_all(b"{\"index\": 1, \"id\"").unwrap();
    fs::copy(folder.join("a.png"), folder.join("b.png")).unwrap();
    succeeded(&generate(folder, &[]));
    let now = lines(&path);
    assert_eq!(now.len(), 4);
    assert_eq!(now[1]["response"], "changed");
    assert!(now[2]["response"].is_string() && now[3]["response"].is_string());
    assert_eq!(now[3].get("error"), None);
    assert_eq!(report(folder)["num_unasked"], 0);

    let message = refused(&generate(folder, &["--seed", "7"]));
    assert!(
        message.contains("made otherwise (seed 0, now 7)"),
        "{message}"
    );
    let message = refused(
        &rollout(folder, &["--rescore", "HallusionBench.json"])
            .output()
            .unwrap(),
    );
    assert!(message.contains("is no predictions file"), "{message}");
}

/// Two samples of each question. Right are: of question 0 both, of question 1 the first, of question 2 none.
/// Accuracy (1 + 1/2 + 0) / 3 = 0.5; pass@2 = 2/3 (1 - C(1, 2) / C(2, 2) = 1 for question 1).
/// aAcc: 2/3 of the first, 1/3 of the second samples: 0.5. fAcc: figure 0 of two with the first: 1/2 and 0, mean 0.25.
/// qAcc: question 0 (figures 0 and 1) is never right throughout, question 1 with the first: 1/2 and 0, mean 0.25.
#[test]
fn predictions_are_scored_again_without_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_benchmark(folder);
    fs::copy(folder.join("a.png"), folder.join("b.png")).unwrap();
    succeeded(&generate(
        folder,
        &["--samples", "2", "--predictions", "p.jsonl"],
    ));
    let path = folder.join("p.jsonl");
    let mut changed = lines(&path);
    let (yes, no) = (r"\boxed{yes}", r"\boxed{no}");
    for (line, response) in changed.iter_mut().skip(1).zip([yes, yes, no, yes, no, "?"]) {
        line["response"] = json!(response);
    }
    write_lines(&path, &changed);
    let flags = [
        "--rescore",
        "p.jsonl",
        "--predictions",
        "q.jsonl",
        "--json",
        "report.json",
    ];
    let text = succeeded(&rollout(folder, &flags).output().unwrap());
    assert!(
        text.contains("pass@2       66.67 %") && text.contains("q.jsonl"),
        "{text}"
    );
    let report = report(folder);
    assert_eq!(
        (&report["accuracy"], &report["pass_at_k"][0]),
        (&json!(0.5), &json!(0.5))
    );
    assert!((report["pass_at_k"][1].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-12);
    let figure = |index: usize| report["figures"][index]["value"].as_f64().unwrap();
    assert!((figure(0) - 0.5).abs() < 1e-12);
    assert_eq!((figure(1), figure(2)), (0.25, 0.25));
    assert_eq!(report["groups"]["category"][0]["num_problems"], 3);
    let scored = lines(&folder.join("q.jsonl"));
    assert_eq!(scored[1]["extraction"], "yes");
    let verdicts: Vec<bool> = scored[1..]
        .iter()
        .map(|line| line["is_right"].as_bool().unwrap())
        .collect();
    assert_eq!(verdicts, [true, true, true, false, false, false]);
    assert_eq!(lines(&path), changed, "the source stays as it was");
}

/// A judge of one thread: fails once, then says 1 of responses that hold `agrees`, else 0. Returns how many requests it got.
fn judge(listener: TcpListener, requests: usize, status: u16) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        for number in 0..requests {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut length, mut key) = (0, String::new());
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.trim_end();
                if line.is_empty() {
                    break;
                }
                if let Some((name, value)) = line.split_once(": ") {
                    match name.to_ascii_lowercase().as_str() {
                        "content-length" => length = value.parse().unwrap(),
                        "authorization" => value.clone_into(&mut key),
                        _ => {}
                    }
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (body["model"].as_str(), key.as_str()),
                (Some("strict"), "Bearer a-key")
            );
            let asked = body["messages"][0]["content"].as_str().unwrap();
            assert!(asked.contains("[Right answer]"));
            let verdict = if asked.contains("agrees with it") {
                1
            } else {
                0
            };
            let reply = json!({"choices": [{"message": {"content": format!("So.\nJudgement: {verdict}")}}]}).to_string();
            let status = if number == 0 { status } else { 200 };
            write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{reply}",
                reply.len()
            )
            .unwrap();
        }
        requests
    })
}

#[test]
fn a_judge_is_asked_about_what_the_rules_hold_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_benchmark(folder);
    fs::copy(folder.join("a.png"), folder.join("b.png")).unwrap();
    succeeded(&generate(folder, &[]));
    let path = folder.join("eval-hallusionbench.jsonl");
    let mut changed = lines(&path);
    for (line, response) in
        changed
            .iter_mut()
            .skip(1)
            .zip([r"\boxed{yes}", "It agrees with it", "No idea"])
    {
        line["response"] = json!(response);
    }
    write_lines(&path, &changed);
    let ask = |address: &str, flags: &[&str]| {
        let url = format!("http://{address}/v1");
        let mut command = rollout(
            folder,
            &[
                "--rescore",
                "eval-hallusionbench.jsonl",
                "--json",
                "report.json",
            ],
        );
        command.args([
            "--judge-url",
            &url,
            "--judge-model",
            "strict",
            "--judge-parallel",
            "1",
        ]);
        command
            .env("OPENAI_API_KEY", "a-key")
            .args(flags)
            .output()
            .unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = judge(listener, 1, 401);
    let message = refused(&ask(&address, &[]));
    assert!(
        message.contains("the judge at http://") && message.contains("401"),
        "{message}"
    );
    server.join().unwrap();

    // The first request fails in passing; two responses are asked about, so three requests.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = judge(listener, 3, 503);
    let text = succeeded(&ask(&address, &[]));
    assert_eq!(server.join().unwrap(), 3);
    assert!(text.contains("strict: 1 of 2 wrong by the rules are right, 0 without a verdict; by the rules alone 33.33 %"), "{text}");
    let accuracy = report(folder)["accuracy"].as_f64().unwrap();
    assert!((accuracy - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(lines(&path)[2]["judge"]["is_right"], true);

    // Its verdicts are kept: nobody listens any more, and nobody is asked.
    succeeded(&ask(&address, &[]));
    // A judge that is not there leaves what the rules say, and says so.
    write_lines(&path, &changed);
    let text = succeeded(&ask(&address, &["--judge-tries", "1"]));
    assert!(
        text.contains("0 of 2 wrong by the rules are right, 2 without a verdict"),
        "{text}"
    );
}

#[test]
fn an_interrupted_evaluation_keeps_what_it_has_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rows: Vec<String> = (0..400)
        .map(|n| {
            format!(
                r#"{{"id": "{n}", "problem": "{n} + 1?", "answer": "{}"}}"#,
                n + 1
            )
        })
        .collect();
    fs::write(folder.join("data.jsonl"), rows.join("\n")).unwrap();
    let command = |flags: &[&str]| {
        let mut command = rollout(
            folder,
            &[
                "--data",
                "data.jsonl",
                "--predictions",
                "p.jsonl",
                "--rows",
                "1",
            ],
        );
        command.arg("--model").arg(fixtures().join("model"));
        command.args([
            "--max-response-tokens",
            "64",
            "--max-prompt-tokens",
            "200",
            "--threads",
            "1",
        ]);
        command.args(flags);
        command
    };
    let child = command(&[])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let path = folder.join("p.jsonl");
    let started = Instant::now();
    while fs::read_to_string(&path).map_or(0, |text| text.lines().count()) < 3 {
        assert!(
            started.elapsed() < Duration::from_secs(300),
            "no predictions"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let message = refused(&child.wait_with_output().unwrap());
    assert!(
        message.contains("stopped after")
            && message.contains("p.jsonl keeps them, run again to go on"),
        "{message}"
    );
    let kept = lines(&path);
    let limit = kept.len() + 1; // the head, and two more questions
    succeeded(&command(&["--limit", &limit.to_string()]).output().unwrap());
    let now = lines(&path);
    assert_eq!(now.len(), limit + 1);
    assert_eq!(now[..kept.len()], kept[..]);
}
