//! The vision tower on ONNX Runtime.
//!
//! `// P patches, N image tokens, E hidden`

use std::path::Path;

use models::config::VisionConfig;
use models::image::Grid;
use models::positions::{VisionPlan, vision_plan};
use ort::session::Session;

use super::binding::Bindings;
use super::check;
use super::memory::{Memory, numbers};
use super::provider::{Profile, Span};
use super::weights::Weights;
use crate::error::Result;

/// `vision.onnx`, open.
#[derive(Debug)]
pub(super) struct Vision {
    session: Session,
    /// Those that are inputs; none where the session has them itself.
    weights: Option<Weights>,
}

impl Vision {
    /// A session that has its weights itself.
    pub(super) fn new(session: Session) -> Self {
        Self {
            session,
            weights: None,
        }
    }

    /// A session whose weights are inputs.
    pub(super) fn with_weights(session: Session, weights: Weights) -> Self {
        Self {
            session,
            weights: Some(weights),
        }
    }

    /// Reads the weights that are inputs anew.
    pub(super) fn read_weights(&mut self, memory: &Memory, path: &Path) -> Result<()> {
        match &mut self.weights {
            Some(weights) => weights.read(memory, path),
            None => Ok(()),
        }
    }

    /// Embeds the patches of any number of images. `patches` are f32 `[P, C*T*p*p]`, the images one after the
    /// other; the result is `[N, E]` in the order of the image tokens.
    pub(super) fn encode(
        &mut self,
        config: &VisionConfig,
        patches: &[f32],
        grids: &[Grid],
    ) -> Result<Vec<f32>> {
        let patch_dim = patch_dim(config);
        let num_patches: usize = grids.iter().map(Grid::num_patches).sum();
        check("patches", num_patches * patch_dim, patches.len())?;
        let mut embeds = Vec::new();
        let mut patches = patches;
        let mut grids = grids;
        while !grids.is_empty() {
            let (group, later) = grids.split_at(images_of_a_pass(grids));
            grids = later;
            let num_patches: usize = group.iter().map(Grid::num_patches).sum();
            let (now, later) = patches.split_at(num_patches * patch_dim);
            patches = later;
            if num_patches > 0 {
                self.encode_group(config, now, group, num_patches, &mut embeds)?;
            }
        }
        Ok(embeds)
    }

    /// [`Self::encode`] of images whose frames have equally many patches.
    fn encode_group(
        &mut self,
        config: &VisionConfig,
        patches: &[f32],
        grids: &[Grid],
        num_patches: usize,
        embeds: &mut Vec<f32>,
    ) -> Result<()> {
        const CONTEXT: &str = "embedding images";
        let plan = vision_plan(grids, config);
        // A grid that is no multiple of the merge size loses patches in the plan.
        check("patches of the grids", num_patches, plan.num_patches())?;
        let rope_positions = plan.rope_positions.as_flattened().to_vec();
        let windows = VisionPlan::padded(&plan.window_lengths);
        let window_shape = [plan.window_lengths.len(), windows.width];
        let images = VisionPlan::padded(&plan.image_lengths);
        let image_shape = [plan.image_lengths.len(), images.width];
        let num_tokens = plan.token_order.len();
        let (n, patch_dim) = (num_patches, patch_dim(config));

        let mut inputs = Bindings::new(&self.session, CONTEXT)?;
        if let Some(weights) = &self.weights {
            inputs.bind_weights(weights)?;
        }
        inputs.bind("pixel_values", [n, patch_dim], patches.to_vec())?;
        inputs.bind("patch_order", [n], plan.patch_order)?;
        inputs.bind("rope_positions", [n, 2], rope_positions)?;
        inputs.bind("window_slots", window_shape, windows.slots)?;
        inputs.bind("window_mask", window_shape, windows.mask)?;
        inputs.bind("window_unslot", [n], windows.unslot)?;
        inputs.bind("image_slots", image_shape, images.slots)?;
        inputs.bind("image_unslot", [n], images.unslot)?;
        inputs.bind("token_order", [num_tokens], plan.token_order)?;
        let output = inputs.run(&mut self.session, "image_embeds")?;
        match output.try_extract_tensor::<f32>() {
            Ok((_, values)) => embeds.extend_from_slice(values),
            Err(_) => embeds.extend(numbers(&output)?),
        }
        Ok(())
    }
}

/// Patches of a pass of the vision tower: enough for a full matrix product, few enough for the activations.
pub const PASS_PATCHES: usize = 4096;

/// How many of the first images go together: those of one size, so that no attention needs padding and none depends on its
/// neighbours, up to [`PASS_PATCHES`]; at least one.
fn images_of_a_pass(grids: &[Grid]) -> usize {
    let size = grids.first().map(|grid| (grid.h, grid.w));
    let mut patches = 0;
    let fits = |grid: &&Grid| {
        patches += grid.num_patches();
        Some((grid.h, grid.w)) == size && patches <= PASS_PATCHES
    };
    grids.iter().take_while(fits).count().max(1)
}

/// Values of one patch: channels x frames x side x side.
fn patch_dim(config: &VisionConfig) -> usize {
    config.in_channels * config.temporal_patch_size * config.patch_size * config.patch_size
}

/// Shapes of the passes over images, where they must be known beforehand.
pub(super) fn profile(config: &VisionConfig) -> Profile {
    let unit = config.spatial_merge_size * config.spatial_merge_size;
    let window = (config.window_size / config.patch_size).pow(2);
    let fixed = |size: usize| [size; 3];
    let patches = [unit, PASS_PATCHES / 4, 4 * PASS_PATCHES];
    let tokens = patches.map(|patches| patches / unit);
    let windows = [1, patches[1].div_ceil(window), tokens[2]];
    let slots = [unit, window, window];
    let images = [1, 1, PASS_PATCHES / unit];
    let shape = |name: &str, dims: &[Span]| (name.to_owned(), dims.to_vec());
    vec![
        shape("pixel_values", &[patches, fixed(patch_dim(config))]),
        shape("patch_order", &[patches]),
        shape("rope_positions", &[patches, fixed(2)]),
        shape("window_slots", &[windows, slots]),
        shape("window_mask", &[windows, slots]),
        shape("window_unslot", &[patches]),
        shape("image_slots", &[images, patches]),
        shape("image_unslot", &[patches]),
        shape("token_order", &[tokens]),
    ]
}
