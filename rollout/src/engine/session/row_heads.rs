//! What a device's head says of rows of logits, and what it measures by.
//!
//! `// R rows of logits, C candidates, V vocab`

use models::onnx::size;
use ort::value::DynTensor;

use super::memory::Memory;
use crate::error::Result;
use crate::sampler::{RowHead, Sampling};

/// What a device's head says of a row in f32; see `models::graph::head`.
pub(super) const STATISTICS: [&str; 8] = [
    "log_totals",
    "chosen_logprobs",
    "entropies",
    "banned_masses",
    "candidate_masses",
    "nucleus_masses",
    "nucleus_entropies",
    "renormalised_entropies",
];

/// What the head measures by.
#[derive(Debug, Clone)]
pub struct HeadSettings {
    /// Above 0.
    pub temperature: f32,
    /// Mass of the nucleus.
    pub nucleus_p: f32,
    /// Tokens that may not be drawn; none twice, all in the vocabulary.
    pub banned: Vec<i64>,
}

/// The head's outputs for R rows of logits, and the logits where they were made, which the model outlives.
#[derive(Debug)]
pub struct RowHeads<'a> {
    pub(super) statistics: [Vec<f32>; STATISTICS.len()],
    pub(super) ids: Vec<i32>,
    pub(super) logits: Vec<f32>,
    pub(super) candidates: usize,
    pub(super) rows: DynTensor,
    pub(super) memory: &'a Memory,
}

impl RowHeads<'_> {
    /// Rows of logits, R.
    #[must_use]
    pub fn len(&self) -> usize {
        self.statistics[0].len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is said of row `row`, below [`Self::len`].
    #[must_use]
    pub fn row(&self, row: usize) -> RowHead<'_> {
        let range = row * self.candidates..(row + 1) * self.candidates;
        let of = |index: usize| self.statistics[index][row];
        RowHead {
            log_total: of(0),
            chosen_logprob: of(1),
            entropy: of(2),
            banned_mass: of(3),
            candidate_mass: of(4),
            nucleus_entropy: of(6),
            renormalised_entropy: of(7),
            candidate_ids: &self.ids[range.clone()],
            candidate_logits: &self.logits[range],
        }
    }

    /// Brings the logits of one row to the host: f32 `[V]`.
    ///
    /// # Errors
    /// No such row, or ONNX Runtime's.
    pub fn fetch(&mut self, row: usize) -> Result<Vec<f32>> {
        self.memory.fetch_row(&mut self.rows, row)
    }
}

impl HeadSettings {
    /// What a sampler of these settings needs to hear.
    #[must_use]
    pub fn new(sampling: &Sampling, vocab_size: usize) -> Self {
        let padding = sampling.num_tokens.min(vocab_size)..vocab_size;
        let named = sampling.banned.iter().map(|&id| i64::from(id));
        let mut banned: Vec<i64> = named.chain(padding.map(size)).collect();
        banned.retain(|&id| id < size(vocab_size));
        banned.sort_unstable();
        banned.dedup();
        Self {
            temperature: sampling.measured_temperature(),
            nucleus_p: sampling.nucleus_p,
            banned,
        }
    }

    /// The graph wants one at least; what it says of that one is not used.
    pub(super) fn banned_input(&self) -> Vec<i64> {
        if self.banned.is_empty() {
            vec![0]
        } else {
            self.banned.clone()
        }
    }
}
