//! The decoder: tokens and image embeddings to hidden states, and hidden states to logits.
//!
//! N tokens, E hidden, V vocab.

use anyhow::{Context, Result, ensure};
use models::config::{ModelConfig, TextConfig};
use models::names;
use tch::{Device, Tensor};

use super::attention::Attention;
use super::gradient;
use super::layer::Layer;
use super::linear::{Linear, RmsNorm};
use super::mlp::Mlp;
use super::packed::Packed;
use super::parameters::Parameters;
use super::product::Input;
use super::reach::Reach;
use super::rotary::Rotary;
use super::trace::{self, Keep, Stack};
use super::weight::Weight;

fn layer(parameters: &Parameters, name: &str, config: &TextConfig) -> Result<Layer> {
    let norm =
        |part: &str| RmsNorm::new(parameters, &format!("{name}.{part}"), config.rms_norm_eps);
    Ok(Layer {
        norm1: norm("input_layernorm")?,
        attention: Attention::text(parameters, &format!("{name}.self_attn"), config)?,
        norm2: norm("post_attention_layernorm")?,
        mlp: Mlp::new(parameters, &format!("{name}.mlp"), false)?,
    })
}

/// A pass that can go back.
#[derive(Debug)]
pub struct Trace {
    layers: trace::Trace,
    last: Tensor, // what the last norm read, [N, E]
    rotary: Rotary,
    /// Whether the way back has to reach the embeddings, of tokens or of images.
    needs_start: bool,
}

/// The whole decoder.
#[derive(Debug)]
pub struct Decoder {
    embed_tokens: Weight, // [V, E]
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear, // [V, E]; the embedding itself when tied
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
            .map(|i| layer(parameters, &format!("model.layers.{i}"), text))
            .collect::<Result<_>>()?;
        Ok(Self {
            embed_tokens: parameters.weight(names::EMBED_TOKENS)?,
            layers,
            norm: RmsNorm::new(parameters, "model.norm", text.rms_norm_eps)?,
            head: Linear::of(parameters.weight(head)?),
            config: text.clone(),
            device,
        })
    }

    /// Hidden states after the last norm, [N, E]. `image_embeds` [tokens, E] replaces the embeddings of the image pads.
    pub fn forward(&self, packed: &Packed, image_embeds: Option<&Tensor>) -> Result<Tensor> {
        let rotary = self.rotary(packed)?;
        let start = self.embed(packed, image_embeds)?;
        Ok(self
            .norm
            .forward(&self.stack(packed, &rotary).forward(start)))
    }

    /// The same without a graph; the way back goes on to `image_embeds` where those have one.
    pub fn trace(
        &self,
        packed: &Packed,
        image_embeds: Option<&Tensor>,
        keep: Keep,
    ) -> Result<(Tensor, Trace)> {
        let rotary = self.rotary(packed)?;
        let needs_images = image_embeds.is_some_and(Tensor::requires_grad);
        let needs_start = needs_images || self.embed_tokens.is_trained();
        let start = self.embed(packed, image_embeds)?;
        let (last, layers) = self.stack(packed, &rotary).trace(start, needs_start, keep);
        let hidden = self.norm.forward(&last);
        let trace = Trace {
            layers,
            last,
            rotary,
            needs_start,
        };
        Ok((hidden, trace))
    }

    /// Whether a gradient by the hidden states leads to anything that is trained.
    pub fn needs_gradient(&self, trace: &Trace) -> bool {
        trace.needs_start || trace.layers.needs_gradient() || self.norm.is_trained()
    }

    /// The way back from a gradient by the hidden states, [N, E]: that by the image embeddings [tokens, E], if the prompts
    /// have images and the way went down to them.
    pub fn backward(
        &self,
        trace: Trace,
        packed: &Packed,
        by_hidden: &Tensor,
    ) -> Result<Option<Tensor>> {
        let by_last = self.norm.backward(&trace.last, by_hidden)?;
        let stack = self.stack(packed, &trace.rotary);
        let mut by_start = stack.backward(trace.layers, by_last)?;
        if !trace.needs_start {
            return Ok(None);
        }
        let pads = &packed.image_tokens;
        let by_images = (pads.size1()? > 0).then(|| by_start.index_select(0, pads));
        if self.embed_tokens.is_trained() {
            let _ = by_start.f_index_fill_(0, pads, 0.0)?;
            let mut sum = gradient::of(self.embed_tokens.master())?;
            gradient::add_rows(&mut sum, &packed.token_ids, &by_start)?;
        }
        Ok(by_images)
    }

    fn stack<'a>(
        &'a self,
        packed: &'a Packed,
        rotary: &'a Rotary,
    ) -> Stack<'a, impl Fn(usize) -> &'a Reach> {
        Stack {
            layers: &self.layers,
            rotary,
            reach: |_| &packed.reach,
        }
    }

    fn rotary(&self, packed: &Packed) -> Result<Rotary> {
        Rotary::text(&packed.positions, &self.config, self.device)
    }

    /// What the first layer reads, [N, E].
    fn embed(&self, packed: &Packed, image_embeds: Option<&Tensor>) -> Result<Tensor> {
        let table = self.embed_tokens.in_graph();
        let mut x = Tensor::embedding(&table, &packed.token_ids, -1, false, false); // [N, E]
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

    /// hidden [n, E] -> logits, f32 [n, V].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.head.forward_wide(hidden)
    }

    /// The way back: dL/d hidden [n, E], given dL/d logits, f32 [n, V]. The head gets its gradient added.
    pub fn logits_backward(&self, hidden: &Tensor, by_logits: Tensor) -> Result<Tensor> {
        let dy = Input::new(&by_logits.to_kind(hidden.kind()));
        drop(by_logits);
        self.head.backward(&Input::new(hidden), &dy)
    }

    /// Whether the head is trained.
    pub fn is_head_trained(&self) -> bool {
        self.head.is_trained()
    }
}
