//! The vision tower on ONNX Runtime.
//!
//! `// P patches, N image tokens, E hidden`

use models::config::VisionConfig;
use models::image::Grid;
use models::positions::{VisionPlan, vision_plan};
use ort::session::Session;

use super::binding::Bindings;
use super::check;
use super::memory::numbers;
use super::provider::{Profile, Span};
use super::weights::Weights;
use crate::error::Result;

/// `vision.onnx`, open.
#[derive(Debug)]
pub(super) struct Vision {
    session: Session,
    /// Those that are inputs; none where the session has them itself.
    weights: Option<Weights>,
    /// Most images of a pass.
    max_images: usize,
}

impl Vision {
    /// A session that has its weights itself.
    pub(super) fn new(session: Session) -> Self {
        Self {
            session,
            weights: None,
            max_images: usize::MAX,
        }
    }

    /// A session whose weights are inputs, on a device: it embeds one image at a time, as all that it may ever be given
    /// must have room at once.
    pub(super) fn with_weights(session: Session, weights: Weights) -> Self {
        Self {
            session,
            weights: Some(weights),
            max_images: 1,
        }
    }

    /// The weights that are inputs.
    pub(super) fn weights_mut(&mut self) -> Option<&mut Weights> {
        self.weights.as_mut()
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
            let (group, later) = grids.split_at(images_of_a_pass(grids).min(self.max_images));
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

/// Shapes of passes over one image of up to so many patches, where they must be known beforehand.
pub(super) fn profile(config: &VisionConfig, max_patches: usize) -> Profile {
    let unit = config.spatial_merge_size * config.spatial_merge_size;
    let side = config.window_size / config.patch_size;
    let fixed = |size: usize| [size; 3];
    let most = max_patches.max(unit);
    let patches = [unit, PASS_PATCHES.min(most), most];
    let tokens = patches.map(|patches| patches / unit);
    let most = most_windows(most, side, config.spatial_merge_size);
    let windows = [1, patches[1].div_ceil(side * side).min(most), most];
    let slots = [unit, side * side, side * side];
    let shape = |name: &str, dims: &[Span]| (name.to_owned(), dims.to_vec());
    vec![
        shape("pixel_values", &[patches, fixed(patch_dim(config))]),
        shape("patch_order", &[patches]),
        shape("rope_positions", &[patches, fixed(2)]),
        shape("window_slots", &[windows, slots]),
        shape("window_mask", &[windows, slots]),
        shape("window_unslot", &[patches]),
        shape("image_slots", &[fixed(1), patches]),
        shape("image_unslot", &[patches]),
        shape("token_order", &[tokens]),
    ]
}

/// Most windows, of `side` by `side` patches, that an image of so many patches falls into: narrow ones fill theirs least. The
/// sides of an image are multiples of `merge`.
fn most_windows(patches: usize, side: usize, merge: usize) -> usize {
    let heights = (merge..=patches / merge).step_by(merge);
    let windows = heights.map(|height| {
        let width = patches / height / merge * merge;
        height.div_ceil(side) * width.div_ceil(side)
    });
    windows.max().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use models::config::ModelConfig;

    use super::*;

    #[test]
    fn every_image_fits_the_shapes_that_an_engine_is_built_for() {
        let model = ::tests::Fixtures::open().unwrap().model();
        let config = ModelConfig::from_dir(Path::new(&model)).unwrap().vision;
        let merge = config.spatial_merge_size;
        let most = 256;
        let profile = profile(&config, most);
        let span = |name: &str, dim: usize| {
            let (_, dims) = profile.iter().find(|(input, _)| input == name).unwrap();
            dims[dim]
        };
        for h in (merge..=most / merge).step_by(merge) {
            for w in (merge..=most / h).step_by(merge) {
                let plan = vision_plan(&[Grid { t: 1, h, w }], &config);
                let windows = VisionPlan::padded(&plan.window_lengths);
                let images = VisionPlan::padded(&plan.image_lengths);
                for (name, dim, size) in [
                    ("pixel_values", 0, h * w),
                    ("window_slots", 0, plan.window_lengths.len()),
                    ("window_slots", 1, windows.width),
                    ("image_slots", 0, plan.image_lengths.len()),
                    ("image_slots", 1, images.width),
                    ("token_order", 0, plan.token_order.len()),
                ] {
                    let [least, _, most] = span(name, dim);
                    assert!((least..=most).contains(&size), "{name} {dim}: {h} x {w}");
                }
            }
        }
        // The usual one is within the span.
        for (name, dims) in &profile {
            for [least, usual, most] in dims {
                assert!(least <= usual && usual <= most, "{name}");
            }
        }
    }
}
