//! The first pass over a prompt, once per group.
//!
//! One prompt per pass: its cache then does not depend on its neighbours, and a prompt is wide enough to keep the cores busy.

// S prompt tokens, N image tokens, E hidden, V vocab

use super::cache::KvCache;
use super::inputs::{PromptInputs, to_i32, to_i64};
use super::session::{EngineModel, ForwardInputs};
use crate::error::Result;

/// Runs `prompt` into row 0 of `cache` (reshaped to fit) and returns the logits of the first response token, [V].
pub(super) fn prefill(
    model: &mut EngineModel,
    cache: &mut KvCache,
    prompt: &PromptInputs,
) -> Result<Vec<f32>> {
    let width = prompt.len();
    let image_embeds = model.encode_images(&prompt.patches, &prompt.grids)?; // [N, E]
    let token_ids: Vec<i64> = prompt.token_ids.iter().map(|&id| i64::from(id)).collect();
    let image_positions: Vec<i64> = prompt
        .image_positions
        .iter()
        .map(|&index| to_i64(index))
        .collect();
    cache.reshape(1, width);
    let logits = model.forward(
        cache,
        &ForwardInputs {
            rows: 1,
            width,
            token_ids: &token_ids,
            position_ids: &prompt.positions.ids.concat(),
            image_embeds: &image_embeds,
            image_positions: &image_positions,
            lengths: &[to_i32(width)],
            logit_positions: &[to_i64(width.saturating_sub(1))],
        },
    )?;
    Ok(logits.values()?.to_vec())
}
