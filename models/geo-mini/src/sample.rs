//! One question with its figure, drawn from a stream of random numbers of its own: rows do not depend on each other.

use anyhow::{Context, Result};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::family::{Family, Work};
use crate::figure;
use crate::layout::{CELLS, Label};

/// Of each family's value combinations, one in this many is kept for the test split.
const TEST_SHARE: usize = 5;

/// The half of the value combinations that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    Train,
    Test,
}

/// A question, its figure, its answer.
pub(crate) struct Sample {
    pub(crate) png: Vec<u8>,
    pub(crate) problem: String,
    pub(crate) work: Work,
    /// What a wrong method makes of the same labels.
    pub(crate) wrong: Work,
    pub(crate) labels: Vec<Label>,
}

impl Sample {
    /// Value per image token, row by row; -1 where no label's centre lies.
    pub(crate) fn token_labels(&self) -> Vec<i32> {
        let mut cells = vec![-1; CELLS * CELLS];
        for label in &self.labels {
            cells[label.cell] = i32::try_from(label.value).unwrap_or(-1);
        }
        cells
    }
}

/// Draws samples of one split.
pub(crate) struct Source {
    split: Split,
    seed: u64,
    families: Vec<(Family, Vec<Vec<u32>>)>,
}

impl Source {
    pub(crate) fn new(split: Split, seed: u64) -> Self {
        let families = Family::ALL
            .into_iter()
            .map(|family| (family, combinations(family, split)))
            .collect();
        Self {
            split,
            seed,
            families,
        }
    }

    /// The sample of a row: a function of split, seed and row. Also returns the rest of the row's random numbers.
    pub(crate) fn sample(&self, row: usize) -> Result<(Sample, ChaCha8Rng)> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        // Splits never share a stream, so figures differ even where seeds are equal.
        rng.set_stream(u64::try_from(row)? * 2 + u64::from(self.split == Split::Test));
        let (family, combinations) = &self.families[rng.random_range(0..self.families.len())];
        let combination = combinations
            .get(rng.random_range(0..combinations.len()))
            .context("no values")?;
        let mut values = combination.clone();
        if !family.is_ordered() {
            values.shuffle(&mut rng);
        }
        let figure = figure::draw(family.shape(), &values, &mut rng);
        let read: Vec<u32> = figure.labels.iter().map(|label| label.value).collect();
        let sample = Sample {
            png: figure.canvas.encode(&mut rng)?,
            problem: format!("<image>{}", family.question()),
            work: family.right(&read),
            wrong: family.wrong(&read),
            labels: figure.labels,
        };
        Ok((sample, rng))
    }
}

/// The value combinations of a family that belong to a split: ranked by a hash, the first fifth is for testing.
fn combinations(family: Family, split: Split) -> Vec<Vec<u32>> {
    let mut ranked: Vec<(u64, Vec<u32>)> = family
        .combinations()
        .into_iter()
        .map(|values| (hash(family, &values), values))
        .collect();
    ranked.sort();
    let num_test = ranked.len().div_ceil(TEST_SHARE);
    let test = ranked.split_off(ranked.len() - num_test);
    let chosen = if split == Split::Test { test } else { ranked };
    chosen.into_iter().map(|(_, values)| values).collect()
}

/// FNV-1a over the family's question and its values.
fn hash(family: Family, values: &[u32]) -> u64 {
    let values = values.iter().flat_map(|value| value.to_le_bytes());
    family
        .question()
        .bytes()
        .chain(values)
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_share_no_combination() {
        for family in Family::ALL {
            let (train, test) = (
                combinations(family, Split::Train),
                combinations(family, Split::Test),
            );
            assert!(
                !test.is_empty() && train.iter().all(|values| !test.contains(values)),
                "{family:?}"
            );
            assert_eq!(train.len() + test.len(), family.combinations().len());
        }
    }

    #[test]
    fn a_row_is_a_function_of_its_seed() {
        let source = Source::new(Split::Train, 7);
        let (first, again) = (source.sample(3).unwrap().0, source.sample(3).unwrap().0);
        assert_eq!((&first.png, &first.work), (&again.png, &again.work));
        assert_ne!(
            first.png,
            Source::new(Split::Train, 8).sample(3).unwrap().0.png
        );
        assert_ne!(
            first.png,
            Source::new(Split::Test, 7).sample(3).unwrap().0.png
        );
    }

    #[test]
    fn every_label_has_a_cell_of_its_own() {
        let source = Source::new(Split::Test, 1);
        for row in 0..200 {
            let (sample, _) = source.sample(row).unwrap();
            let labelled = sample
                .token_labels()
                .iter()
                .filter(|&&value| value >= 0)
                .count();
            assert_eq!(labelled, sample.labels.len());
            assert!(sample.labels.is_sorted_by_key(|label| label.cell));
        }
    }
}
