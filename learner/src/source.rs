//! Where records come from: the rings of all rollout processes, through the control page's tickets.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use models::config::ModelConfig;
use shared::codec;
use shared::control::{LearnerControl, SeatStatus, TicketState};
use shared::ids::{PolicyVersion, Ticket};
use shared::record::GroupRecord;
use shared::ring::Consumer;

use crate::admission;
use crate::ledger::{Ledger, Verdict};
use crate::sampling::Sampling;
use crate::tally::Tally;

/// Longest sleep between two looks: dead processes don't ring a bell.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often to say what is being waited for when nothing arrives.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// The reading side of a run.
#[derive(Debug)]
pub struct Source {
    model: ModelConfig,
    ledger: Ledger,
    /// Tickets whose record came without the baseline that the run needs.
    lacking: BTreeSet<Ticket>,
    rings: HashMap<PathBuf, Consumer>,
    frame: Vec<u8>,
}

/// Where a source goes on from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceState {
    /// The lowest ticket never opened.
    pub next_ticket: Ticket,
    /// Tickets opened whose records had not arrived, lowest first.
    pub awaited: Vec<Ticket>,
    /// Groups that arrived and belong to no batch yet.
    pub kept: Vec<GroupRecord>,
    /// What was counted for the batch begun: its sampling rounds among it.
    pub tally: Tally,
}

/// What came of waiting for a batch.
#[derive(Debug)]
pub enum Next {
    /// Groups in the order of their tickets: as many as asked for, or fewer where the rounds were used up; at least one.
    Batch(Vec<GroupRecord>, Tally),
    /// The rounds were used up and no group was kept.
    Starved(Tally),
    /// The caller's stop flag went up.
    Stopped,
}

impl Source {
    /// A source of records for `model` that goes on from `state`: of the tickets on the control page only the awaited ones are open afterwards.
    pub fn new(
        model: ModelConfig,
        sampling: Sampling,
        mut state: SourceState,
        control: &mut LearnerControl,
    ) -> Result<Self> {
        // Before any ticket is open: who claims one knows what belongs to its group.
        control.ask_greedy(sampling.needs_greedy);
        // Groups from before the run asked for a baseline are generated again.
        let lacking: Vec<Ticket> = state
            .kept
            .extract_if(.., |record| !sampling.has_baseline(record))
            .map(|record| record.ticket)
            .collect();
        state.awaited.extend(&lacking);
        // What an earlier learner was further ahead with will come in vain; left on the board it would fill it.
        control.withdraw_open();
        for (ticket, _) in control.tickets() {
            if !state.awaited.contains(&ticket) {
                control.retire(ticket);
            }
        }
        for &ticket in &state.awaited {
            control.open(ticket)?;
        }
        let mut ledger = Ledger::new(
            sampling,
            state.next_ticket,
            &state.awaited,
            state.kept,
            state.tally,
        );
        ledger.count_lacking(lacking.len());
        Ok(Self {
            model,
            ledger,
            lacking: BTreeSet::new(),
            rings: HashMap::new(),
            frame: Vec::new(),
        })
    }

    /// What to save, to go on from here later.
    #[must_use]
    pub fn state(&self) -> SourceState {
        SourceState {
            next_ticket: self.ledger.next_ticket(),
            awaited: self.ledger.awaited().collect(),
            kept: self.ledger.kept().cloned().collect(),
            tally: *self.ledger.tally(),
        }
    }

    /// What came in for the batch begun.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        self.ledger.tally()
    }

    /// The groups of the next batch, for the policy of `version`, which is published. Strictly on-policy it waits for
    /// every open ticket, so that the batch does not depend on who was quick. `note` is told how far it is.
    pub fn next_batch(
        &mut self,
        control: &mut LearnerControl,
        version: PolicyVersion,
        is_stopping: &dyn Fn() -> bool,
        note: &dyn Fn(&str),
    ) -> Result<Next> {
        let mut said = Instant::now();
        self.expire(control, version)?;
        loop {
            for ticket in self.ledger.open_more() {
                control.open(ticket)?;
            }
            if self.ledger.is_complete() {
                let (records, tally) = self.ledger.take();
                return Ok(if records.is_empty() {
                    Next::Starved(tally)
                } else {
                    Next::Batch(records, tally)
                });
            }
            if is_stopping() {
                return Ok(Next::Stopped);
            }
            if self.read(control, version)? {
                said = Instant::now();
                note(&self.progress());
                continue;
            }
            if said.elapsed() > SAY_EVERY {
                self.say_waiting(control);
                said = Instant::now();
            }
            control.wait_records(LOOK_EVERY)?;
        }
    }

    /// Reads what arrives until `is_over`, which looks for something else. Where there `is_next` a batch, its tickets are open
    /// meanwhile, as in [`Self::next_batch`].
    pub fn read_until(
        &mut self,
        control: &mut LearnerControl,
        version: PolicyVersion,
        is_next: bool,
        is_over: &mut dyn FnMut(&LearnerControl) -> Result<bool>,
    ) -> Result<()> {
        if is_next {
            self.expire(control, version)?;
        }
        loop {
            if is_next {
                for ticket in self.ledger.open_more() {
                    control.open(ticket)?;
                }
            }
            if is_over(control)? {
                return Ok(());
            }
            // The rings are emptied whatever is awaited: a rollout before a full one could not answer.
            if !self.read(control, version)? {
                control.wait_records(LOOK_EVERY)?;
            }
        }
    }

    /// One look at everything: reads what has arrived, opens again what was lost. True when a record arrived.
    fn read(&mut self, control: &mut LearnerControl, version: PolicyVersion) -> Result<bool> {
        // Finished before the rings are read, and still without a record afterwards: lost.
        let is_finished = |ticket: &Ticket| control.ticket(*ticket) == TicketState::Idle;
        let finished: Vec<Ticket> = self.ledger.awaited().filter(is_finished).collect();
        let has_read = self.drain(control, version)?;
        for ticket in finished {
            self.reopen_lost(control, ticket)?;
        }
        let reopened = control.reopen_dead(&|ticket| !self.ledger.is_awaited(ticket))?;
        if !reopened.is_empty() {
            tracing::warn!(
                "a rollout process died: {} groups are generated again",
                reopened.len()
            );
            self.ledger.count_reopened(reopened.len());
        }
        Ok(has_read)
    }

    /// Empties all rings; true when anything was in them.
    fn drain(&mut self, control: &mut LearnerControl, version: PolicyVersion) -> Result<bool> {
        let mut has_read = false;
        for path in control.ring_paths() {
            if !self.rings.contains_key(&path) {
                self.rings.insert(path.clone(), Consumer::open(&path)?);
            }
            let Some(ring) = self.rings.get_mut(&path) else {
                continue;
            };
            loop {
                match ring.try_pop(&mut self.frame) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error @ shared::Error::CorruptRing { .. }) => {
                        // The tickets of the dropped frames are finished without a record: `read` opens them again.
                        let num_bytes = ring.discard_unread();
                        tracing::warn!("{error}; dropped {num_bytes} unread bytes");
                        self.ledger.count_damaged();
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
                has_read = true;
                match codec::decode(&self.frame) {
                    Ok(record) => match admission::check(&record, &self.model) {
                        Ok(()) => judge(
                            (&mut self.ledger, &mut self.lacking),
                            control,
                            record,
                            version,
                        )?,
                        Err(error) => {
                            tracing::warn!("refused the record of {}: {error:#}", record.sample_id);
                            self.ledger.count_damaged();
                        }
                    },
                    Err(error) => {
                        tracing::warn!("refused a record from {}: {error}", path.display());
                        self.ledger.count_damaged();
                    }
                }
            }
        }
        Ok(has_read)
    }

    fn reopen_lost(&mut self, control: &mut LearnerControl, ticket: Ticket) -> Result<()> {
        if !self.ledger.is_awaited(ticket) || control.ticket(ticket) != TicketState::Idle {
            return Ok(());
        }
        if self.ledger.lost(ticket) {
            tracing::warn!(
                "the record of ticket {ticket} was lost or refused: it is generated again"
            );
            control
                .reopen(ticket)
                .context("cannot open a lost ticket again")?;
            self.ledger.count_reopened(1);
        } else {
            tracing::error!(
                "the record of ticket {ticket} was refused again and again: the group is skipped"
            );
            control.retire(ticket);
        }
        Ok(())
    }

    fn expire(&mut self, control: &mut LearnerControl, version: PolicyVersion) -> Result<()> {
        for ticket in self.ledger.expire(version) {
            control.reopen(ticket)?;
        }
        Ok(())
    }

    fn progress(&self) -> String {
        let (kept, awaited) = (self.ledger.kept().count(), self.ledger.awaited().count());
        format!("reading: {kept} groups kept, {awaited} awaited")
    }

    fn say_waiting(&self, control: &LearnerControl) {
        let seats = control.seats();
        let num_alive = seats
            .iter()
            .filter(|seat| seat.status == SeatStatus::Live)
            .count();
        let advice = if num_alive == 0 {
            "; start `rollout` with the same --run-dir"
        } else {
            ""
        };
        tracing::info!("{}; {num_alive} rollout processes{advice}", self.progress());
    }
}

fn judge(
    (ledger, lacking): (&mut Ledger, &mut BTreeSet<Ticket>),
    control: &mut LearnerControl,
    record: GroupRecord,
    version: PolicyVersion,
) -> Result<()> {
    let (ticket, sample_id) = (record.ticket, record.sample_id.clone());
    match ledger.accept(record, version) {
        Verdict::Accepted => control.retire(ticket),
        Verdict::Stale => {
            tracing::debug!(
                "ticket {ticket} ({sample_id}): not of version {version}, generated again"
            );
            control.reopen(ticket)?;
        }
        // Once it may be left over from before the run asked for it; again it comes from a rollout that does not know.
        Verdict::Lacking if lacking.insert(ticket) => {
            tracing::debug!("ticket {ticket} ({sample_id}): without a baseline, generated again");
            control.reopen(ticket)?;
        }
        Verdict::Lacking => bail!(
            "--advantage remax needs the reward of a greedy response, which the record of sample {sample_id} has not: stop \
             the rollouts and start those of this build, which look at what the run asks for"
        ),
        Verdict::Unexpected => {
            tracing::debug!("ticket {ticket} ({sample_id}): not awaited, dropped");
        }
    }
    Ok(())
}
