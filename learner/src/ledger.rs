//! The learner's book of tickets: which groups it waits for, which it has, which it needs more of.
//!
//! Plain bookkeeping: `source.rs` connects it to the control page and the rings.

use std::collections::BTreeMap;

use shared::config::GroupFilter;
use shared::ids::{PolicyVersion, Ticket};
use shared::record::GroupRecord;

use crate::tally::Tally;

/// A ticket whose records were refused this often (damaged, not: too old) is given up.
const MAX_ATTEMPTS: u32 = 3;

/// What a batch needs.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Groups of a rollout batch, after filtering.
    pub batch_prompts: usize,
    /// How often a batch is filled up before it is taken as it is.
    pub max_rounds: usize,
    /// Versions that a record may be behind; 0 is strictly on-policy.
    pub max_staleness: u64,
    /// Which groups teach nothing.
    pub group_filter: GroupFilter,
    /// Whether a group is of no use without the reward of a greedy response.
    pub needs_greedy: bool,
}

impl Sampling {
    /// Whether a record has the baseline that this run needs. One of a sample that was passed over needs none.
    #[must_use]
    pub fn has_baseline(&self, record: &GroupRecord) -> bool {
        !self.needs_greedy || record.greedy_reward.is_some() || record.responses.is_empty()
    }
}

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
        if !self.is_fresh(&record, current) {
            self.tally.num_stale += 1;
            return Verdict::Stale;
        }
        if !self.sampling.has_baseline(&record) {
            self.tally.num_stale += 1;
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
        let is_old = |record: &&GroupRecord| !self.is_fresh(record, current);
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

    /// Whether every token of a group comes from a version that may still be trained on.
    fn is_fresh(&self, record: &GroupRecord, current: PolicyVersion) -> bool {
        let oldest = current.0.saturating_sub(self.sampling.max_staleness);
        record
            .responses
            .iter()
            .all(|response| response.first_version.0 >= oldest && response.last_version <= current)
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
        let tally = &mut self.tally;
        let responses = &record.responses;
        if responses.is_empty()
            || responses
                .iter()
                .any(|response| response.token_ids.is_empty())
        {
            tally.num_skipped += 1;
            return false;
        }
        let num_right = responses
            .iter()
            .filter(|response| response.reward.accuracy > 0.0)
            .count();
        let is_all_equal = responses
            .windows(2)
            .all(|pair| pair[0].reward.total == pair[1].reward.total);
        let dropped = match self.sampling.group_filter {
            GroupFilter::Off => return true,
            GroupFilter::Accuracy if num_right == responses.len() => &mut tally.num_all_right,
            GroupFilter::Accuracy if num_right == 0 => &mut tally.num_all_wrong,
            GroupFilter::Overall if is_all_equal => &mut tally.num_all_equal,
            GroupFilter::Accuracy | GroupFilter::Overall => return true,
        };
        *dropped += 1;
        false
    }
}

/// Tickets awaited at once, below what the control page's board holds.
const MAX_DEPTH: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::{group, response};

    fn sampling(batch_prompts: usize, max_rounds: usize, max_staleness: u64) -> Sampling {
        Sampling {
            batch_prompts,
            max_rounds,
            max_staleness,
            group_filter: GroupFilter::Accuracy,
            needs_greedy: false,
        }
    }

    fn ledger(sampling: Sampling) -> Ledger {
        Ledger::new(sampling, Ticket(0), &[], Vec::new(), Tally::default())
    }

    fn record(ticket: Ticket, version: u64, accuracies: &[f32]) -> GroupRecord {
        let of_accuracy = |&accuracy: &f32| {
            let mut response = response(1);
            response.first_version = PolicyVersion(version);
            response.last_version = PolicyVersion(version);
            response.reward.total = accuracy;
            response.reward.accuracy = accuracy;
            response
        };
        group(ticket.0, accuracies.iter().map(of_accuracy).collect())
    }

    const MIXED: [f32; 2] = [0.0, 1.0];

    fn tickets(records: &[GroupRecord]) -> Vec<u64> {
        records.iter().map(|record| record.ticket.0).collect()
    }

    #[test]
    fn filtered_groups_are_made_up_for_once_all_are_in() {
        let mut ledger = ledger(sampling(3, 10, 0));
        assert_eq!(ledger.open_more(), [Ticket(0), Ticket(1), Ticket(2)]);
        ledger.accept(record(Ticket(2), 0, &MIXED), PolicyVersion(0));
        ledger.accept(record(Ticket(0), 0, &[1.0, 1.0]), PolicyVersion(0));
        assert!(ledger.open_more().is_empty() && !ledger.is_complete());
        ledger.accept(record(Ticket(1), 0, &[]), PolicyVersion(0));
        assert_eq!(ledger.open_more(), [Ticket(3), Ticket(4)]);
        for ticket in [4, 3] {
            ledger.accept(record(Ticket(ticket), 0, &MIXED), PolicyVersion(0));
        }
        assert!(ledger.open_more().is_empty() && ledger.is_complete());
        let (records, tally) = ledger.take();
        assert_eq!(tickets(&records), [2, 3, 4]);
        assert_eq!(
            (
                tally.num_groups,
                tally.num_all_right,
                tally.num_skipped,
                tally.num_rounds
            ),
            (5, 1, 1, 2)
        );
        assert_eq!(tally.accuracy(), 5.0 / 8.0);
        assert_eq!(ledger.tally(), &Tally::default());
    }

    #[test]
    fn a_ticket_counts_once_and_only_in_its_version() {
        let mut ledger = ledger(sampling(1, 1, 0));
        ledger.open_more();
        assert_eq!(
            ledger.accept(record(Ticket(0), 4, &MIXED), PolicyVersion(5)),
            Verdict::Stale
        );
        assert_eq!(
            ledger.accept(record(Ticket(0), 6, &MIXED), PolicyVersion(5)),
            Verdict::Stale
        );
        assert_eq!(
            ledger.accept(record(Ticket(7), 5, &MIXED), PolicyVersion(5)),
            Verdict::Unexpected
        );
        assert_eq!(
            ledger.accept(record(Ticket(0), 5, &MIXED), PolicyVersion(5)),
            Verdict::Accepted
        );
        assert_eq!(
            ledger.accept(record(Ticket(0), 5, &MIXED), PolicyVersion(5)),
            Verdict::Unexpected
        );
        assert_eq!(
            (ledger.tally().num_stale, ledger.tally().num_unexpected),
            (2, 2)
        );
        assert!(ledger.is_complete());
    }

    #[test]
    fn rounds_end_with_fewer_groups_or_none() {
        let mut ledger = ledger(sampling(2, 2, 0));
        for accuracies in [&MIXED, &[0.0, 0.0]] {
            for ticket in ledger.open_more() {
                let accuracies: &[f32] = if ticket.0 == 0 {
                    accuracies
                } else {
                    &[0.0, 0.0]
                };
                ledger.accept(record(ticket, 0, accuracies), PolicyVersion(0));
            }
        }
        assert!(ledger.open_more().is_empty() && ledger.is_complete());
        let (records, tally) = ledger.take();
        assert_eq!(tickets(&records), [0]);
        assert_eq!(tally.reasons(), "of 3 groups in 2 rounds: 2 all wrong");
    }

    #[test]
    fn a_ticket_that_is_lost_again_and_again_is_given_up() {
        let mut ledger = ledger(sampling(1, 5, 0));
        ledger.open_more();
        assert!(ledger.lost(Ticket(0)) && ledger.lost(Ticket(0)) && !ledger.lost(Ticket(0)));
        assert_eq!(ledger.open_more(), [Ticket(1)]);
        assert_eq!(ledger.tally().num_skipped, 1);
    }

    #[test]
    fn surplus_waits_while_it_is_young_and_is_made_again_afterwards() {
        let mut ledger = ledger(sampling(2, 10, 1));
        assert_eq!(ledger.open_more().len(), 4);
        for ticket in [3, 1, 2] {
            ledger.accept(record(Ticket(ticket), 0, &MIXED), PolicyVersion(0));
        }
        assert!(ledger.is_complete());
        let (records, _) = ledger.take();
        assert_eq!(tickets(&records), [1, 2]);
        // Ticket 3 may still serve at version 1, not at 2.
        assert!(ledger.expire(PolicyVersion(1)).is_empty());
        assert_eq!(ledger.expire(PolicyVersion(2)), [Ticket(3)]);
        assert_eq!(ledger.awaited().collect::<Vec<_>>(), [Ticket(0), Ticket(3)]);
        assert_eq!(ledger.open_more(), [Ticket(4), Ticket(5)]);
    }
}
