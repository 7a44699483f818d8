//! The file of a control page and the words that are neither board nor seats.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::board::{self, Board};
use super::process::Process;
use super::seats::{self, Seats};
use super::validation::Validation;
use crate::error::{Error, Result};
use crate::ids::PolicyVersion;
use crate::ring::storage::{Format, Mapped, Storage};
use crate::ring::sync::{AtomicU64, Ordering};

const FORMAT: Format = Format {
    kind: "control page",
    magic: *b"ToR ctrl",
    version: 1,
};
/// What a page's body takes: the seats, then the board.
const BODY_WORDS: usize = seats::WORDS + board::WORDS;

// Header words.
const MACHINE: usize = 8;
const LEARNER: usize = 9;
const GENERATION: usize = 10;
/// The newest version + 1; 0 while there is none.
const VERSION: usize = 11;
const PUBLICATIONS: usize = 12;
const STOP: usize = 13;
/// Zero, which asks for nothing, on a page of a build that did not know it: hence no new version of the layout.
const VALIDATION: usize = 14;
/// Whether each group needs a greedy response beside it. Zero, likewise, on a page that did not know it.
const GREEDY: usize = 15;
const BASE: usize = 16;
const HORIZON: usize = 17;

/// Signal: something for the rollouts to look at.
const WORK: usize = 0;
/// Signal: something for the learner to look at.
const RECORDS: usize = 1;

/// The path of a run's control page.
pub(super) fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("control")
}

/// A mapped control page.
#[derive(Debug)]
pub(super) struct Page {
    storage: Storage,
}

impl Page {
    /// An empty page of this machine.
    pub(super) fn create(path: &Path, machine: u64) -> Result<()> {
        Mapped::create(path, &FORMAT, BODY_WORDS * size_of::<u64>(), |storage| {
            storage.header(MACHINE).store(machine, Ordering::Relaxed);
        })
    }

    pub(super) fn open(path: &Path) -> Result<Self> {
        let mapped = Mapped::open(path, &FORMAT)?;
        let storage = Storage::Mapped(mapped);
        if storage.body().len() != BODY_WORDS {
            let (expected, got) = (BODY_WORDS, storage.body().len());
            return Err(Error::layout(
                path,
                FORMAT.kind,
                "number of words",
                expected,
                got,
            ));
        }
        Ok(Self { storage })
    }

    /// Forgets everything that a machine left when it went down: its processes are gone.
    pub(super) fn reset(&self, machine: u64) {
        self.seats().reset();
        self.board().reset();
        self.validation().reset();
        self.set(VERSION, 0);
        self.set(MACHINE, machine);
    }

    pub(super) fn machine(&self) -> u64 {
        self.get(MACHINE)
    }

    pub(super) fn learner(&self) -> Option<Process> {
        Process::unpack(self.get(LEARNER))
    }

    pub(super) fn set_learner(&self, learner: Option<Process>) {
        self.set(LEARNER, learner.map_or(0, Process::pack));
    }

    pub(super) fn generation(&self) -> u64 {
        self.get(GENERATION)
    }

    pub(super) fn next_generation(&self) {
        self.storage
            .header(GENERATION)
            .fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn version(&self) -> Option<PolicyVersion> {
        self.get(VERSION).checked_sub(1).map(PolicyVersion)
    }

    pub(super) fn set_version(&self, version: PolicyVersion) {
        self.set(VERSION, version.0.saturating_add(1));
        self.storage
            .header(PUBLICATIONS)
            .fetch_add(1, Ordering::SeqCst);
        self.notify_rollouts();
    }

    pub(super) fn publications(&self) -> u64 {
        self.get(PUBLICATIONS)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.get(STOP) != 0
    }

    pub(super) fn set_stopping(&self, stopping: bool) {
        self.set(STOP, u64::from(stopping));
        self.notify_rollouts();
    }

    pub(super) fn is_greedy_asked(&self) -> bool {
        self.get(GREEDY) != 0
    }

    pub(super) fn ask_greedy(&self, is_asked: bool) {
        self.set(GREEDY, u64::from(is_asked));
    }

    pub(super) fn seats(&self) -> Seats<'_> {
        Seats::new(&self.storage.body()[..seats::WORDS])
    }

    pub(super) fn board(&self) -> Board<'_> {
        Board::new(
            &self.storage.body()[seats::WORDS..],
            self.storage.header(BASE),
            self.storage.header(HORIZON),
        )
    }

    pub(super) fn validation(&self) -> Validation<'_> {
        Validation::new(self.storage.header(VALIDATION))
    }

    pub(super) fn notify_rollouts(&self) {
        self.storage.notify(WORK);
    }

    pub(super) fn notify_learner(&self) {
        self.storage.notify(RECORDS);
    }

    pub(super) fn work_signal(&self) -> u32 {
        self.storage.signalled(WORK)
    }

    pub(super) fn record_signal(&self) -> u32 {
        self.storage.signalled(RECORDS)
    }

    pub(super) fn wait_work(&self, seen: u32, timeout: Duration) -> Result<bool> {
        self.storage.wait(WORK, seen, timeout)
    }

    pub(super) fn wait_records(&self, seen: u32, timeout: Duration) -> Result<bool> {
        self.storage.wait(RECORDS, seen, timeout)
    }

    /// Whether the file still has a name: a run folder may be deleted under a running process.
    pub(super) fn is_linked(&self) -> bool {
        match &self.storage {
            Storage::Mapped(mapped) => mapped.file().metadata().is_ok_and(|data| data.nlink() > 0),
            Storage::Heap(_) => true,
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.storage.path()
    }

    fn get(&self, index: usize) -> u64 {
        self.storage.header(index).load(Ordering::SeqCst)
    }

    fn set(&self, index: usize, value: u64) {
        let word: &AtomicU64 = self.storage.header(index);
        word.store(value, Ordering::SeqCst);
    }
}
