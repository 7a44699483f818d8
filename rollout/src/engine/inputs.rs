//! A prompt as the model takes it: made off the engine's thread.

use models::image::Grid;
use models::positions::{Positions, mrope};
use models::processor::{Processor, Prompt};

use crate::error::Result;

/// Everything that a first pass over one prompt needs.
#[derive(Debug, Clone)]
pub struct PromptInputs {
    /// Image pads expanded.
    pub token_ids: Vec<u32>,
    /// Where each token stands, and where the response begins.
    pub positions: Positions,
    /// Patches of all images, one image after the other, f32 [P, C*T*p*p]; empty for a text-only prompt.
    pub patches: Vec<f32>,
    /// One per image.
    pub grids: Vec<Grid>,
    /// Indices of the image tokens in `token_ids`.
    pub image_positions: Vec<usize>,
}

impl PromptInputs {
    /// Cuts the images into patches and lays out the positions.
    ///
    /// # Errors
    /// Image tokens that do not match the images.
    pub fn new(processor: &Processor, prompt: &Prompt) -> Result<Self> {
        let mut patches = Vec::new();
        for image in &prompt.images {
            patches.extend(processor.images.patches(image)?.values);
        }
        let image_token = processor.config.tokens.image;
        let is_image = |(index, &id): (usize, &u32)| (id == image_token).then_some(index);
        Ok(Self {
            positions: mrope(&prompt.token_ids, &prompt.grids, &processor.config)?,
            token_ids: prompt.token_ids.clone(),
            patches,
            grids: prompt.grids.clone(),
            image_positions: prompt
                .token_ids
                .iter()
                .enumerate()
                .filter_map(is_image)
                .collect(),
        })
    }

    /// Tokens in the prompt.
    #[must_use]
    pub fn len(&self) -> usize {
        self.token_ids.len()
    }

    /// Whether there is nothing to start from.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.token_ids.is_empty()
    }

    /// Position, on every axis, of token `index` of the sequence prompt + response on `axis`.
    pub(super) fn position(&self, axis: usize, index: usize) -> i64 {
        match self.positions.ids[axis].get(index) {
            Some(&position) => position,
            None => self.positions.next + to_i64(index - self.len()),
        }
    }
}

/// Sizes of this program are far below 2^63.
pub(super) fn to_i64(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Lengths in the cache are i32; what does not fit is refused by the session's own check.
pub(super) fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
