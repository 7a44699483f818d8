//! A rollout's side of the control page.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::board::{Entry, Holder};
use super::page::{self, Page};
use super::process::{Process, machine};
use super::seats::{self, MAX_SEATS};
use super::validation::Stage;
use crate::error::{Error, Result};
use crate::ids::{PolicyVersion, Ticket};
use crate::ring::sync::{AtomicU32, Ordering};

/// How often a rollout without a learner looks for one.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What a rollout without a seat waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// No learner has used this run folder yet.
    NoLearner,
    /// The run is over; a learner may go on with it.
    Finished,
    /// The page is of another boot, machine or container; a learner here must take it over.
    OtherMachine,
}

/// A rollout process's place in a run. All methods may be called from several threads; `wait_work` from one.
#[derive(Debug)]
pub struct Seat {
    page: Page,
    run_dir: PathBuf,
    index: usize,
    process: Process,
    holder: Holder,
    /// The work signal when `wait_work` last returned.
    seen: AtomicU32,
    /// Claimed and neither finished nor released. One that the learner opened again meanwhile is not claimed twice: the
    /// first claim's `finish` would end the second.
    claimed: Mutex<HashSet<Ticket>>,
}

impl Seat {
    /// Takes a seat in the run, waiting for its learner. `waiting` is told what for, once per reason; `None` when `stop`
    /// said so first (asked ten times a second).
    pub fn join(
        run_dir: &Path,
        stop: &dyn Fn() -> bool,
        waiting: &mut dyn FnMut(Waiting),
    ) -> Result<Option<Self>> {
        let mut told = None;
        let machine = machine()?;
        while !stop() {
            let reason = match Self::find_page(run_dir, machine)? {
                Ok(page) => return Self::take(page, run_dir).map(Some),
                Err(reason) => reason,
            };
            if told.replace(reason) != Some(reason) {
                waiting(reason);
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(None)
    }

    /// The page, or why there is none to work for yet.
    fn find_page(run_dir: &Path, machine: u64) -> Result<std::result::Result<Page, Waiting>> {
        let page = match Page::open(&page::path(run_dir)) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Err(Waiting::NoLearner));
            }
            page => page?,
        };
        if page.machine() != machine {
            return Ok(Err(Waiting::OtherMachine));
        }
        Ok(if page.is_stopping() {
            Err(Waiting::Finished)
        } else {
            Ok(page)
        })
    }

    fn take(page: Page, run_dir: &Path) -> Result<Self> {
        let process = Process::current()?;
        let Some(index) = page.seats().take(process) else {
            return Err(Error::NoSeat {
                path: page.path().to_owned(),
                max: MAX_SEATS,
            });
        };
        let holder = page.seats().holder(index);
        page.notify_learner();
        Ok(Self {
            // One behind, so that the first wait is none.
            seen: AtomicU32::new(page.work_signal().wrapping_sub(1)),
            page,
            run_dir: run_dir.to_owned(),
            index,
            process,
            holder,
            claimed: Mutex::default(),
        })
    }

    /// This seat's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Where this seat's ring belongs. A ring that an earlier owner left there is to be used on.
    pub fn ring_path(&self) -> PathBuf {
        seats::ring_path(&self.run_dir, self.index)
    }

    /// The lowest open ticket, now this seat's.
    pub fn claim(&self) -> Option<Ticket> {
        let mut claimed = self.claimed();
        let ticket = self
            .page
            .board()
            .claim(self.holder, |ticket| claimed.contains(&ticket))?;
        claimed.insert(ticket);
        Some(ticket)
    }

    /// Gives a ticket back without a record.
    pub fn release(&self, ticket: Ticket) {
        self.end(ticket, Entry::Open);
        self.page.notify_rollouts();
    }

    /// Ends a ticket whose record is in the ring, and tells the learner.
    pub fn finish(&self, ticket: Ticket) {
        self.end(ticket, Entry::Idle);
        self.page.notify_learner();
    }

    /// Tickets claimed and neither finished nor released.
    pub fn num_claimed(&self) -> usize {
        self.claimed().len()
    }

    /// The newest version that the learner announced.
    pub fn version(&self) -> Option<PolicyVersion> {
        self.page.version()
    }

    /// How many announcements there were. It moves even when the learner announces the same version again, after a restart
    /// with other weights. Read it before `version`.
    pub fn publications(&self) -> u64 {
        self.page.publications()
    }

    /// Whether a validation was asked for with this announcement and nobody has it yet.
    pub fn is_validation_asked(&self, publication: u64) -> bool {
        self.page.validation().stage(publication) == Stage::Asked
    }

    /// Takes that validation; false when there is none, or another seat has it.
    pub fn claim_validation(&self, publication: u64) -> bool {
        let held = Stage::Held(self.holder);
        self.is_validation_asked(publication)
            && self
                .page
                .validation()
                .change(publication, Stage::Asked, held)
    }

    /// Whether that validation is still this seat's: a learner that started anew asks anew.
    pub fn holds_validation(&self, publication: u64) -> bool {
        self.page.validation().stage(publication) == Stage::Held(self.holder)
    }

    /// Ends it: its file is there. False when it was no longer wanted.
    pub fn finish_validation(&self, publication: u64) -> bool {
        let held = Stage::Held(self.holder);
        let is_finished = self
            .page
            .validation()
            .change(publication, held, Stage::Done);
        self.page.notify_learner();
        is_finished
    }

    /// Whether each group needs a greedy response beside it. A learner that goes on with the run may need what the one before
    /// did not: read it for each ticket, after the claim.
    pub fn is_greedy_asked(&self) -> bool {
        self.page.is_greedy_asked()
    }

    /// How many learners the run has had.
    pub fn learner_generation(&self) -> u64 {
        self.page.generation()
    }

    /// Whether the learner's process is there. Without one the open tickets can still be worked on.
    pub fn is_learner_alive(&self) -> bool {
        self.page.learner().is_some_and(Process::is_alive)
    }

    /// Whether the learner said that the run is over.
    pub fn stopping(&self) -> bool {
        self.page.is_stopping()
    }

    /// Sleeps until the learner did something since this last returned, at most `timeout`. True when it did.
    pub fn wait_work(&self, timeout: Duration) -> Result<bool> {
        let changed = self
            .page
            .wait_work(self.seen.load(Ordering::SeqCst), timeout)?;
        self.seen.store(self.page.work_signal(), Ordering::SeqCst);
        Ok(changed)
    }

    /// Shows that this process is well, and checks that the seat is still its own; about once a second.
    pub fn heartbeat(&self) -> Result<()> {
        let reason = if !self.page.is_linked() {
            "the run folder was deleted"
        } else if !self.page.seats().is_owner(self.index, self.process) {
            "a learner on another machine or in another container took the run over"
        } else {
            self.page.seats().beat(self.index);
            return Ok(());
        };
        Err(Error::SeatLost {
            path: self.page.path().to_owned(),
            reason,
        })
    }

    /// Tells the learner to look into the rings. `finish` does so too.
    pub fn notify_records(&self) {
        self.page.notify_learner();
    }

    /// Ends this seat's claim of a ticket. In vain where the learner has taken it back.
    fn end(&self, ticket: Ticket, state: Entry) {
        let mut claimed = self.claimed();
        if claimed.remove(&ticket) {
            self.page
                .board()
                .change(ticket, Entry::Held(self.holder), state);
        }
    }

    fn claimed(&self) -> MutexGuard<'_, HashSet<Ticket>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    /// Leaves cleanly: what is unfinished goes back to the board.
    fn drop(&mut self) {
        let unfinished: Vec<Ticket> = self.claimed().iter().copied().collect();
        for ticket in unfinished {
            self.end(ticket, Entry::Open);
        }
        self.page.validation().give_back(self.holder);
        self.page.seats().leave(self.index, self.process);
        self.page.notify_rollouts();
        self.page.notify_learner();
    }
}
