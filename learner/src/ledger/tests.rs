//! Tickets opened, filled, filtered, lost and grown old.

use shared::config::GroupFilter;

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
fn a_record_without_its_baseline_is_counted_by_that_name() {
    let mut ledger = ledger(Sampling {
        needs_greedy: true,
        ..sampling(1, 1, 0)
    });
    ledger.open_more();
    let version = PolicyVersion(0);
    let mut record = record(Ticket(0), 0, &MIXED);
    assert_eq!(ledger.accept(record.clone(), version), Verdict::Lacking);
    let tally = *ledger.tally();
    assert_eq!((tally.num_lacking, tally.num_stale), (1, 0));
    record.greedy_reward = Some(record.responses[0].reward);
    assert_eq!(ledger.accept(record, version), Verdict::Accepted);
    assert_eq!(ledger.take().1.num_lacking, 1);
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
