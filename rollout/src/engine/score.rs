//! Teacher forcing: the statistics of given responses after a prompt, many responses in one right-padded pass.

// B responses, S prompt + longest response - 1, N image tokens, E hidden, R response tokens of the pass, V vocab

use super::cache::KvCache;
use super::inputs::{PromptInputs, to_i32, to_i64};
use super::session::{EngineModel, ForwardInputs};
use crate::error::Result;
use crate::sampler::{Sampler, Scored};

/// Tokens of one pass, padding included: wide enough for a full matrix product, small enough for the activations.
const PASS_TOKENS: usize = 8192;

/// Logits of one pass: 256 MiB of f32. One response may need more and then runs alone.
const PASS_LOGITS: usize = 1 << 26;

/// Scores every token of every response as if it had just been drawn after `prompt`.
///
/// A pass holds responses of this call only, so the numbers do not depend on what else is in flight.
pub(super) fn score(
    model: &mut EngineModel,
    cache: &mut KvCache,
    samplers: &mut [Sampler],
    prompt: &PromptInputs,
    responses: &[&[u32]],
) -> Result<Vec<Vec<Scored>>> {
    let image_embeds = model.encode_images(&prompt.patches, &prompt.grids)?; // [N, E]
    let mut scored = Vec::with_capacity(responses.len());
    let mut rest = responses;
    while !rest.is_empty() {
        let (pass, after) = rest.split_at(pass_rows(
            rest,
            prompt.len(),
            model.config().text.vocab_size,
        ));
        scored.extend(score_pass(
            model,
            cache,
            samplers,
            prompt,
            &image_embeds,
            pass,
        )?);
        rest = after;
    }
    Ok(scored)
}

/// How many of the first responses fit into one pass; at least one.
fn pass_rows(responses: &[&[u32]], prompt_tokens: usize, vocab_size: usize) -> usize {
    let (mut longest, mut logits) = (0, 0);
    for (index, response) in responses.iter().enumerate() {
        longest = longest.max(response.len());
        logits += response.len() * vocab_size;
        if index > 0
            && ((index + 1) * (prompt_tokens + longest) > PASS_TOKENS || logits > PASS_LOGITS)
        {
            return index;
        }
    }
    responses.len()
}

fn score_pass(
    model: &mut EngineModel,
    cache: &mut KvCache,
    samplers: &mut [Sampler],
    prompt: &PromptInputs,
    image_embeds: &[f32],
    responses: &[&[u32]],
) -> Result<Vec<Vec<Scored>>> {
    let (rows, start) = (responses.len(), prompt.len());
    let longest = responses
        .iter()
        .map(|response| response.len())
        .max()
        .unwrap_or(0);
    if longest == 0 {
        return Ok(vec![Vec::new(); rows]);
    }
    // The last token of a response is predicted, never read.
    let width = start + longest - 1;
    let mut token_ids = Vec::with_capacity(rows * width); // [B, S]
    let mut logit_positions = Vec::new(); // [R]
    for (row, response) in responses.iter().enumerate() {
        let sequence = prompt
            .token_ids
            .iter()
            .chain(*response)
            .map(|&id| i64::from(id));
        token_ids.extend(sequence.chain(std::iter::repeat(0)).take(width));
        // Token t of a response follows token start - 1 + t.
        let first = row * width + start - 1;
        logit_positions.extend((first..first + response.len()).map(to_i64));
    }
    let mut position_ids = Vec::with_capacity(3 * rows * width); // [3, B, S]
    for axis in 0..3 {
        let row: Vec<i64> = (0..width)
            .map(|index| prompt.position(axis, index))
            .collect();
        position_ids.extend(row.repeat(rows));
    }
    let of_row = |row| {
        prompt
            .image_positions
            .iter()
            .map(move |&index| to_i64(row * width + index))
    };
    let image_positions: Vec<i64> = (0..rows).flat_map(of_row).collect(); // [B * N]
    let lengths: Vec<i32> = responses
        .iter()
        .map(|response| to_i32((start + response.len()).saturating_sub(1).max(1)))
        .collect();
    cache.reshape(rows, width);
    let inputs = ForwardInputs {
        rows,
        width,
        token_ids: &token_ids,
        position_ids: &position_ids,
        image_embeds: &image_embeds.repeat(rows),
        image_positions: &image_positions,
        lengths: &lengths,
        logit_positions: &logit_positions,
    };
    let logits = model.forward(cache, &inputs)?;
    let rows: Vec<&[f32]> = logits.rows()?.collect();
    let tokens: Vec<u32> = responses
        .iter()
        .flat_map(|response| response.iter().copied())
        .collect();
    let flat = super::sample::score_rows(samplers, &rows, &tokens)?;
    let mut flat = flat.into_iter();
    Ok(responses
        .iter()
        .map(|response| flat.by_ref().take(response.len()).collect())
        .collect())
}
