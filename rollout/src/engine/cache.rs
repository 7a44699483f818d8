//! Keys and values of the tokens seen so far: one pair of buffers per layer, allocated once, updated in place.
//!
//! `// L layers, B rows, K kv heads, M slots, D head dim`
//!
//! A forward pass over `n` rows uses rows `0..n`, so a batch that shrinks keeps its rows packed at the front
//! (`copy_rows` moves a survivor into a hole) and nothing is allocated again.

use std::ops::Range;

use models::config::TextConfig;

use crate::error::{Error, Result};

/// Keys and values, f32 `[B, K, M, D]` for each of L layers.
pub struct KvCache {
    pub(super) keys: Vec<Vec<f32>>,   // L x [B, K, M, D]
    pub(super) values: Vec<Vec<f32>>, // L x [B, K, M, D]
    rows: usize,
    slots: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl KvCache {
    /// Room for `rows` sequences of at most `slots` tokens. Pages are touched only when tokens arrive.
    #[must_use]
    pub fn new(config: &TextConfig, rows: usize, slots: usize) -> Self {
        let length = rows * config.num_kv_heads * slots * config.head_dim;
        let buffers = || (0..config.num_layers).map(|_| vec![0.0; length]).collect();
        Self {
            keys: buffers(),
            values: buffers(),
            rows,
            slots,
            kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
        }
    }

    /// Bytes that a cache of this size may come to hold, keys and values of all layers.
    #[must_use]
    pub fn bytes(config: &TextConfig, rows: usize, slots: usize) -> usize {
        2 * config.num_layers
            * rows
            * config.num_kv_heads
            * slots
            * config.head_dim
            * size_of::<f32>()
    }

    /// Rows (B).
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Token slots of each row (M).
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Gives the same memory another shape; what it held is lost. Grows only when it must: for caches that are
    /// thrown away after one pass (prefill, scoring).
    pub fn reshape(&mut self, rows: usize, slots: usize) {
        let length = rows * self.kv_heads * slots * self.head_dim;
        for buffer in self.keys.iter_mut().chain(&mut self.values) {
            if buffer.len() < length {
                *buffer = vec![0.0; length];
            }
        }
        self.rows = rows;
        self.slots = slots;
    }

    /// Copies the first `length` tokens of `from[source]` into every row of `targets`: a prompt prefilled once
    /// becomes the start of each response of its group.
    pub fn copy_rows(
        &mut self,
        from: &Self,
        source: usize,
        targets: Range<usize>,
        length: usize,
    ) -> Result<()> {
        self.check_row(targets.end.saturating_sub(1), length)?;
        from.check_row(source, length)?;
        if (self.kv_heads, self.head_dim, self.keys.len())
            != (from.kv_heads, from.head_dim, from.keys.len())
        {
            return Err(Error::Cache {
                reason: "the two caches belong to different models".to_owned(),
            });
        }
        let tokens = length * self.head_dim;
        let pairs = self
            .keys
            .iter_mut()
            .zip(&from.keys)
            .chain(self.values.iter_mut().zip(&from.values));
        for (to, from_buffer) in pairs {
            for head in 0..self.kv_heads {
                let start = (source * self.kv_heads + head) * from.slots * self.head_dim;
                let tokens_of_head = &from_buffer[start..start + tokens];
                for row in targets.clone() {
                    let start = (row * self.kv_heads + head) * self.slots * self.head_dim;
                    to[start..start + tokens].copy_from_slice(tokens_of_head);
                }
            }
        }
        Ok(())
    }

    /// Moves the first `length` tokens of row `source` to row `target` of the same cache: closes the hole that a
    /// finished row leaves.
    pub fn move_row(&mut self, source: usize, target: usize, length: usize) -> Result<()> {
        self.check_row(source, length)?;
        self.check_row(target, length)?;
        let tokens = length * self.head_dim;
        for buffer in self.keys.iter_mut().chain(&mut self.values) {
            for head in 0..self.kv_heads {
                let stride = self.slots * self.head_dim;
                let start = (source * self.kv_heads + head) * stride;
                buffer.copy_within(
                    start..start + tokens,
                    (target * self.kv_heads + head) * stride,
                );
            }
        }
        Ok(())
    }

    /// Elements of one buffer of the first `rows` rows.
    pub(super) fn elements(&self, rows: usize) -> usize {
        rows * self.kv_heads * self.slots * self.head_dim
    }

    /// Shape of the first `rows` rows: `[rows, K, M, D]`.
    pub(super) fn shape(&self, rows: usize) -> [usize; 4] {
        [rows, self.kv_heads, self.slots, self.head_dim]
    }

    fn check_row(&self, row: usize, length: usize) -> Result<()> {
        if row >= self.rows || length > self.slots {
            return Err(Error::Cache {
                reason: format!(
                    "row {row} with {length} tokens of a cache of {} rows, {} slots",
                    self.rows, self.slots
                ),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(rows: usize, slots: usize) -> KvCache {
        let buffer = |layer: usize| {
            (0..rows * 2 * slots * 3)
                .map(|i| (1000 * layer + i) as f32)
                .collect::<Vec<_>>()
        };
        KvCache {
            keys: vec![buffer(0), buffer(1)],
            values: vec![buffer(2), buffer(3)],
            rows,
            slots,
            kv_heads: 2,
            head_dim: 3,
        }
    }

    fn token(cache: &KvCache, layer: usize, row: usize, head: usize, slot: usize) -> &[f32] {
        let start = ((row * 2 + head) * cache.slots + slot) * 3;
        &cache.values[layer][start..start + 3]
    }

    #[test]
    fn a_prompt_is_copied_to_each_row_of_its_group() {
        let prompt = cache(2, 4);
        let mut group = cache(3, 7);
        let before = group.values.clone();
        group.copy_rows(&prompt, 1, 1..3, 4).unwrap();
        for (layer, before) in before.iter().enumerate() {
            for head in 0..2 {
                for slot in 0..4 {
                    for row in 1..3 {
                        assert_eq!(
                            token(&group, layer, row, head, slot),
                            token(&prompt, layer, 1, head, slot)
                        );
                    }
                }
            }
            assert_eq!(group.values[layer][..2 * 7 * 3], before[..2 * 7 * 3]);
        }
    }

    #[test]
    fn a_hole_is_closed_and_bad_rows_are_refused() {
        let mut batch = cache(3, 4);
        let last = token(&batch, 1, 2, 1, 2).to_vec();
        batch.move_row(2, 0, 3).unwrap();
        assert_eq!(token(&batch, 1, 0, 1, 2), last);
        assert!(batch.move_row(3, 0, 1).is_err());
        assert!(batch.copy_rows(&cache(1, 9), 0, 0..1, 5).is_err());
        assert!(batch.copy_rows(&cache(1, 2), 0, 0..1, 3).is_err());
    }
}
