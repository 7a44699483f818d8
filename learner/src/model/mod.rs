//! Qwen2.5-VL in libtorch: the same layers, in the same order, as the ONNX graph of `models::graph`.
//!
//! # Layout
//!
//! | module | what it holds |
//! |---|---|
//! | [`parameters`] | every tensor under its published name |
//! | [`packed`], [`sets`] | a micro-batch as one flat list of tokens; prompts computed once per group; what is padded together |
//! | [`vision`], [`decoder`] | the two towers |
//! | [`attention`], [`mlp`], [`linear`], [`rotary`] | their layers |
//! | [`lora`] | factors that are trained in place of matrices |
//! | [`selection`], [`patterns`] | what a run trains, by name |
//! | [`product`] | y = x W^T by the faster library |
//! | [`trace`] | a pass that computes its layers again on the way back |
//! | [`init`], [`folder`] | weights to start from nothing; weights as a Hugging Face folder |

pub mod attention;
pub mod decoder;
pub mod folder;
pub mod init;
pub mod linear;
pub mod lora;
pub mod mlp;
pub mod packed;
pub mod parameters;
pub mod patterns;
pub mod product;
pub mod rotary;
pub mod selection;
pub mod sets;
pub mod trace;
pub mod vision;

use anyhow::Result;
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::image::Patches;
use tch::{Device, Tensor, no_grad};

pub use packed::{Group, MicroBatch, Packed, num_tokens};
pub use parameters::{Parameter, Parameters};
use trace::Trace;

/// The policy: parameters and the two towers that share them.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    device: Device,
    parameters: Parameters,
    vision: vision::VisionTower,
    decoder: decoder::Decoder,
    is_checkpointed: bool,
}

impl Model {
    /// Reads a checkpoint, widened to f32, all parameters trainable.
    pub fn load(config: &ModelConfig, checkpoint: &Checkpoint, device: Device) -> Result<Self> {
        Self::new(
            config,
            Parameters::load(config, checkpoint, device)?,
            device,
        )
    }

    /// Builds the towers over existing parameters.
    pub fn new(config: &ModelConfig, parameters: Parameters, device: Device) -> Result<Self> {
        let vision = vision::VisionTower::new(&parameters, config, device)?;
        let decoder = decoder::Decoder::new(&parameters, config, device)?;
        Ok(Self {
            config: config.clone(),
            device,
            parameters,
            vision,
            decoder,
            is_checkpointed: false,
        })
    }

    /// The model without its adapters, over the same tensors: what it was before training.
    pub fn base(&self) -> Result<Self> {
        Self::new(&self.config, self.parameters.base(), self.device)
    }

    /// What the checkpoint's config.json says.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the tensors live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The tensors by name, in publication order.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The same, to freeze, clear gradients or overwrite.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Image embeddings [tokens, E] of images in prompt order; without a graph when the vision tower is frozen.
    pub fn image_embeds(&self, images: &[&Patches]) -> Result<Tensor> {
        if self.parameters.is_trained("visual.") {
            self.vision.forward(images)
        } else {
            no_grad(|| self.vision.forward(images))
        }
    }

    /// Whether only the inputs of layers are remembered for the way back; see [`trace`].
    pub fn checkpoint_layers(&mut self, yes: bool) {
        self.is_checkpointed = yes;
    }

    /// Hidden states [N, E] of every packed token, after the last norm.
    pub fn hidden(&self, batch: &MicroBatch<'_>, packed: &Packed) -> Result<Tensor> {
        let image_embeds = self.embeds_of(batch)?;
        self.decoder.forward(packed, image_embeds.as_ref())
    }

    /// The same for training: with a graph, or with the trace of a pass whose layers are computed again on the way back.
    pub fn hidden_to_train(
        &self,
        batch: &MicroBatch<'_>,
        packed: &Packed,
    ) -> Result<(Tensor, Option<Trace>)> {
        if !self.is_checkpointed {
            return Ok((self.hidden(batch, packed)?, None));
        }
        let image_embeds = self.embeds_of(batch)?;
        let (hidden, trace) = self.decoder.trace(packed, image_embeds.as_ref())?;
        Ok((hidden, Some(trace)))
    }

    /// Goes on from the gradient by the hidden states of a trace, [N, E].
    pub fn backward(&self, trace: Trace, packed: &Packed, gradient: Tensor) -> Result<()> {
        self.decoder.backward(trace, packed, gradient)
    }

    fn embeds_of(&self, batch: &MicroBatch<'_>) -> Result<Option<Tensor>> {
        let images: Vec<&Patches> = batch.groups.iter().flat_map(|group| group.images).collect();
        if images.is_empty() {
            return Ok(None);
        }
        self.image_embeds(&images).map(Some)
    }

    /// Hidden states [N, E] with given image embeddings [tokens, E] in place of the tower's.
    pub fn hidden_with(&self, packed: &Packed, image_embeds: Option<&Tensor>) -> Result<Tensor> {
        self.decoder.forward(packed, image_embeds)
    }

    /// hidden [n, E] -> logits [n, V].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.decoder.logits(hidden)
    }
}
