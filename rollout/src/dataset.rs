//! Ticket -> sample: a ticket alone says which one, whoever asks and whenever.

use shared::dataset::{Dataset, Result, Sample};
use shared::ids::Ticket;

use crate::sampler::permutation;

/// The order in which a run visits its data set: every epoch all of it, shuffled by the run's seed. Of a mixture, an epoch
/// visits each source as often as its weight says.
#[derive(Debug, Clone)]
pub struct Order {
    run_seed: u64,
    parts: Vec<OrderPart>,
    /// Visits of an epoch.
    len: usize,
    /// Permutations used last; tickets come nearly in order.
    epochs: Permutations,
}

/// A source of a mixture.
#[derive(Debug, Clone)]
struct OrderPart {
    start: usize,
    rows: usize,
    visits: usize,
    /// Its own seed, and the permutations of its rows.
    seed: u64,
    passes: Permutations,
}

impl Order {
    /// The order over `len` > 0 samples.
    #[must_use]
    pub fn new(run_seed: u64, len: usize) -> Self {
        Self::mixed(run_seed, &[(0, len, len)])
    }

    /// The order over sources of (first row, rows, visits per epoch), none of them empty.
    #[must_use]
    pub fn mixed(run_seed: u64, parts: &[(usize, usize, usize)]) -> Self {
        let number = |index: usize| (index as u64).wrapping_add(1);
        let part = |(index, &(start, rows, visits)): (usize, &(usize, usize, usize))| OrderPart {
            start,
            rows: rows.max(1),
            visits,
            seed: run_seed.wrapping_add(number(index).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            passes: Permutations::default(),
        };
        let parts: Vec<_> = parts.iter().enumerate().map(part).collect();
        Self {
            run_seed,
            len: parts.iter().map(|part| part.visits).sum::<usize>().max(1),
            parts,
            epochs: Permutations::default(),
        }
    }

    /// Visits of an epoch.
    #[must_use]
    pub fn epoch_len(&self) -> usize {
        self.len
    }

    /// Epoch and index of the ticket's sample: epoch = ticket / len, visit = permutation of that epoch at ticket % len.
    /// The visits of a source are its rows, again from the first one as often as they last; where that does not come out
    /// even they are counted on over the epochs, each pass over the rows in an order of its own.
    pub fn place(&mut self, ticket: Ticket) -> (u64, usize) {
        let (epoch, offset) = split(ticket.0, self.len);
        let mut visit = self.epochs.at(self.run_seed, epoch, self.len, offset);
        for part in &mut self.parts {
            if visit < part.visits {
                return (epoch, part.start + part.row(epoch, visit));
            }
            visit -= part.visits;
        }
        (epoch, 0)
    }
}

impl OrderPart {
    fn row(&mut self, epoch: u64, visit: usize) -> usize {
        if self.visits.is_multiple_of(self.rows) {
            return visit % self.rows;
        }
        let count = epoch
            .wrapping_mul(self.visits as u64)
            .wrapping_add(visit as u64);
        let (pass, offset) = split(count, self.rows);
        self.passes.at(self.seed, pass, self.rows, offset)
    }
}

/// Quotient and remainder.
fn split(number: u64, len: usize) -> (u64, usize) {
    let len = len.max(1) as u64;
    let remainder = usize::try_from(number % len).unwrap_or(0); // below len, a usize
    (number / len, remainder)
}

/// The two permutations used last: the end of one pass lies beside the beginning of the next.
#[derive(Debug, Clone, Default)]
struct Permutations(Vec<(u64, Vec<usize>)>);

impl Permutations {
    fn at(&mut self, seed: u64, number: u64, len: usize, offset: usize) -> usize {
        if !self.0.iter().any(|(known, _)| *known == number) {
            self.0.truncate(1);
            self.0.insert(0, (number, permutation(seed, number, len)));
        }
        let order = self.0.iter().find(|(known, _)| *known == number);
        order
            .and_then(|(_, order)| order.get(offset).copied())
            .unwrap_or(0)
    }
}

/// A data set in a run's order.
pub struct Samples {
    dataset: Dataset,
    order: Order,
}

impl Samples {
    /// `dataset` must not be empty.
    #[must_use]
    pub fn new(dataset: Dataset, run_seed: u64) -> Self {
        let parts = dataset.parts().iter();
        let parts: Vec<_> = parts
            .map(|part| (part.start, part.rows, part.visits))
            .collect();
        let order = Order::mixed(run_seed, &parts);
        Self { dataset, order }
    }

    /// Samples in an epoch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.epoch_len()
    }

    /// Never: a data set without rows does not open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dataset.is_empty()
    }

    /// The ticket's sample.
    ///
    /// # Errors
    /// A row that cannot be read. When only that row is bad, `is_sample` says so: a reason to skip it.
    pub fn get(&mut self, ticket: Ticket) -> Result<Sample> {
        let (_, index) = self.order.place(ticket);
        self.dataset.get(index)
    }

    /// What a message calls the ticket's sample: its id, and its file and row.
    pub fn label(&mut self, ticket: Ticket, id: &str) -> String {
        let (_, index) = self.order.place(ticket);
        self.dataset.label(index, id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use shared::ids::Ticket;

    use super::Order;

    #[test]
    fn every_epoch_has_every_sample_in_another_order() {
        let mut order = Order::new(3, 10);
        let epochs: Vec<Vec<usize>> = (0..3)
            .map(|epoch| {
                (0..10)
                    .map(|offset| order.place(Ticket(epoch * 10 + offset)).1)
                    .collect()
            })
            .collect();
        for epoch in &epochs {
            assert_eq!(epoch.iter().collect::<HashSet<_>>().len(), 10);
        }
        assert_ne!(epochs[0], epochs[1]);
        // Out of order, and by another process: the same.
        assert_eq!(Order::new(3, 10).place(Ticket(17)), (1, epochs[1][7]));
        assert_eq!(order.place(Ticket(4)), (0, epochs[0][4]));
    }

    /// Three rows twice each and four rows half as often, in any order of asking.
    #[test]
    fn weights_are_visits_per_epoch_and_a_ticket_alone_says_which() {
        let parts = [(0, 3, 6), (3, 4, 2)];
        let mut order = Order::mixed(5, &parts);
        assert_eq!(order.epoch_len(), 8);
        let epochs: Vec<Vec<usize>> = (0..4)
            .map(|epoch| {
                (0..8)
                    .map(|offset| order.place(Ticket(epoch * 8 + offset)).1)
                    .collect()
            })
            .collect();
        for epoch in &epochs {
            for row in 0..3 {
                assert_eq!(epoch.iter().filter(|&&index| index == row).count(), 2);
            }
        }
        // Two epochs are one pass over the second source.
        for pair in epochs.chunks(2) {
            let mut rows: Vec<usize> = pair
                .concat()
                .into_iter()
                .filter(|&index| index >= 3)
                .collect();
            rows.sort_unstable();
            assert_eq!(rows, [3, 4, 5, 6]);
        }
        for ticket in [31, 0, 9, 17, 8] {
            let expected = epochs.concat()[ticket];
            let ticket = Ticket(ticket as u64);
            assert_eq!(Order::mixed(5, &parts).place(ticket).1, expected);
            assert_eq!(order.place(ticket).1, expected);
        }
    }

    /// Sources without weights are one data set: the order of a run that was begun before there were weights.
    #[test]
    fn without_weights_a_mixture_is_one_data_set() {
        let (mut one, mut two) = (Order::new(3, 10), Order::mixed(3, &[(0, 4, 4), (4, 6, 6)]));
        for ticket in 0..30 {
            assert_eq!(one.place(Ticket(ticket)), two.place(Ticket(ticket)));
        }
    }
}
