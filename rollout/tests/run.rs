//! The program as a process, with the test in the learner's place.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod data_set;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::fixtures;
use data_set::write_data;
use models::checkpoint::{Checkpoint, write_f32};
use models::config::ModelConfig;
use shared::codec;
use shared::control::{LearnerControl, TicketState};
use shared::ids::{PolicyVersion, Ticket};
use shared::record::GroupRecord;
use shared::ring::Consumer;
use shared::telemetry::{Source, read_metrics};
use shared::{run_dir, weights};
use tempfile::TempDir;

/// Stands for a response length that is never reached in time.
const ENDLESS: &str = "--max-response-tokens=100000";

/// A run folder with the fixture model published, and the learner's side of it.
struct Run {
    folder: TempDir,
    control: LearnerControl,
    rings: BTreeMap<PathBuf, Consumer>,
    records: BTreeMap<Ticket, GroupRecord>,
    programs: Vec<Child>,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().join("run");
        run_dir::create(&run_dir).unwrap();
        let control = LearnerControl::create_or_open(&run_dir).unwrap();
        let run = Self {
            folder,
            control,
            rings: BTreeMap::new(),
            records: BTreeMap::new(),
            programs: Vec::new(),
        };
        write_data(run.folder.path());
        run.publish(0);
        run
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn publish(&self, version: u64) {
        let model = fixtures().join("model");
        let file = self.folder.path().join("model.safetensors");
        let config = ModelConfig::from_dir(&model).unwrap();
        write_f32(&file, &Checkpoint::open(&model).unwrap(), &config).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let fill = |out: &mut [u8]| -> std::io::Result<()> {
            out.copy_from_slice(&bytes);
            Ok(())
        };
        weights::publish(&self.dir(), PolicyVersion(version), bytes.len(), fill).unwrap();
        self.control.publish(PolicyVersion(version));
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollout"));
        command
            .arg("--run-dir")
            .arg(self.dir())
            .arg("--model")
            .arg(fixtures().join("model"))
            .arg("--data")
            .arg(self.folder.path().join("data.jsonl"))
            .args([
                "--engine",
                "cpu",
                "--group-size",
                "3",
                "--max-prompt-tokens",
                "200",
            ])
            .args(["--threads", "1", "--ring-mib", "1"])
            .args(flags)
            .stderr(Stdio::from(std::fs::File::create(self.log()).unwrap()));
        if !flags.iter().any(|flag| flag.starts_with("--max-response")) {
            command.arg("--max-response-tokens=20");
        }
        command
    }

    fn log(&self) -> PathBuf {
        self.folder
            .path()
            .join(format!("log-{}", self.programs.len()))
    }

    fn start(&mut self, flags: &[&str]) {
        let program = self.command(flags).spawn().unwrap();
        self.programs.push(program);
    }

    fn open(&mut self, tickets: std::ops::Range<u64>) {
        for ticket in tickets {
            self.control.open(Ticket(ticket)).unwrap();
        }
    }

    /// Reads what has arrived, as the learner does.
    fn drain(&mut self) {
        for path in self.control.ring_paths() {
            self.rings
                .entry(path.clone())
                .or_insert_with(|| Consumer::open(&path).unwrap());
        }
        let mut frame = Vec::new();
        let mut arrived = Vec::new();
        for ring in self.rings.values_mut() {
            while ring.try_pop(&mut frame).unwrap() {
                arrived.push(codec::decode(&frame).unwrap());
            }
        }
        for record in arrived {
            self.control.retire(record.ticket);
            let ticket = record.ticket;
            assert!(
                self.records.insert(ticket, record).is_none(),
                "ticket {ticket} was counted twice"
            );
        }
        let records = &self.records;
        self.control
            .reopen_dead(&|ticket| records.contains_key(&ticket))
            .unwrap();
    }

    fn wait_for(&mut self, count: usize) {
        let start = Instant::now();
        while self.records.len() < count {
            assert!(
                start.elapsed() < Duration::from_secs(120),
                "{} of {count} records; {}",
                self.records.len(),
                self.logs()
            );
            self.control
                .wait_records(Duration::from_millis(50))
                .unwrap();
            self.drain();
        }
    }

    fn logs(&self) -> String {
        let read = |index: usize| {
            std::fs::read_to_string(self.folder.path().join(format!("log-{index}")))
                .unwrap_or_default()
        };
        (0..self.programs.len())
            .map(read)
            .collect::<Vec<_>>()
            .join("---\n")
    }

    /// Says that the run is over; every program that is left ends well.
    fn finish(mut self) -> BTreeMap<Ticket, GroupRecord> {
        self.control.stop();
        for program in &mut self.programs {
            let status = program.wait().unwrap();
            assert!(status.success() || status.code().is_none(), "{status}");
        }
        std::mem::take(&mut self.records)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

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

/// Pays for the length of a response, so that hardly two of them are paid the same.
const BY_LENGTH: &str = r#"--verifier-command=while IFS= read -r line; do
    id=${line#*:}; rest=${line#*,}; echo "{\"id\": ${id%%,*}, \"accuracy\": 0.$((${#rest} % 900 + 100))}"
done"#;

#[test]
fn a_run_with_remax_has_the_reward_of_a_greedy_response_in_its_records() {
    let sampled = generated(&[&[BY_LENGTH]], 7);
    // As good as greedy.
    let cold = generated(&[&[BY_LENGTH, "--temperature", "0.00001"]], 7);
    let mut run = Run::new();
    let config = "[learner]\nadvantage = \"remax\"\n";
    std::fs::write(run.dir().join("config.toml"), config).unwrap();
    run.start(&[BY_LENGTH]);
    run.open(0..7);
    run.wait_for(7);
    let mut num_other = 0;
    for (ticket, mut record) in run.finish() {
        let greedy = record.greedy_reward.take();
        let expected = cold[&ticket].responses.first().map(|first| first.reward);
        assert_eq!(greedy, expected, "{ticket}");
        // The responses are as without it.
        assert_eq!(record, sampled[&ticket]);
        let responses = record.responses.iter();
        num_other += responses.filter(|one| Some(one.reward) != greedy).count();
    }
    assert!(num_other > 0);
}

#[test]
fn new_weights_are_used_from_the_next_ticket_on() {
    let mut run = Run::new();
    run.start(&[]);
    run.open(0..7);
    run.wait_for(7);
    for version in 1..4 {
        run.publish(version);
        run.open(version * 7..version * 7 + 7);
        run.wait_for(usize::try_from(version * 7 + 7).unwrap());
    }
    let log = run.logs();
    assert!(log.contains("skipped sample broken"), "{log}");
    check_shares(&run.dir());
    for (ticket, record) in run.finish() {
        for response in &record.responses {
            let versions = (response.first_version.0, response.last_version.0);
            assert_eq!(versions, (ticket.0 / 7, ticket.0 / 7), "ticket {ticket}");
        }
    }
}

/// Each version's row says what share of the time the stages worked, waited or were held up, and what the engine did.
fn check_shares(run_dir: &Path) {
    let rows = read_metrics(&Source::Rollout(0).path(run_dir)).unwrap();
    let versions: Vec<u64> = rows.iter().map(|row| row.step).collect();
    assert_eq!(versions, [0, 1, 2], "the last version's row is still open");
    for row in rows {
        let share = |name: &str| {
            let mut values = row.values.iter().filter(|(key, _)| key == name);
            let (_, value) = values.next().unwrap_or_else(|| panic!("no {name}"));
            assert!((0.0..=1.0).contains(value), "{name} = {value}");
            *value
        };
        let sum = |of: &str, parts: &[&str]| -> f64 {
            let names = parts.iter().map(|part| of.replace('*', part));
            names.map(|name| share(&name)).sum()
        };
        for stage in ["reload", "claim", "generate", "emit"] {
            let name = format!("rollout/stage/{stage}_*");
            let total = sum(&name, &["busy", "waiting", "blocked"]);
            // All of the time is one of the three; the rest is the rounding of a sum of quotients.
            assert!((total - 1.0).abs() < 1e-9, "{stage}: {total}");
        }
        let parts = ["vision", "prefill", "decode", "sampling", "blank"];
        let engine = sum("rollout/engine/*_share", &parts);
        let generate = share("rollout/stage/generate_busy");
        assert!(
            engine > 0.0 && engine <= generate + 1e-9,
            "{engine} of {generate}"
        );
        // The samples with an image have every part of the engine work.
        for part in parts {
            let name = format!("rollout/engine/{part}_share");
            assert!(share(&name) > 0.0, "{name}");
        }
        for stage in ["claim", "generate", "emit"] {
            assert!(share(&format!("rollout/stage/{stage}_busy")) > 0.0);
        }
        // Tickets come in batches here: the stages before and after the engine mostly wait.
        assert!(share("rollout/stage/emit_waiting") > 0.0);
    }
}

/// First and last version of every response when weights come while the engine is full, in a run that allows staleness.
fn versions_around_new_weights(flags: &[&str]) -> Vec<(u64, u64)> {
    let mut run = Run::new();
    let config = run.dir().join("config.toml");
    std::fs::write(config, "[learner]\nmax_staleness = 9\n").unwrap();
    run.start(&[&["--rows", "4", "--max-response-tokens=100"], flags].concat());
    let mut num_open = 0;
    loop {
        // Always some tickets ahead of the engine: it never runs empty by itself.
        run.open(num_open..num_open + 14);
        num_open += 14;
        assert!(num_open < 700, "no response came from the new weights");
        run.wait_for(usize::try_from(num_open).unwrap() - 10);
        let newest = run.control.version().unwrap();
        if newest == PolicyVersion(0) {
            run.publish(1);
        }
        let mut responses = run.records.values().flat_map(|record| &record.responses);
        if responses.any(|response| response.first_version == PolicyVersion(1)) {
            break;
        }
    }
    run.wait_for(usize::try_from(num_open).unwrap());
    let records = run.finish();
    let responses = records.values().flat_map(|record| &record.responses);
    responses
        .map(|response| (response.first_version.0, response.last_version.0))
        .collect()
}

#[test]
fn responses_under_way_continue_on_new_weights_or_are_finished_first() {
    let finish = ["--new-weights", "finish", "--finish-steps"];
    for flags in [&[][..], &[&finish[..], &["2"]].concat()] {
        let versions = versions_around_new_weights(flags);
        assert!(versions.contains(&(0, 1)), "{flags:?}: {versions:?}");
    }
    // Ends only if no group begins while the weights wait: otherwise the engine would never be through with the old ones.
    let versions = versions_around_new_weights(&[&finish[..], &["100000"]].concat());
    assert!(!versions.contains(&(0, 1)), "{versions:?}");
    assert!(versions.contains(&(0, 0)) && versions.contains(&(1, 1)));
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
