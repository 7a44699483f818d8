//! One decoding step: every row takes its last token and gives the logits of the next.

// B rows, M cache slots, V vocab

use super::cache::KvCache;
use super::inputs::{to_i32, to_i64};
use super::session::{EngineModel, ForwardInputs, Logits};
use crate::error::Result;

/// What a row brings to a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextToken {
    /// The token drawn last; not in the cache yet.
    pub(super) token_id: u32,
    /// Its position, the same on all three axes: it is text.
    pub(super) position: i64,
    /// Tokens of the row with this one.
    pub(super) length: usize,
}

/// Slots are added in steps of this many, so that growing stays rare.
const SLOTS_STEP: usize = 64;

/// Runs the new tokens of rows 0..B; logits [B, V].
pub(super) fn decode(
    model: &mut EngineModel,
    cache: &mut KvCache,
    tokens: &[NextToken],
) -> Result<Logits> {
    let rows = tokens.len();
    let token_ids: Vec<i64> = tokens
        .iter()
        .map(|token| i64::from(token.token_id))
        .collect(); // [B, 1]
    let axis: Vec<i64> = tokens.iter().map(|token| token.position).collect();
    let lengths: Vec<i32> = tokens.iter().map(|token| to_i32(token.length)).collect();
    let logit_positions: Vec<i64> = (0..rows).map(to_i64).collect();
    model.forward(
        cache,
        &ForwardInputs {
            rows,
            width: 1,
            token_ids: &token_ids,
            position_ids: &axis.repeat(3), // [3, B, 1]
            image_embeds: &[],
            image_positions: &[],
            lengths: &lengths,
            logit_positions: &logit_positions,
        },
    )
}

/// Makes room for rows of `needed` tokens. `lengths` are the tokens that each row in use holds.
///
/// The cache follows what the responses really need (by half of itself at a time), not what they are allowed to.
pub(super) fn grow(
    model: &EngineModel,
    cache: &mut KvCache,
    needed: usize,
    lengths: impl Iterator<Item = usize>,
) -> Result<()> {
    if needed <= cache.slots() {
        return Ok(());
    }
    let slots = needed
        .max(cache.slots() + cache.slots() / 2)
        .next_multiple_of(SLOTS_STEP);
    let mut larger = KvCache::new(&model.config().text, cache.rows(), slots);
    for (row, length) in lengths.enumerate() {
        larger.copy_rows(cache, row, row..row + 1, length)?;
    }
    *cache = larger;
    Ok(())
}
