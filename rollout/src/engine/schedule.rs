//! Which responses are under way, and which come next.
//!
//! Rows keep their order, so the responses of a group stay side by side and go through their prompt together.

use std::collections::VecDeque;

/// One response of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Seat {
    /// Key of the group.
    pub(super) group: u64,
    /// Index of the response in it.
    pub(super) response: usize,
}

/// Responses in rows, and groups that wait for one.
#[derive(Debug)]
pub(super) struct Schedule {
    max_rows: usize,
    rows: Vec<Seat>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    group: u64,
    next_response: usize,
    num_responses: usize,
}

impl Schedule {
    /// No response, at most `max_rows` at a time.
    pub(super) fn new(max_rows: usize) -> Self {
        Self {
            max_rows: max_rows.max(1),
            rows: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Queues the `num_responses` responses of a group. Groups are served in the order they came.
    pub(super) fn push(&mut self, group: u64, num_responses: usize) {
        if num_responses > 0 {
            self.waiting.push_back(Waiting {
                group,
                next_response: 0,
                num_responses,
            });
        }
    }

    /// Starts the next waiting response, if a row is free and `admit` has room for it. One that finds no room keeps
    /// its turn: nobody overtakes it.
    pub(super) fn place(&mut self, admit: impl FnOnce(Seat) -> bool) -> Option<Seat> {
        if self.rows.len() == self.max_rows {
            return None;
        }
        let front = self.waiting.front_mut()?;
        let seat = Seat {
            group: front.group,
            response: front.next_response,
        };
        if !admit(seat) {
            return None;
        }
        front.next_response += 1;
        if front.next_response == front.num_responses {
            self.waiting.pop_front();
        }
        self.rows.push(seat);
        Some(seat)
    }

    /// Frees the rows for which `is_over` says so.
    pub(super) fn retain(&mut self, is_over: impl Fn(Seat) -> bool) {
        self.rows.retain(|&seat| !is_over(seat));
    }

    /// Responses by row.
    pub(super) fn rows(&self) -> &[Seat] {
        &self.rows
    }

    /// Responses that have no row yet.
    pub(super) fn num_waiting(&self) -> usize {
        self.waiting
            .iter()
            .map(|waiting| waiting.num_responses - waiting.next_response)
            .sum()
    }

    /// Most rows in use at a time.
    pub(super) fn max_rows(&self) -> usize {
        self.max_rows
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::{Schedule, Seat};

    proptest! {
        /// Against a fake model in which every response has a fixed length and needs so much of a budget: each is decoded
        /// once, for that many steps, in order of arrival; the budget is kept; and no row idles while the next response fits.
        #[test]
        fn every_response_is_decoded_once(
            max_rows in 1_usize..9,
            budget in 6_usize..20,
            groups in prop::collection::vec((prop::collection::vec(1_usize..7, 1..6), 0_usize..4), 1..12),
        ) {
            let length_of = |seat: Seat| groups[usize::try_from(seat.group).unwrap()].0[seat.response];
            let mut schedule = Schedule::new(max_rows);
            let mut steps: HashMap<Seat, usize> = HashMap::new();
            let mut order: Vec<Seat> = Vec::new();
            let mut groups_to_come = groups.iter().enumerate();
            let mut next = groups_to_come.next();
            let mut clock = 0;
            let used = |schedule: &Schedule| schedule.rows().iter().map(|&seat| length_of(seat)).sum::<usize>();
            loop {
                // A group arrives so many steps after the one before it.
                while let Some((key, (lengths, delay))) = next {
                    if clock % 4 < *delay { break; }
                    schedule.push(key as u64, lengths.len());
                    next = groups_to_come.next();
                }
                loop {
                    let left = budget - used(&schedule);
                    let mut refused = None;
                    let placed = schedule.place(|seat| {
                        let fits = length_of(seat) <= left;
                        refused = (!fits).then_some(seat);
                        fits
                    });
                    let Some(seat) = placed else {
                        let is_full = schedule.rows().len() == max_rows;
                        prop_assert!(is_full || refused.is_some() || schedule.num_waiting() == 0);
                        break;
                    };
                    order.push(seat);
                }
                prop_assert!(schedule.rows().len() <= max_rows && used(&schedule) <= budget);
                for &seat in schedule.rows() { *steps.entry(seat).or_default() += 1; }
                schedule.retain(|seat| steps[&seat] == length_of(seat));
                clock += 1;
                if next.is_none() && schedule.rows().is_empty() && schedule.num_waiting() == 0 { break; }
                prop_assert!(clock < 2000, "somebody starves");
            }
            let all: HashSet<Seat> = order.iter().copied().collect();
            prop_assert_eq!(all.len(), order.len());
            prop_assert_eq!(order.len(), groups.iter().map(|(lengths, _)| lengths.len()).sum::<usize>());
            prop_assert!(order.is_sorted_by_key(|seat| (seat.group, seat.response)));
            for (seat, count) in steps {
                prop_assert_eq!(count, length_of(seat));
            }
        }
    }
}
