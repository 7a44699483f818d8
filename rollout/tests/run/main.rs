//! The program as a process, with the test in the learner's place.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../data_set/mod.rs"]
mod data_set;
mod greedy;
mod run_folder;
mod weights;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::fixtures;
use run_folder::Run;
use shared::control::TicketState;
use shared::ids::Ticket;
use shared::record::GroupRecord;

/// Stands for a response length that is never reached in time.
const ENDLESS: &str = "--max-response-tokens=100000";

fn signal(program: &Child, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &program.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

fn generated(rollouts: &[&[&str]], tickets: u64) -> BTreeMap<Ticket, GroupRecord> {
    let mut run = Run::new();
    rollouts.iter().for_each(|flags| run.start(flags));
    run.open(0..tickets);
    run.wait_for(usize::try_from(tickets).unwrap());
    run.finish()
}

#[test]
fn records_do_not_depend_on_rows_or_on_who_generates() {
    let one = generated(&[&["--rows", "1"]], 14);
    let many = generated(&[&["--rows", "16"], &["--rows", "5"]], 14);
    assert_eq!(one, many);
    // Each epoch has the seven samples once; the bad ones are answered without responses.
    for epoch in [0..7, 7..14] {
        let mut ids: Vec<&str> = epoch
            .clone()
            .map(|ticket| one[&Ticket(ticket)].sample_id.as_str())
            .collect();
        ids.sort_unstable();
        // A bad one says where it stands.
        assert_eq!(
            ids,
            [
                "a",
                "b",
                "broken (data.jsonl#2)",
                "c",
                "d",
                "long (data.jsonl#5)",
                "mismatch (data.jsonl#4)"
            ]
        );
        for ticket in epoch {
            let record = &one[&Ticket(ticket)];
            let is_bad = record.sample_id.contains('#');
            assert_eq!(
                record.responses.len(),
                if is_bad { 0 } else { 3 },
                "{}",
                record.sample_id
            );
            for response in &record.responses {
                let has_image = ["a", "c"].contains(&record.sample_id.as_str());
                assert_eq!(response.logprobs != response.blank_logprobs, has_image);
            }
        }
    }
}

#[test]
fn an_interrupted_rollout_gives_its_tickets_back() {
    let mut run = Run::new();
    run.start(&[ENDLESS, "--rows", "2"]);
    run.open(0..20);
    let start = Instant::now();
    while !(0..20)
        .any(|ticket| matches!(run.control.ticket(Ticket(ticket)), TicketState::Held { .. }))
    {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", run.logs());
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&run.programs[0], "TERM");
    assert!(run.programs[0].wait().unwrap().success(), "{}", run.logs());
    run.drain();
    for ticket in (0..20)
        .map(Ticket)
        .filter(|ticket| !run.records.contains_key(ticket))
    {
        assert!(
            matches!(run.control.ticket(ticket), TicketState::Open),
            "ticket {ticket}: {:?}",
            run.control.ticket(ticket)
        );
    }
    // Another one goes on.
    run.start(&[]);
    run.wait_for(20);
    run.finish();
}

#[test]
fn a_killed_rollout_loses_nothing_and_repeats_nothing() {
    let expected = generated(&[&[]], 42);
    let mut run = Run::new();
    run.open(0..42);
    for kill_after in [5, 12, 20, 31] {
        run.start(&["--rows", "4"]);
        run.wait_for(kill_after);
        run.programs.last_mut().unwrap().kill().unwrap();
        run.programs.last_mut().unwrap().wait().unwrap();
    }
    run.start(&[]);
    run.wait_for(42);
    assert_eq!(run.finish(), expected);
}

fn fails(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rollout"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

#[test]
fn what_the_user_must_mend_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run").to_str().unwrap().to_owned();
    let model = fixtures().join("model").to_str().unwrap().to_owned();
    assert!(fails(&["--run-dir", &run, "--model", "/nowhere"]).contains("/nowhere"));
    assert!(fails(&["--run-dir", &run, "--data", "/nowhere.parquet"]).contains("/nowhere.parquet"));
    for engine in ["cuda", "trt"] {
        let text = fails(&["--run-dir", &run, "--engine", engine]);
        assert!(
            text.contains(engine)
                && text.contains("libonnxruntime_providers_")
                && text.contains("wheel"),
            "{text}"
        );
    }
    assert!(
        !Path::new(&run).exists(),
        "a start that failed left a run folder behind"
    );
    assert!(
        fails(&["eval", "--model", &model, "--data", "/nowhere.jsonl"]).contains("/nowhere.jsonl")
    );
    assert!(fails(&["eval", "--model", "/nowhere", "--data", "x"]).contains("/nowhere"));
    assert!(fails(&["eval", "--run-dir", &run, "--data", "x"]).contains("no weights"));
}
