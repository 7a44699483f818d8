//! The learner's side of the control page.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::board::{Entry, Holder, TicketState};
use super::page::{self, Page};
use super::process::{Process, machine};
use super::seats::{SeatInfo, Seats};
use super::validation::{Stage, ValidationState};
use crate::error::{Error, Result};
use crate::ids::{PolicyVersion, Ticket};
use crate::run_dir;

/// The one learner of a run. While it lives no other process can be.
#[derive(Debug)]
pub struct LearnerControl {
    page: Page,
    run_dir: PathBuf,
    /// The record signal when `wait_records` last returned.
    seen: u32,
    /// Holders that were found dead by the last `reopen_dead`.
    dead: HashSet<Holder>,
    /// Some of them only by then: their rings must be drained once more, so the next wait is none.
    has_new_dead: bool,
    /// Keeps the lock.
    _lock: File,
}

impl LearnerControl {
    /// Takes the run over: makes its control page, or opens the one that an earlier learner left. Rollouts that already
    /// work for the page keep their seats and tickets. Clears the stop flag.
    ///
    /// Fails with "in use by another learner (pid N)" while one lives. The run folder must exist (`run_dir::create`).
    pub fn create_or_open(run_dir: &Path) -> Result<Self> {
        let lock = run_dir::lock_file(&run_dir.join("learner.lock"), "run folder", "learner")?;
        run_dir::create_folder(&run_dir.join("rings"))?;
        let path = page::path(run_dir);
        let machine = machine()?;
        if !path.try_exists().map_err(Error::io("look for", &path))? {
            Page::create(&path, machine)?;
        }
        let page = Page::open(&path)?;
        if page.machine() != machine {
            page.reset(machine);
        }
        page.set_learner(Some(Process::current()?));
        page.next_generation();
        page.set_stopping(false);
        Ok(Self {
            // One behind, so that the first wait is none.
            seen: page.record_signal().wrapping_sub(1),
            page,
            run_dir: run_dir.to_owned(),
            dead: HashSet::new(),
            has_new_dead: false,
            _lock: lock,
        })
    }

    /// How many learners this page has had, this one included.
    pub fn generation(&self) -> u64 {
        self.page.generation()
    }

    /// Announces weights that are durable under their name. May go back, after a resume.
    pub fn publish(&self, version: PolicyVersion) {
        self.page.set_version(version);
    }

    /// The same, and asks for a validation of that version: a rollout answers before it generates with those weights.
    pub fn publish_to_validate(&self, version: PolicyVersion) {
        // Asked first: who finds the announcement finds the question.
        self.page
            .validation()
            .ask(self.page.publications().saturating_add(1));
        self.publish(version);
    }

    /// Asks once more for a validation of the version announced last: its answer is of no use.
    pub fn validate_again(&self) {
        self.page.validation().ask(self.page.publications());
        self.page.notify_rollouts();
    }

    /// Where the validation of the version announced last is; `None` when none was asked for. What a process that is gone
    /// was answering is asked for again.
    pub fn validation(&self) -> Option<ValidationState> {
        let (validation, publication) = (self.page.validation(), self.page.publications());
        let stage = validation.stage(publication);
        match stage {
            Stage::None => None,
            Stage::Asked => Some(ValidationState::Asked),
            Stage::Done => Some(ValidationState::Done),
            Stage::Held(holder) if self.page.seats().is_holding(holder) => {
                let seat = Seats::seat_of(holder);
                Some(ValidationState::Held { seat })
            }
            Stage::Held(_) => {
                if validation.change(publication, stage, Stage::Asked) {
                    self.page.notify_rollouts();
                }
                Some(ValidationState::Asked)
            }
        }
    }

    /// How many announcements there were, on this page.
    pub fn publications(&self) -> u64 {
        self.page.publications()
    }

    /// The version announced last, by this learner or the one before; `None` on a new page.
    pub fn version(&self) -> Option<PolicyVersion> {
        self.page.version()
    }

    /// Says whether each group needs a greedy response beside it, from the next ticket that is claimed on.
    pub fn ask_greedy(&self, is_asked: bool) {
        self.page.ask_greedy(is_asked);
    }

    /// Makes a ticket claimable, unless a living process has it already. Returns its state afterwards: `Open` or `Held`.
    pub fn open(&mut self, ticket: Ticket) -> Result<TicketState> {
        let seats = self.page.seats();
        let state = self
            .page
            .board()
            .open(ticket, |holder| seats.is_holding(holder))?;
        self.page.notify_rollouts();
        Ok(self.describe(state))
    }

    /// Makes a ticket claimable again whose record arrived and was refused, even if its seat has not come to finishing it.
    pub fn reopen(&mut self, ticket: Ticket) -> Result<()> {
        self.page.board().open(ticket, |_| false)?;
        self.page.notify_rollouts();
        Ok(())
    }

    /// Opens again what processes that are gone had claimed, and returns those tickets. Tickets whose record the learner
    /// has (`already_have`) are retired instead.
    ///
    /// Call it once per turn of the read loop, after draining all rings. A ticket comes back at the second call that finds
    /// its process dead: by then the rings have been drained after the death, so a record that was pushed just before
    /// it is known. `wait_records` doesn't wait in between.
    pub fn reopen_dead(&mut self, already_have: &dyn Fn(Ticket) -> bool) -> Result<Vec<Ticket>> {
        let board = self.page.board();
        let seats = self.page.seats();
        // Asking the system about a process is slow, and a process holds many tickets.
        let mut alive = HashSet::new();
        let mut dead = HashSet::new();
        let mut reopened = Vec::new();
        for (ticket, state) in board.unfinished() {
            let Entry::Held(holder) = state else { continue };
            if alive.contains(&holder) {
                continue;
            }
            if !dead.contains(&holder) && seats.is_holding(holder) {
                alive.insert(holder);
                continue;
            }
            dead.insert(holder);
            if !self.dead.contains(&holder) {
                continue;
            }
            if already_have(ticket) {
                board.change(ticket, state, Entry::Idle);
            } else if board.change(ticket, state, Entry::Open) {
                reopened.push(ticket);
            }
        }
        self.has_new_dead = !dead.is_subset(&self.dead);
        self.dead = dead;
        board.advance();
        if !reopened.is_empty() {
            self.page.notify_rollouts();
        }
        Ok(reopened)
    }

    /// Done with a ticket: its record was accepted, or it is no longer wanted. Whoever still holds it will finish in vain.
    pub fn retire(&mut self, ticket: Ticket) {
        self.page.board().retire(ticket);
    }

    /// Takes back a ticket that nobody has claimed; false when it is not open.
    pub fn withdraw(&mut self, ticket: Ticket) -> bool {
        let withdrawn = self.page.board().change(ticket, Entry::Open, Entry::Idle);
        self.page.board().advance();
        withdrawn
    }

    /// Takes back all tickets that nobody has claimed, and returns them, lowest first.
    pub fn withdraw_open(&mut self) -> Vec<Ticket> {
        let board = self.page.board();
        let open = board
            .unfinished()
            .filter(|(_, state)| *state == Entry::Open);
        let withdrawn = open.filter(|(ticket, state)| board.change(*ticket, *state, Entry::Idle));
        let withdrawn = withdrawn.map(|(ticket, _)| ticket).collect();
        board.advance();
        withdrawn
    }

    /// Where a ticket is.
    pub fn ticket(&self, ticket: Ticket) -> TicketState {
        self.describe(self.page.board().state(ticket))
    }

    /// All tickets that are not idle, lowest first.
    pub fn tickets(&self) -> Vec<(Ticket, TicketState)> {
        let unfinished = self.page.board().unfinished();
        unfinished
            .map(|(ticket, state)| (ticket, self.describe(state)))
            .collect()
    }

    /// All seats that ever had an owner, living or not.
    pub fn seats(&self) -> Vec<SeatInfo> {
        self.page.seats().infos(&self.run_dir)
    }

    /// The rings to read: of every seat that ever had an owner and made one.
    pub fn ring_paths(&self) -> Vec<PathBuf> {
        let paths = self.seats().into_iter().map(|seat| seat.ring_path);
        paths.filter(|path| path.exists()).collect()
    }

    /// Sleeps until a rollout said something since this last returned, at most `timeout`. True when one did.
    pub fn wait_records(&mut self, timeout: Duration) -> Result<bool> {
        if std::mem::take(&mut self.has_new_dead) {
            return Ok(true);
        }
        let changed = self.page.wait_records(self.seen, timeout)?;
        self.seen = self.page.record_signal();
        Ok(changed)
    }

    /// Tells the rollouts that the run is over.
    pub fn stop(&self) {
        self.page.set_stopping(true);
    }

    fn describe(&self, state: Entry) -> TicketState {
        match state {
            Entry::Idle => TicketState::Idle,
            Entry::Open => TicketState::Open,
            Entry::Held(holder) => {
                let seat = Seats::seat_of(holder);
                match self.page.seats().is_holding(holder) {
                    true => TicketState::Held { seat },
                    false => TicketState::Dead { seat },
                }
            }
        }
    }
}

impl Drop for LearnerControl {
    fn drop(&mut self) {
        self.page.set_learner(None);
        self.page.notify_rollouts();
    }
}
