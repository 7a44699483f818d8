//! A run folder with the test in the learner's place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use models::checkpoint::{Checkpoint, write_f32};
use models::config::ModelConfig;
use shared::codec;
use shared::control::LearnerControl;
use shared::ids::{PolicyVersion, Ticket};
use shared::record::GroupRecord;
use shared::ring::Consumer;
use shared::{run_dir, weights};
use tempfile::TempDir;

use crate::common::fixtures;
use crate::data_set::write_data;

/// A run folder with the fixture model published, and the learner's side of it.
pub(crate) struct Run {
    folder: TempDir,
    pub(crate) control: LearnerControl,
    rings: BTreeMap<PathBuf, Consumer>,
    pub(crate) records: BTreeMap<Ticket, GroupRecord>,
    pub(crate) programs: Vec<Child>,
}

impl Run {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub(crate) fn publish(&self, version: u64) {
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

    pub(crate) fn start(&mut self, flags: &[&str]) {
        let program = self.command(flags).spawn().unwrap();
        self.programs.push(program);
    }

    pub(crate) fn open(&mut self, tickets: std::ops::Range<u64>) {
        for ticket in tickets {
            self.control.open(Ticket(ticket)).unwrap();
        }
    }

    /// Reads what has arrived, as the learner does.
    pub(crate) fn drain(&mut self) {
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

    pub(crate) fn wait_for(&mut self, count: usize) {
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

    pub(crate) fn logs(&self) -> String {
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
    pub(crate) fn finish(mut self) -> BTreeMap<Ticket, GroupRecord> {
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
