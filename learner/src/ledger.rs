//! The learner's book of tickets: which groups it waits for, which it has, which it needs more of.
//!
//! Plain bookkeeping: `source.rs` connects it to the control page and the rings.

use std::collections::BTreeMap;

use shared::ids::{PolicyVersion, Ticket};
use shared::record::GroupRecord;

use crate::sampling::{Dropped, Sampling};
use crate::tally::Tally;

/// A ticket whose records were refused this often (damaged, not: too old) is given up.
const MAX_ATTEMPTS: u32 = 3;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its ticket is done, whether the group is kept or not.
    Accepted,
    /// Of a version out of range: its ticket has to be generated again.
    Stale,
    /// Without the baseline that the run needs: its ticket has to be generated again.
    Lacking,
    /// Nobody waits for it.
    Unexpected,
}

/// The book. Everything in it is ordered by ticket, so that nothing depends on the order of arrival.
#[derive(Debug)]
pub struct Ledger {
    sampling: Sampling,
    /// The lowest ticket never opened.
    next_ticket: Ticket,
    /// Opened, and no record yet; with the number of failed attempts.
    awaited: BTreeMap<Ticket, u32>,
    /// Groups for this batch or a later one.
    kept: BTreeMap<Ticket, GroupRecord>,
    tally: Tally,
}

impl Ledger {
    /// A book that goes on from tickets still awaited, groups still kept, and what was counted for the batch begun.
    #[must_use]
    pub fn new(
        sampling: Sampling,
        next_ticket: Ticket,
        awaited: &[Ticket],
        kept: Vec<GroupRecord>,
        tally: Tally,
    ) -> Self {
        Self {
            sampling,
            next_ticket,
            awaited: awaited.iter().map(|&ticket| (ticket, 0)).collect(),
            kept: kept
                .into_iter()
                .map(|record| (record.ticket, record))
                .collect(),
            tally,
        }
    }

    /// The lowest ticket never opened.
    #[must_use]
    pub fn next_ticket(&self) -> Ticket {
        self.next_ticket
    }

    /// Tickets opened without a record yet, lowest first.
    pub fn awaited(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.awaited.keys().copied()
    }

    /// Whether a ticket's record is still to come.
    #[must_use]
    pub fn is_awaited(&self, ticket: Ticket) -> bool {
        self.awaited.contains_key(&ticket)
    }

    /// Groups that wait for a batch, lowest ticket first.
    pub fn kept(&self) -> impl Iterator<Item = &GroupRecord> {
        self.kept.values()
    }

    /// What came in since the last batch.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Counts a record that could not be read.
    pub fn count_damaged(&mut self) {
        self.tally.num_damaged += 1;
    }

    /// Counts records without the baseline that the run needs.
    pub fn count_lacking(&mut self, count: usize) {
        self.tally.num_lacking += count;
    }

    /// Counts tickets that were opened again.
    pub fn count_reopened(&mut self, count: usize) {
        self.tally.num_reopened += count;
    }

    /// Judges an arrived record while `current` is the newest version.
    pub fn accept(&mut self, record: GroupRecord, current: PolicyVersion) -> Verdict {
        if !self.is_awaited(record.ticket) {
            self.tally.num_unexpected += 1;
            return Verdict::Unexpected;
        }
        if !self.sampling.is_fresh(&record, current) {
            self.tally.num_stale += 1;
            return Verdict::Stale;
        }
        if !self.sampling.has_baseline(&record) {
            self.tally.num_lacking += 1;
            return Verdict::Lacking;
        }
        self.awaited.remove(&record.ticket);
        self.count(&record);
        if self.is_kept(&record) {
            self.kept.insert(record.ticket, record);
        }
        Verdict::Accepted
    }

    /// A finished ticket whose record never came, or could not be read. False when it is given up.
    pub fn lost(&mut self, ticket: Ticket) -> bool {
        let Some(attempts) = self.awaited.get_mut(&ticket) else {
            return false;
        };
        *attempts += 1;
        if *attempts < MAX_ATTEMPTS {
            return true;
        }
        self.awaited.remove(&ticket);
        self.tally.num_skipped += 1;
        false
    }

    /// Kept groups that have become too old are awaited again; returns their tickets.
    pub fn expire(&mut self, current: PolicyVersion) -> Vec<Ticket> {
        let is_old = |record: &&GroupRecord| !self.sampling.is_fresh(record, current);
        let expired: Vec<Ticket> = self
            .kept
            .values()
            .filter(is_old)
            .map(|record| record.ticket)
            .collect();
        for &ticket in &expired {
            self.kept.remove(&ticket);
            self.awaited.insert(ticket, 0);
            self.tally.num_stale += 1;
        }
        expired
    }

    /// The new tickets to open now: as many groups as are short, once nothing is awaited. When staleness is allowed
    /// the rollouts work ahead by that many batches.
    pub fn open_more(&mut self) -> Vec<Ticket> {
        let Sampling {
            batch_prompts,
            max_staleness,
            ..
        } = self.sampling;
        if self.is_exhausted() || (max_staleness == 0 && !self.awaited.is_empty()) {
            return Vec::new();
        }
        let batches_ahead = usize::try_from(max_staleness)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let depth = batch_prompts
            .saturating_mul(batches_ahead)
            .min(MAX_DEPTH.max(batch_prompts));
        let short = depth.saturating_sub(self.kept.len() + self.awaited.len());
        let tickets: Vec<Ticket> = (self.next_ticket.0..).take(short).map(Ticket).collect();
        self.next_ticket.0 += short as u64;
        self.awaited
            .extend(tickets.iter().map(|&ticket| (ticket, 0)));
        self.tally.num_opened += short;
        self.tally.num_rounds += usize::from(short > 0);
        tickets
    }

    /// Whether a batch can be taken: full, or as full as the rounds allowed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_full = self.kept.len() >= self.sampling.batch_prompts;
        let is_settled = self.awaited.is_empty();
        if self.sampling.max_staleness == 0 {
            is_settled && (is_full || self.is_exhausted())
        } else {
            is_full || (is_settled && self.is_exhausted())
        }
    }

    /// Takes a batch, the lowest tickets first, and starts counting anew. The surplus stays.
    pub fn take(&mut self) -> (Vec<GroupRecord>, Tally) {
        let after = self.kept.keys().nth(self.sampling.batch_prompts).copied();
        let surplus = after
            .map(|ticket| self.kept.split_off(&ticket))
            .unwrap_or_default();
        let batch = std::mem::replace(&mut self.kept, surplus);
        (
            batch.into_values().collect(),
            std::mem::take(&mut self.tally),
        )
    }

    /// Whether this batch may open no more tickets.
    fn is_exhausted(&self) -> bool {
        let Sampling {
            batch_prompts,
            max_rounds,
            max_staleness,
            ..
        } = self.sampling;
        match max_staleness {
            0 => self.tally.num_rounds >= max_rounds,
            _ => self.tally.num_opened >= batch_prompts.saturating_mul(max_rounds),
        }
    }

    fn count(&mut self, record: &GroupRecord) {
        let tally = &mut self.tally;
        tally.num_groups += 1;
        tally.num_responses += record.responses.len();
        for response in &record.responses {
            tally.num_tokens += response.token_ids.len();
            tally.accuracy_sum += f64::from(response.reward.accuracy);
            tally.reward_sum += f64::from(response.reward.total);
        }
    }

    fn is_kept(&mut self, record: &GroupRecord) -> bool {
        let Some(reason) = self.sampling.reason_to_drop(record) else {
            return true;
        };
        let tally = &mut self.tally;
        *match reason {
            Dropped::Skipped => &mut tally.num_skipped,
            Dropped::AllRight => &mut tally.num_all_right,
            Dropped::AllWrong => &mut tally.num_all_wrong,
            Dropped::AllEqual => &mut tally.num_all_equal,
        } += 1;
        false
    }
}

/// Tickets awaited at once, below what the control page's board holds.
const MAX_DEPTH: usize = 8192;

#[cfg(test)]
mod tests;
