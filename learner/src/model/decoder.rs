//! The decoder: tokens and image embeddings to hidden states, and hidden states to logits.
//!
//! N tokens, E hidden, V vocab.

use anyhow::{Context, Result, ensure};
use models::config::{ModelConfig, TextConfig};
use models::names;
use tch::{Device, Tensor};

use super::attention::TextAttention;
use super::linear::RmsNorm;
use super::mlp::Mlp;
use super::packed::{Packed, Rows};
use super::parameters::Parameters;
use super::product::Input;
use super::rotary::Rotary;
use super::trace::Trace;

/// Norm, attention, norm, feed-forward, each added to its input.
#[derive(Debug)]
struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: TextAttention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl DecoderLayer {
    fn new(parameters: &Parameters, name: &str, config: &TextConfig) -> Result<Self> {
        Ok(Self {
            input_layernorm: RmsNorm::new(
                parameters,
                &format!("{name}.input_layernorm"),
                config.rms_norm_eps,
            )?,
            self_attn: TextAttention::new(parameters, &format!("{name}.self_attn"), config)?,
            post_attention_layernorm: RmsNorm::new(
                parameters,
                &format!("{name}.post_attention_layernorm"),
                config.rms_norm_eps,
            )?,
            mlp: Mlp::new(parameters, &format!("{name}.mlp"), false)?,
        })
    }

    /// x [N, E] -> [N, E].
    fn forward(&self, x: &Tensor, rotary: &Rotary, rows: &[Rows]) -> Tensor {
        let x = x + self
            .self_attn
            .forward(&self.input_layernorm.forward(x), rotary, rows);
        &x + self.mlp.forward(&self.post_attention_layernorm.forward(&x))
    }
}

/// The whole decoder.
#[derive(Debug)]
pub struct Decoder {
    embed_tokens: Tensor, // [V, E]
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: Tensor, // [V, E]; the embedding itself when tied
    config: TextConfig,
    device: Device,
}

impl Decoder {
    /// The decoder whose tensors start with `model.`, and its head.
    pub fn new(parameters: &Parameters, config: &ModelConfig, device: Device) -> Result<Self> {
        let text = &config.text;
        let head = if config.tie_word_embeddings {
            names::EMBED_TOKENS
        } else {
            names::LM_HEAD
        };
        let layers = (0..text.num_layers)
            .map(|i| DecoderLayer::new(parameters, &format!("model.layers.{i}"), text))
            .collect::<Result<_>>()?;
        Ok(Self {
            embed_tokens: parameters.get(names::EMBED_TOKENS)?,
            layers,
            norm: RmsNorm::new(parameters, "model.norm", text.rms_norm_eps)?,
            lm_head: parameters.get(head)?,
            config: text.clone(),
            device,
        })
    }

    /// Hidden states after the last norm, [N, E]. `image_embeds` [tokens, E] replaces the embeddings of the image pads.
    pub fn forward(&self, packed: &Packed, image_embeds: Option<&Tensor>) -> Result<Tensor> {
        let rotary = self.rotary(packed)?;
        let start = self.embed(packed, image_embeds)?;
        let stages = 0..self.num_stages();
        Ok(stages.fold(start, |x, stage| self.stage(stage, &x, &rotary, packed)))
    }

    /// The same, remembering only what each layer reads.
    pub fn trace(&self, packed: &Packed, image_embeds: Option<&Tensor>) -> Result<(Tensor, Trace)> {
        let rotary = self.rotary(packed)?;
        let start = self.embed(packed, image_embeds)?;
        Ok(Trace::forward(start, self.num_stages(), |stage, x| {
            self.stage(stage, x, &rotary, packed)
        }))
    }

    /// The way back from a gradient by the hidden states of [`Self::trace`], [N, E].
    pub fn backward(&self, trace: Trace, packed: &Packed, gradient: Tensor) -> Result<()> {
        let rotary = self.rotary(packed)?;
        trace.backward(gradient, |stage, x| self.stage(stage, x, &rotary, packed))
    }

    /// The layers, and the last norm.
    fn num_stages(&self) -> usize {
        self.layers.len() + 1
    }

    /// x [N, E] -> [N, E].
    fn stage(&self, index: usize, x: &Tensor, rotary: &Rotary, packed: &Packed) -> Tensor {
        match self.layers.get(index) {
            Some(layer) => layer.forward(x, rotary, &packed.rows),
            None => self.norm.forward(x),
        }
    }

    fn rotary(&self, packed: &Packed) -> Result<Rotary> {
        Rotary::text(&packed.positions, &self.config, self.device)
    }

    /// What the first layer reads, [N, E].
    fn embed(&self, packed: &Packed, image_embeds: Option<&Tensor>) -> Result<Tensor> {
        let mut x = Tensor::embedding(&self.embed_tokens, &packed.token_ids, -1, false, false); // [N, E]
        let pads = packed.image_tokens.size1()?;
        if pads > 0 {
            let features =
                image_embeds.context("the prompt has image pads, but no image came with it")?;
            let (got, _) = features.size2()?;
            ensure!(
                got == pads,
                "the images give {got} tokens, the prompts have {pads} image pads"
            );
            x = x.index_copy(0, &packed.image_tokens, features);
        }
        Ok(x)
    }

    /// hidden [n, E] -> logits [n, V].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        Input::new(hidden).times(&self.lm_head, None)
    }
}
