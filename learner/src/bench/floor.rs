//! The matrix products that no update can leave out, and how fast this machine does such products.
//!
//! Counted: every linear layer of the decoder at every prompt token (once per group) and response token, the head at response
//! tokens whose weight is not zero, the vision tower's linear layers at every patch; forward, and backward by input
//! and by weight. Not counted: attention's scores, norms, the optimizer.
//!
//! `// N tokens, E hidden, F feed-forward`

use std::time::Instant;

use anyhow::Result;
use models::config::ModelConfig;
use models::names;
use models::processor::Processor;
use serde::Serialize;
use shared::measure::median;
use tch::{Device, Kind, Tensor, no_grad};

use crate::batch::Batch;
use crate::model::num_tokens;
use crate::model::product::Input;

/// Tokens of the products that are measured, at most.
const MAX_TOKENS: i64 = 4096;
/// Times that they are.
const REPEATS: usize = 5;

/// What an update has to compute.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Work {
    /// Response tokens.
    pub(super) response_tokens: usize,
    /// Of them, those whose weight is not zero.
    pub(super) weighted_tokens: usize,
    /// Tokens that the decoder computes, prompts once per group.
    pub(super) decoder_tokens: usize,
    /// Patches that the vision tower computes.
    pub(super) patches: usize,
    /// Floating-point operations of all counted products.
    pub(super) flops: f64,
}

impl Work {
    pub(super) fn new(
        processor: &Processor,
        batch: &Batch,
        weights: &[f32],
        is_vision_frozen: bool,
    ) -> Self {
        let config = &processor.config;
        let decoder_tokens = batch
            .groups
            .iter()
            .map(|group| {
                let responses = batch.responses[group.responses.clone()].iter();
                let lens = responses.map(|response| response.tokens.len());
                num_tokens(group.prompt_ids.len(), lens)
            })
            .sum();
        let images = batch.groups.iter().flat_map(|group| &group.images);
        let pixels: usize = images
            .map(|image| image.width as usize * image.height as usize)
            .sum();
        let patches = pixels / config.vision.patch_size.pow(2);
        let weighted_tokens = weights.iter().filter(|weight| **weight != 0.0).count();

        let matrices = names::tensors(config);
        let elements = |prefix: &str| -> f64 {
            let of_part = matrices
                .iter()
                .filter(|spec| spec.name.starts_with(prefix) && spec.shape.len() > 1);
            of_part.map(names::TensorSpec::len).sum::<usize>() as f64
        };
        // The merger works on merged tokens, a few percent of the tower's work: counted as if on patches over the merge.
        let merge = config.vision.spatial_merge_size.pow(2) as f64;
        let merger = elements("visual.merger.");
        let vision = (elements("visual.") - merger + merger / merge) * patches as f64;
        let decoder = elements("model.layers.") * decoder_tokens as f64;
        let head =
            (config.text.vocab_size * config.text.hidden_size) as f64 * weighted_tokens as f64;
        Self {
            response_tokens: batch.num_tokens(),
            weighted_tokens,
            decoder_tokens,
            patches,
            // Two operations a multiplication, three products a layer; where nothing is trained, the first of them.
            flops: 6.0 * (decoder + head) + if is_vision_frozen { 2.0 } else { 6.0 } * vision,
        }
    }
}

/// The widest layer's three products.
#[derive(Debug)]
pub(super) struct Floor {
    tokens: i64,
    hidden: i64,
    wide: i64,
    device: Device,
    kind: Kind,
}

impl Floor {
    pub(super) fn new(config: &ModelConfig, work: &Work, device: Device, kind: Kind) -> Self {
        let size = |size: usize| i64::try_from(size).unwrap_or(MAX_TOKENS);
        Self {
            tokens: size(work.decoder_tokens).clamp(1, MAX_TOKENS),
            hidden: size(config.text.hidden_size),
            wide: size(config.text.intermediate_size),
            device,
            kind,
        }
    }

    /// Operations per second, median.
    pub(super) fn rate(&self) -> Result<f64> {
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
