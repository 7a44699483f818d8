//! The matrix products that no update can leave out, and how fast this machine does such products.
//!
//! Counted: every linear layer of the decoder at every prompt token (once per group) and response token, the head at response
//! tokens that have a gradient, the vision tower's linear layers at every patch; forward, and backward by input and (where it
//! is trained) by weight. Responses without any such token are left out. Not counted: attention's scores, norms, adapters,
//! the optimizer.
//!
//! `// N tokens, E hidden, F feed-forward`

use std::time::Instant;

use anyhow::Result;
use models::config::ModelConfig;
use models::image::RgbImage;
use models::names;
use serde::Serialize;
use shared::measure::median;
use tch::{Device, Kind, Tensor, no_grad};

use crate::batch::Batch;
use crate::model::product::Input;
use crate::model::{Parameter, Parameters, num_tokens};

/// Tokens of the products that are measured, at most.
const MAX_TOKENS: i64 = 4096;
/// Times that they are.
const REPEATS: usize = 5;

/// What one pass over a batch has to compute.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Work {
    /// Response tokens of the batch.
    pub(super) response_tokens: usize,
    /// Of them, those that have a gradient.
    pub(super) weighted_tokens: usize,
    /// Tokens that the decoder computes, prompts once per group.
    pub(super) decoder_tokens: usize,
    /// Patches that the vision tower computes.
    pub(super) patches: usize,
    /// Floating-point operations of all counted products.
    pub(crate) flops: f64,
}

impl Work {
    /// `has_gradient` says it of a token, by the numbers of its response and of the token in the batch.
    pub(crate) fn new(
        config: &ModelConfig,
        parameters: &Parameters,
        batch: &Batch,
        has_gradient: &dyn Fn(usize, usize) -> bool,
    ) -> Self {
        let (mut weighted_tokens, mut decoder_tokens, mut pixels) = (0, 0, 0);
        for group in &batch.groups {
            let mut lens = Vec::new();
            for response in group.responses.clone() {
                let tokens = batch.responses[response].tokens.clone();
                let len = tokens.len();
                let count = tokens
                    .filter(|&token| has_gradient(response, token))
                    .count();
                weighted_tokens += count;
                lens.extend((count > 0).then_some(len));
            }
            if lens.is_empty() {
                continue;
            }
            decoder_tokens += num_tokens(group.prompt_ids.len(), lens.into_iter());
            let of_image = |image: &RgbImage| image.width as usize * image.height as usize;
            pixels += group.images.iter().map(of_image).sum::<usize>();
        }
        let patches = pixels / config.vision.patch_size.pow(2);

        // Two operations a multiplication. Below what is trained nothing goes back.
        let (forward, by_input) = (2.0, 2.0);
        let is_tower_trained = parameters.is_trained("visual.");
        let operations = |parameter: &Parameter| -> f64 {
            let by_weight = match parameter.tensor.requires_grad() {
                true => 2.0,
                false => 0.0,
            };
            let is_below = parameter.spec.name.starts_with("visual.") && !is_tower_trained;
            let back = if is_below { 0.0 } else { by_input + by_weight };
            (forward + back) * parameter.spec.len() as f64
        };
        let per_token = |prefix: &str| -> f64 {
            let is_matrix = |parameter: &&Parameter| {
                parameter.spec.name.starts_with(prefix) && parameter.spec.shape.len() > 1
            };
            parameters.iter().filter(is_matrix).map(operations).sum()
        };
        // The merger works on merged tokens, a few percent of the tower's work: counted as if on patches over the merge.
        let merge = config.vision.spatial_merge_size.pow(2) as f64;
        let merger = per_token("visual.merger.");
        let vision = per_token("visual.") - merger + merger / merge;
        let head = match per_token(names::LM_HEAD) {
            0.0 => per_token(names::EMBED_TOKENS), // tied
            head => head,
        };
        let flops = per_token("model.layers.") * decoder_tokens as f64
            + head * weighted_tokens as f64
            + vision * patches as f64;
        Self {
            response_tokens: batch.num_tokens(),
            weighted_tokens,
            decoder_tokens,
            patches,
            flops,
        }
    }
}

/// The widest layer's three products.
#[derive(Debug)]
pub(crate) struct Floor {
    tokens: i64,
    hidden: i64,
    wide: i64,
    device: Device,
    kind: Kind,
}

impl Floor {
    /// For so many tokens at once, within bounds.
    pub(crate) fn new(config: &ModelConfig, num_tokens: usize, device: Device, kind: Kind) -> Self {
        let size = |size: usize| i64::try_from(size).unwrap_or(MAX_TOKENS);
        Self {
            tokens: size(num_tokens).clamp(1, MAX_TOKENS),
            hidden: size(config.text.hidden_size),
            wide: size(config.text.intermediate_size),
            device,
            kind,
        }
    }

    /// Operations per second, median.
    pub(crate) fn rate(&self) -> Result<f64> {
        let (tokens, hidden, wide) = (self.tokens, self.hidden, self.wide);
        // Made anew and dropped again: they are not part of an update's memory.
        let noise = |shape: [i64; 2]| Tensor::randn(shape, (self.kind, self.device));
        let (x, x_t) = (noise([tokens, hidden]), noise([hidden, tokens]));
        let (weight, weight_t) = (noise([wide, hidden]), noise([hidden, wide]));
        let (y, y_t) = (noise([tokens, wide]), noise([wide, tokens]));
        let flops = 6.0 * tokens as f64 * hidden as f64 * wide as f64;
        let mut rates = Vec::with_capacity(REPEATS);
        for _ in 0..=REPEATS {
            let start = Instant::now();
            let sum = no_grad(|| -> Result<f64> {
                let forward = Input::new(&x).times(&weight, None);
                let by_input = Input::new(&y).times(&weight_t, None);
                let by_weight = Input::new(&y_t).times(&x_t, None);
                // A number from each: a device is waited for.
                Ok([forward, by_input, by_weight]
                    .iter()
                    .map(|t| t.double_value(&[0, 0]))
                    .sum())
            })?;
            std::hint::black_box(sum);
            rates.push(flops / start.elapsed().as_secs_f64());
        }
        Ok(median(rates.split_off(1))) // the first one warmed up
    }
}
