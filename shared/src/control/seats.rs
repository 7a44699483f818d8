//! The seats of a control page: one per rollout process, taken and left by compare-and-swap.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::board::Holder;
use super::process::Process;
use crate::ring::storage::now_ms;
use crate::ring::sync::{AtomicU64, Ordering};

/// How many rollout processes one learner can have.
pub const MAX_SEATS: usize = 64;
/// Words per seat: a cache line.
const STRIDE: usize = 8;
/// Words that the seats take.
pub(super) const WORDS: usize = MAX_SEATS * STRIDE;
/// How many owners of one seat are told apart: all that 16 bits hold beside `idle` and `open`.
const INCARNATIONS: u64 = 1023;

// Words of a seat.
const OWNER: usize = 0;
const INCARNATION: usize = 1;
const HEARTBEAT: usize = 2;

/// What became of a seat's last owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeatStatus {
    /// It runs.
    Live,
    /// It is gone without having left.
    Dead,
    /// It left; its ring may still hold records.
    Left,
}

/// A seat that a rollout process has, or had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatInfo {
    /// Its number, below [`MAX_SEATS`].
    pub index: usize,
    /// Whether its owner is there.
    pub status: SeatStatus,
    /// The owner's process id; `None` when it left.
    pub pid: Option<u32>,
    /// Time since the owner's last heartbeat.
    pub heartbeat_age: Duration,
    /// Where the owner's ring is or will be.
    pub ring_path: PathBuf,
}

/// The seats' words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seats<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Seats<'a> {
    pub(super) fn new(words: &'a [AtomicU64]) -> Self {
        Self { words }
    }

    /// Takes the first seat that is free or whose owner died.
    pub(super) fn take(&self, process: Process) -> Option<usize> {
        let taken = (0..MAX_SEATS).find(|seat| {
            let owner = self.word(*seat, OWNER).load(Ordering::SeqCst);
            !Process::unpack(owner).is_some_and(Process::is_alive)
                && self.swap(*seat, owner, process.pack())
        })?;
        // Before the first claim: what the last owner held is not this one's.
        self.word(taken, INCARNATION).fetch_add(1, Ordering::SeqCst);
        self.beat(taken);
        Some(taken)
    }

    /// Leaves a seat, if it is still this process's.
    pub(super) fn leave(&self, seat: usize, process: Process) {
        self.swap(seat, process.pack(), 0);
    }

    pub(super) fn is_owner(&self, seat: usize, process: Process) -> bool {
        self.owner(seat) == Some(process)
    }

    pub(super) fn beat(&self, seat: usize) {
        self.word(seat, HEARTBEAT).store(now_ms(), Ordering::SeqCst);
    }

    /// The seat's present owner as the board writes it.
    pub(super) fn holder(&self, seat: usize) -> Holder {
        let incarnation = self.word(seat, INCARNATION).load(Ordering::SeqCst) % INCARNATIONS;
        let holder = 1 + seat as u64 + MAX_SEATS as u64 * incarnation;
        Holder(u16::try_from(holder).unwrap_or(1))
    }

    /// The seat of a holder.
    pub(super) fn seat_of(holder: Holder) -> usize {
        usize::from(holder.0.saturating_sub(1)) % MAX_SEATS
    }

    /// Whether a holder is the living owner of its seat.
    pub(super) fn is_holding(&self, holder: Holder) -> bool {
        let seat = Self::seat_of(holder);
        self.holder(seat) == holder && self.owner(seat).is_some_and(Process::is_alive)
    }

    /// All seats that ever had an owner.
    pub(super) fn infos(&self, run_dir: &Path) -> Vec<SeatInfo> {
        let used = |seat: &usize| self.word(*seat, INCARNATION).load(Ordering::SeqCst) > 0;
        (0..MAX_SEATS)
            .filter(used)
            .map(|seat| self.info(seat, run_dir))
            .collect()
    }

    /// Frees all seats. Their counts go on, so that nobody is taken for an earlier owner.
    pub(super) fn reset(&self) {
        for seat in 0..MAX_SEATS {
            self.word(seat, OWNER).store(0, Ordering::SeqCst);
        }
    }

    /// Another owner by decree, the seat's count unchanged.
    #[cfg(test)]
    pub(super) fn hand_over(&self, seat: usize, process: Process) {
        self.word(seat, OWNER)
            .store(process.pack(), Ordering::SeqCst);
    }

    fn info(&self, seat: usize, run_dir: &Path) -> SeatInfo {
        let owner = self.owner(seat);
        let heartbeat = self.word(seat, HEARTBEAT).load(Ordering::SeqCst);
        SeatInfo {
            index: seat,
            status: match owner {
                Some(process) if process.is_alive() => SeatStatus::Live,
                Some(_) => SeatStatus::Dead,
                None => SeatStatus::Left,
            },
            pid: owner.map(|process| process.pid),
            heartbeat_age: Duration::from_millis(now_ms().saturating_sub(heartbeat)),
            ring_path: ring_path(run_dir, seat),
        }
    }

    fn owner(&self, seat: usize) -> Option<Process> {
        Process::unpack(self.word(seat, OWNER).load(Ordering::SeqCst))
    }

    fn swap(&self, seat: usize, from: u64, to: u64) -> bool {
        let word = self.word(seat, OWNER);
        word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn word(&self, seat: usize, index: usize) -> &'a AtomicU64 {
        &self.words[seat * STRIDE + index]
    }
}

/// The ring of a seat.
pub(super) fn ring_path(run_dir: &Path, seat: usize) -> PathBuf {
    run_dir.join("rings").join(format!("seat-{seat:02}.ring"))
}
