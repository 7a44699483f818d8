//! Which rows of attention go through it together.
//!
//! A set of rows is a rectangle: every row is padded to the longest. Rows of much the same length share a set, so that
//! padding never costs more than the tokens themselves, however long and short sequences are mixed.

use std::ops::Range;

/// A row: `own` tokens ask, and look at the `shared` tokens before them (a prompt that other rows see too) and at themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// Keys that ask nothing here.
    pub shared: usize,
    /// Queries, which are keys too.
    pub own: usize,
}

impl Row {
    /// Scores that the row takes.
    fn scores(self) -> usize {
        self.own * (self.shared + self.own)
    }

    /// The smallest row that holds both.
    fn around(self, other: Self) -> Self {
        Self {
            shared: self.shared.max(other.shared),
            own: self.own.max(other.own),
        }
    }
}

/// Cuts rows that follow each other into sets. In none are more than half of the scores padding; and so, as a row's scores
/// grow with each of its sides, neither are more than half of the query slots or of the key slots.
#[must_use]
pub fn sets(rows: &[Row]) -> Vec<Range<usize>> {
    let mut sets: Vec<Range<usize>> = Vec::new();
    let (mut padded, mut scores) = (Row::default(), 0);
    for (index, &row) in rows.iter().enumerate() {
        if let Some(set) = sets.last_mut() {
            let with_row = padded.around(row);
            if (set.len() + 1) * with_row.scores() <= 2 * (scores + row.scores()) {
                (padded, scores) = (with_row, scores + row.scores());
                set.end = index + 1;
                continue;
            }
        }
        sets.push(index..index + 1);
        (padded, scores) = (row, row.scores());
    }
    sets
}

/// An order in which rows of much the same shape follow each other, so that [`sets`] makes few: by the shared part's
/// power of two, then by the own part. Rows that are alike keep their order.
#[must_use]
pub fn order(rows: &[Row]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&index| {
        let Row { shared, own } = rows[index];
        (shared.checked_ilog2(), own)
    });
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots(rows: &[Row], of: impl Fn(Row) -> usize) -> (usize, usize) {
        let padded = rows
            .iter()
            .fold(Row::default(), |all, &row| all.around(row));
        (
            rows.len() * of(padded),
            rows.iter().map(|&row| of(row)).sum(),
        )
    }

    proptest! {
        #[test]
        fn padding_is_never_more_than_half(
            rows in prop::collection::vec((0_usize..3000, 1_usize..2000), 1..40),
        ) {
            let rows: Vec<Row> = rows.into_iter().map(|(shared, own)| Row { shared, own }).collect();
            let sorted: Vec<Row> = order(&rows).into_iter().map(|index| rows[index]).collect();
            let sets = sets(&sorted);
            prop_assert_eq!(sets.iter().cloned().flatten().collect::<Vec<_>>(), (0..rows.len()).collect::<Vec<_>>());
            for set in sets {
                let sides: [fn(Row) -> usize; 3] = [|row| row.own, |row| row.shared + row.own, Row::scores];
                for side in sides {
                    let (padded, real) = slots(&sorted[set.clone()], side);
                    prop_assert!(padded <= 2 * real, "{} slots for {}", padded, real);
                }
            }
        }
    }

    #[test]
    fn rows_of_one_kind_are_one_set_and_a_long_one_is_another() {
        let short = Row {
            shared: 45,
            own: 20,
        };
        let long = Row {
            shared: 2000,
            own: 20,
        };
        let mut rows = vec![short; 30];
        rows.insert(7, long);
        let sorted: Vec<Row> = order(&rows).into_iter().map(|index| rows[index]).collect();
        assert_eq!(sets(&sorted), [0..30, 30..31]);
        // As they come, without the order: the long one takes one short one along.
        assert_eq!(sets(&rows), [0..7, 7..9, 9..31]);
        assert!(sets(&[]).is_empty());
    }
}
