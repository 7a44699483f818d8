//! Known tokens through the decoder, many sequences in a pass, long ones over several.

// V vocab, E hidden, N image tokens

use std::ops::Range;

use super::cache::KvCache;
use super::inputs::PromptInputs;
use super::pass::{Pass, Piece};
use super::session::{EngineModel, Logits};
use crate::error::Result;

/// Tokens of one pass: wide enough for a full matrix product, small enough for the activations.
pub const PASS_TOKENS: usize = 512;

/// Logits of one pass: 256 MiB of f32.
pub const PASS_LOGITS: usize = 1 << 26;

/// Known tokens of one sequence.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    token_ids: &'a [u32],
    positions: [Vec<i64>; 3],
    /// Tokens that an image embedding replaces, and the embeddings [N, E].
    images: (&'a [usize], &'a [f32]),
    /// A prompt that was read before, and its tokens.
    prefix: (&'a [u32], usize),
    /// Tokens after which the logits are wanted.
    wanted: Range<usize>,
    /// Its own blocks, taken as they are needed from those promised.
    pub(super) blocks: Vec<u32>,
}

/// The place of one row of logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Index of the stream.
    pub(super) stream: usize,
    /// Index of the token in it that the row comes after.
    pub(super) token: usize,
}

impl<'a> Stream<'a> {
    /// A prompt with the embeddings of its images; gives the logits after its last token.
    pub(super) fn prompt(prompt: &'a PromptInputs, image_embeds: &'a [f32]) -> Self {
        Self {
            token_ids: &prompt.token_ids,
            positions: prompt.positions.ids.clone(),
            images: (&prompt.image_positions, image_embeds),
            prefix: (&[], 0),
            wanted: prompt.len().saturating_sub(1)..prompt.len(),
            blocks: Vec::new(),
        }
    }

    /// A response after `prompt`, which is in `prompt_blocks`; gives the logits after each of its tokens but the last,
    /// which is predicted and never read.
    pub(super) fn response(
        prompt: &PromptInputs,
        prompt_blocks: &'a [u32],
        response: &'a [u32],
    ) -> Self {
        let token_ids = &response[..response.len().saturating_sub(1)];
        let axis = |axis| {
            let of_token = |index| prompt.position(axis, prompt.len() + index);
            (0..token_ids.len()).map(of_token).collect()
        };
        Self {
            token_ids,
            positions: [axis(0), axis(1), axis(2)],
            images: (&[], &[]),
            prefix: (prompt_blocks, prompt.len()),
            wanted: 0..token_ids.len(),
            blocks: Vec::new(),
        }
    }

    /// Tokens to read.
    pub(super) fn len(&self) -> usize {
        self.token_ids.len()
    }
}

/// Reads all streams; `on_rows` gets the logits of each pass with their places. The blocks must have been promised.
pub(super) fn read(
    model: &mut EngineModel,
    cache: &mut KvCache,
    streams: &mut [Stream<'_>],
    mut on_rows: impl FnMut(&[Wanted], &Logits) -> Result<()>,
) -> Result<()> {
    let max_rows = (PASS_LOGITS / model.config().text.vocab_size).max(1);
    let mut reading = Reading::default();
    for index in 0..streams.len() {
        let mut start = 0;
        while start < streams[index].len() {
            let room = PASS_TOKENS - reading.pass.len();
            let rows = max_rows - reading.wanted.len();
            let stream = &streams[index];
            // Tokens before the first wanted one bring no row.
            let free = stream.wanted.start.saturating_sub(start);
            let count = (stream.len() - start).min(room).min(free + rows);
            if count > 0 {
                reading.push(cache, streams, index, start..start + count)?;
                start += count;
            }
            if count == 0 || reading.pass.len() == PASS_TOKENS {
                reading.flush(model, cache, &mut on_rows)?;
            }
        }
    }
    reading.flush(model, cache, &mut on_rows)
}

/// A pass that is being filled.
#[derive(Default)]
struct Reading {
    pass: Pass,
    wanted: Vec<Wanted>,
}

impl Reading {
    fn push(
        &mut self,
        cache: &mut KvCache,
        streams: &mut [Stream<'_>],
        index: usize,
        tokens: Range<usize>,
    ) -> Result<()> {
        cache.extend(&mut streams[index].blocks, tokens.end)?;
        let stream = &streams[index];
        let (prefix_blocks, prefix) = stream.prefix;
        let [t, h, w] = &stream.positions;
        let first = self.pass.push(&Piece {
            token_ids: &stream.token_ids[tokens.clone()],
            positions: [t, h, w].map(|axis| &axis[tokens.clone()]),
            prefix_blocks,
            prefix,
            own_blocks: &stream.blocks,
            own: tokens.start,
        })?;
        let (image_tokens, embeds) = stream.images;
        if let Some(hidden) = embeds.len().checked_div(image_tokens.len()) {
            for (&token, embed) in image_tokens.iter().zip(embeds.chunks_exact(hidden)) {
                if tokens.contains(&token) {
                    self.pass.push_image(first + token - tokens.start, embed);
                }
            }
        }
        for token in tokens.clone().filter(|token| stream.wanted.contains(token)) {
            self.pass.want(first + token - tokens.start);
            self.wanted.push(Wanted {
                stream: index,
                token,
            });
        }
        Ok(())
    }

    fn flush(
        &mut self,
        model: &mut EngineModel,
        cache: &mut KvCache,
        on_rows: &mut impl FnMut(&[Wanted], &Logits) -> Result<()>,
    ) -> Result<()> {
        if self.pass.is_empty() {
            return Ok(());
        }
        let logits = model.forward(cache, std::mem::take(&mut self.pass))?;
        on_rows(&std::mem::take(&mut self.wanted), &logits)
    }
}

/// Embeds the images of prompts, those of one size side by side; one piece [N, E] per prompt.
pub(super) fn embed_images(
    model: &mut EngineModel,
    prompts: &[&PromptInputs],
) -> Result<Vec<Vec<f32>>> {
    let patches: Vec<f32> = prompts
        .iter()
        .flat_map(|prompt| prompt.patches.iter().copied())
        .collect();
    let grids: Vec<_> = prompts
        .iter()
        .flat_map(|prompt| prompt.grids.iter().copied())
        .collect();
    let hidden = model.config().text.hidden_size;
    let embeds = model.encode_images(&patches, &grids)?;
    let mut rest = embeds.as_slice();
    let piece = |prompt: &&PromptInputs| {
        let count = (prompt.image_positions.len() * hidden).min(rest.len());
        let (piece, after) = rest.split_at(count);
        rest = after;
        piece.to_vec()
    };
    Ok(prompts.iter().map(piece).collect())
}
