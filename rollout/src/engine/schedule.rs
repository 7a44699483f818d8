//! Which response is decoded in which row.
//!
//! Rows in use are always 0..n: a finished row is taken by the last one, so that a pass over n rows wastes none.

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
    group_size: usize,
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

    /// Queues the `group_size` responses of a group. Groups are served in the order they came.
    pub(super) fn push(&mut self, group: u64, group_size: usize) {
        if group_size > 0 {
            self.waiting.push_back(Waiting {
                group,
                next_response: 0,
                group_size,
            });
        }
    }

    /// Puts the next waiting response into row `rows().len() - 1`, if a row is free.
    pub(super) fn place(&mut self) -> Option<Seat> {
        if self.rows.len() == self.max_rows {
            return None;
        }
        let front = self.waiting.front_mut()?;
        let seat = Seat {
            group: front.group,
            response: front.next_response,
        };
        front.next_response += 1;
        if front.next_response == front.group_size {
            self.waiting.pop_front();
        }
        self.rows.push(seat);
        Some(seat)
    }

    /// Frees `row` and returns the row whose response moves there, if any does.
    pub(super) fn finish(&mut self, row: usize) -> Option<usize> {
        self.rows.swap_remove(row);
        (row < self.rows.len()).then_some(self.rows.len())
    }

    /// Responses by row.
    pub(super) fn rows(&self) -> &[Seat] {
        &self.rows
    }

    /// Responses that have no row yet.
    pub(super) fn num_waiting(&self) -> usize {
        self.waiting
            .iter()
            .map(|waiting| waiting.group_size - waiting.next_response)
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
        /// Against a fake model in which every response has a fixed length: each is decoded once, for that many steps, in
        /// one row at a time, in order of arrival, and no row idles while a response waits.
        #[test]
        fn every_response_is_decoded_once(
            max_rows in 1_usize..9,
            groups in prop::collection::vec((prop::collection::vec(1_usize..7, 1..6), 0_usize..4), 1..12),
        ) {
            let lengths_of = |seat: Seat| groups[usize::try_from(seat.group).unwrap()].0[seat.response];
            let mut schedule = Schedule::new(max_rows);
            let mut contents: Vec<Seat> = Vec::new(); // what a cache would hold, row by row
            let mut steps: HashMap<Seat, usize> = HashMap::new();
            let mut order = Vec::new();
            let mut groups_to_come = groups.iter().enumerate();
            let mut next = groups_to_come.next();
            let mut clock = 0;
            loop {
                // A group arrives so many steps after the one before it.
                while let Some((key, (lengths, delay))) = next {
                    if clock % 4 < *delay { break; }
                    schedule.push(key as u64, lengths.len());
                    next = groups_to_come.next();
                }
                while let Some(seat) = schedule.place() {
                    contents.push(seat);
                    order.push(seat);
                }
                prop_assert!(schedule.rows().len() <= max_rows);
                prop_assert!(schedule.rows().len() == max_rows || schedule.num_waiting() == 0);
                prop_assert_eq!(schedule.rows(), &contents[..]);
                for &seat in schedule.rows() { *steps.entry(seat).or_default() += 1; }
                for row in (0..schedule.rows().len()).rev() {
                    let seat = schedule.rows()[row];
                    if steps[&seat] == lengths_of(seat) {
                        if let Some(source) = schedule.finish(row) { contents[row] = contents[source]; }
                        contents.pop();
                    }
                }
                clock += 1;
                if next.is_none() && schedule.rows().is_empty() && schedule.num_waiting() == 0 { break; }
                prop_assert!(clock < 2000);
            }
            let all: HashSet<Seat> = order.iter().copied().collect();
            prop_assert_eq!(all.len(), order.len());
            prop_assert_eq!(order.len(), groups.iter().map(|(lengths, _)| lengths.len()).sum::<usize>());
            prop_assert!(order.is_sorted_by_key(|seat| (seat.group, seat.response)));
            for (seat, count) in steps {
                prop_assert_eq!(count, lengths_of(seat));
            }
        }
    }
}
