//! `kill -9` at random moments. The test program starts itself again in the roles below and kills what it started.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test program: helpers of tests are tests too"
)]

mod board;
mod ring;

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};

const RING_BYTES: usize = 8192;
const NEVER: &dyn Fn() -> bool = &|| false;

/// The children's entrance: as a test of the parent it does nothing.
#[test]
fn child() {
    let Ok(role) = env::var("TWO_PROCESS_ROLE") else {
        return;
    };
    // A parent that fails leaves nobody behind.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let folder = PathBuf::from(env::var("TWO_PROCESS_FOLDER").unwrap());
    let number: u64 = env::var("TWO_PROCESS_NUMBER").unwrap().parse().unwrap();
    match role.as_str() {
        "writer" => ring::write_frames(&folder, number),
        "reader" => ring::read_frames(&folder, number),
        "rollout" => board::roll_out(&folder, number),
        "learner" => board::learn(&folder, number),
        other => panic!("role {other}"),
    }
}

/// A child that dies with this value.
struct Process(Child);

impl Process {
    fn start(role: &str, folder: &Path, number: u64) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env("TWO_PROCESS_ROLE", role)
            .env("TWO_PROCESS_FOLDER", folder)
            .env("TWO_PROCESS_NUMBER", number.to_string())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// Kills it; it must not have ended by itself unless that was a success.
    fn kill(mut self) {
        if let Some(status) = self.0.try_wait().unwrap() {
            assert!(status.success(), "a child failed: {status}");
        }
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn has_ended(&mut self) -> bool {
        let status = self.0.try_wait().unwrap();
        assert!(
            status.is_none_or(|status| status.success()),
            "a child failed: {status:?}"
        );
        status.is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// xorshift64*: which moments, lengths and bytes.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn of_the_moment() -> Self {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        Self::new(u64::from(now.subsec_nanos()) ^ now.as_secs())
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % end
    }

    fn sleep_ms(&mut self, end: u64) {
        thread::sleep(Duration::from_micros(self.below(1000 * end)));
    }
}

/// The frame `number` of the writer `writer`: both, then bytes that follow from both, of any length that fits.
fn frame(writer: u64, number: u64) -> Vec<u8> {
    let mut random = Random::new(writer << 32 ^ number);
    let words = random.below(RING_BYTES as u64 / 16);
    let mut frame: Vec<u8> = [writer, number].map(u64::to_le_bytes).concat();
    frame.extend((0..words).flat_map(|_| random.below(u64::MAX).to_le_bytes()));
    frame
        .truncate(frame.len() - usize::try_from(random.below(8)).unwrap() * usize::from(words > 0));
    frame
}

fn word(bytes: &[u8], index: usize) -> u64 {
    u64::from_le_bytes(bytes[8 * index..8 * index + 8].try_into().unwrap())
}

fn append(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
}

/// Lines that survive a kill: each is one write, and one that was cut would not end in a newline.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// Adds a line of 32 bytes. A write that crosses a page may be cut there when its process is killed; these never cross one.
fn note(log: &mut fs::File, text: &str) {
    log.write_all(format!("{text:<31}\n").as_bytes()).unwrap();
}
