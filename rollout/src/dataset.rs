//! Ticket -> sample: a ticket alone says which one, whoever asks and whenever.

use shared::dataset::{Dataset, Result, Sample};
use shared::ids::Ticket;

use crate::sampler::permutation;

/// The order in which a run visits its data set: every epoch all of it, shuffled by the run's seed.
#[derive(Debug, Clone)]
pub struct Order {
    run_seed: u64,
    len: usize,
    /// The permutation used last; tickets come nearly in order.
    epoch: Option<(u64, Vec<usize>)>,
}

impl Order {
    /// The order over `len` > 0 samples.
    #[must_use]
    pub fn new(run_seed: u64, len: usize) -> Self {
        Self {
            run_seed,
            len,
            epoch: None,
        }
    }

    /// Epoch and index of the ticket's sample: epoch = ticket / len, index = permutation of that epoch at ticket % len.
    pub fn place(&mut self, ticket: Ticket) -> (u64, usize) {
        let len = self.len.max(1) as u64;
        let epoch = ticket.0 / len;
        let offset = usize::try_from(ticket.0 % len).unwrap_or(0); // below len, a usize
        let order = match self.epoch.take() {
            Some((known, order)) if known == epoch => order,
            _ => permutation(self.run_seed, epoch, self.len),
        };
        let index = order.get(offset).copied().unwrap_or(0);
        self.epoch = Some((epoch, order));
        (epoch, index)
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
        let order = Order::new(run_seed, dataset.len());
        Self { dataset, order }
    }

    /// Samples in an epoch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dataset.len()
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
}
