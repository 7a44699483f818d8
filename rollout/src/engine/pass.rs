//! One pass of the decoder: new tokens of many sequences, packed one after the other without padding.

// T new tokens, N image tokens, R rows of logits, E hidden, B sequences

use super::cache::{BLOCK, KvCache, blocks_of};
use super::inputs::{to_i32, to_i64};
use crate::error::{Error, Result};

/// New tokens of one sequence: the tokens `prefix | own, in the cache | new`.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// New tokens, at least one.
    pub token_ids: &'a [u32],
    /// Their temporal, height and width positions.
    pub positions: [&'a [i64]; 3],
    /// Blocks of the prefix, which other sequences may share.
    pub prefix_blocks: &'a [u32],
    /// Tokens of the prefix.
    pub prefix: usize,
    /// Blocks of its own, with room for the new tokens.
    pub own_blocks: &'a [u32],
    /// Tokens in them so far.
    pub own: usize,
}

/// Inputs of one pass.
#[derive(Debug, Clone, Default)]
pub struct Pass {
    pub(super) token_ids: Vec<i64>,         // [T]
    pub(super) position_ids: [Vec<i64>; 3], // 3 x [T]
    pub(super) image_embeds: Vec<f32>,      // [N, E]
    pub(super) image_positions: Vec<i64>,   // [N]
    pub(super) logit_positions: Vec<i64>,   // [R]
    pub(super) sequences: Vec<i32>,         // [B, 4]
    tables: Vec<Vec<i32>>,
}

impl Pass {
    /// Adds a sequence's new tokens; returns the index in the pass of the first.
    ///
    /// A prefix may be filled by an earlier piece of the same pass.
    ///
    /// # Errors
    /// Blocks without room for its tokens.
    pub fn push(&mut self, piece: &Piece<'_>) -> Result<usize> {
        let first = self.token_ids.len();
        let num_new = piece.token_ids.len();
        let has_room = num_new > 0
            && piece.positions.iter().all(|axis| axis.len() == num_new)
            && piece.prefix_blocks.len() == blocks_of(piece.prefix)
            && piece.own + num_new <= piece.own_blocks.len() * BLOCK;
        if !has_room {
            return Err(Error::Cache {
                reason: format!(
                    "{} + {} tokens do not fit {} + {} blocks",
                    piece.prefix,
                    piece.own + num_new,
                    piece.prefix_blocks.len(),
                    piece.own_blocks.len()
                ),
            });
        }
        self.token_ids
            .extend(piece.token_ids.iter().map(|&id| i64::from(id)));
        for (all, axis) in self.position_ids.iter_mut().zip(piece.positions) {
            all.extend_from_slice(axis);
        }
        self.sequences
            .extend([first, num_new, piece.prefix, piece.own].map(to_i32));
        let blocks = piece.prefix_blocks.iter().chain(piece.own_blocks);
        self.tables.push(
            blocks
                .map(|&block| i32::try_from(block).unwrap_or(-1))
                .collect(),
        );
        Ok(first)
    }

    /// Puts an image embedding in the place of a token of the pass.
    pub fn push_image(&mut self, token: usize, embedding: &[f32]) {
        self.image_positions.push(to_i64(token));
        self.image_embeds.extend_from_slice(embedding);
    }

    /// Asks for the logits after a token of the pass; they come in the order asked for.
    pub fn want(&mut self, token: usize) {
        self.logit_positions.push(to_i64(token));
    }

    /// New tokens, T.
    #[must_use]
    pub fn len(&self) -> usize {
        self.token_ids.len()
    }

    /// Whether there is nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.token_ids.is_empty()
    }

    /// Sequences, B.
    #[must_use]
    pub fn num_sequences(&self) -> usize {
        self.tables.len()
    }

    /// Rows of logits asked for, R.
    #[must_use]
    pub fn num_wanted(&self) -> usize {
        self.logit_positions.len()
    }

    /// i32 `[B, M]`, the rows filled up with 0 to the longest; and M.
    pub(super) fn block_table(&self) -> (Vec<i32>, usize) {
        let width = self.tables.iter().map(Vec::len).max().unwrap_or(0);
        let row = |table: &Vec<i32>| {
            let padding = width - table.len();
            table
                .iter()
                .copied()
                .chain(std::iter::repeat_n(0, padding))
                .collect::<Vec<_>>()
        };
        (self.tables.iter().flat_map(row).collect(), width)
    }

    /// Checks everything that the kernels rely on.
    pub(super) fn check(
        &self,
        cache: &KvCache,
        vocab_size: usize,
        hidden_size: usize,
    ) -> Result<()> {
        let tokens = self.len();
        let refused = |reason: String| Err(Error::Cache { reason });
        let is_below = |value: i64, limit| usize::try_from(value).is_ok_and(|value| value < limit);
        if tokens == 0 {
            return refused("a pass without tokens".to_owned());
        }
        if !self.token_ids.iter().all(|&id| is_below(id, vocab_size)) {
            return refused(format!(
                "a token id is outside the vocabulary of {vocab_size}"
            ));
        }
        let mut positions = self.image_positions.iter().chain(&self.logit_positions);
        if !positions.all(|&position| is_below(position, tokens)) {
            return refused(format!(
                "a position is outside the {tokens} tokens of the pass"
            ));
        }
        let mut blocks = self.tables.iter().flatten();
        if !blocks.all(|&block| is_below(i64::from(block), cache.num_blocks())) {
            return refused(format!(
                "a block is outside the {} of the cache",
                cache.num_blocks()
            ));
        }
        let expected = self.image_positions.len() * hidden_size;
        if self.image_embeds.len() == expected {
            Ok(())
        } else {
            Err(Error::Shape {
                tensor: "image_embeds",
                expected,
                got: self.image_embeds.len(),
            })
        }
    }
}
