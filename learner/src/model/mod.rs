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
pub mod vision;

use anyhow::Result;
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::image::Patches;
use tch::{Device, Tensor, no_grad};

pub use packed::{Group, MicroBatch, Packed, num_tokens};
pub use parameters::{Parameter, Parameters};

/// The policy: parameters and the two towers that share them.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    device: Device,
    parameters: Parameters,
    vision: vision::VisionTower,
    decoder: decoder::Decoder,
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

    /// Hidden states [N, E] of every packed token, after the last norm.
    pub fn hidden(&self, batch: &MicroBatch<'_>, packed: &Packed) -> Result<Tensor> {
        let images: Vec<&Patches> = batch.groups.iter().flat_map(|group| group.images).collect();
        let image_embeds = if images.is_empty() {
            None
        } else {
            Some(self.image_embeds(&images)?)
        };
        self.decoder.forward(packed, image_embeds.as_ref())
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
