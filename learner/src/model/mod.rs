//! Qwen2.5-VL in libtorch: the same layers, in the same order, as the ONNX graph of `models::graph`.
//!
//! # Layout
//!
//! | module | what it holds |
//! |---|---|
//! | [`parameters`] | every tensor under its published name |
//! | [`packed`], [`sets`] | a micro-batch as one flat list of tokens; prompts computed once per group; what is padded together |
//! | [`vision`], [`decoder`] | the two towers |
//! | [`layer`] | the layer that both are stacks of |
//! | [`attention`], [`mlp`], [`linear`], [`rotary`] | its parts |
//! | [`reach`], [`rows`], [`spans`] | who attends to whom: padded rows on a CPU, sequences end to end on a GPU |
//! | [`weight`] | what is trained in f32, and what products read of it in bf16 |
//! | [`lora`] | factors that are trained in place of matrices |
//! | [`selection`], [`patterns`] | what a run trains, by name |
//! | [`product`] | y = x W^T by the faster library |
//! | [`trace`], [`gradient`] | a pass that keeps little, and its way back without libtorch's graph |
//! | [`init`], [`folder`] | weights to start from nothing; weights as a Hugging Face folder |

pub mod attention;
pub mod decoder;
pub mod folder;
pub mod gradient;
pub mod init;
pub mod layer;
pub mod linear;
pub mod lora;
pub mod mlp;
pub mod packed;
pub mod parameters;
pub mod patterns;
pub mod product;
pub mod reach;
pub mod rotary;
pub mod rows;
pub mod selection;
pub mod sets;
pub mod spans;
pub mod trace;
pub mod vision;
pub mod weight;

use anyhow::Result;
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::image::Patches;
use tch::{Device, Kind, Tensor, no_grad};

pub use packed::{Group, MicroBatch, Packed, num_tokens};
pub use parameters::{Parameter, Parameters};
use reach::Form;
use trace::Keep;

/// The policy: parameters and the two towers that share them.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    device: Device,
    form: Form,
    parameters: Parameters,
    vision: vision::VisionTower,
    decoder: decoder::Decoder,
    keep: Keep,
}

/// A pass through both towers that can go back.
#[derive(Debug)]
pub struct Trace {
    decoder: decoder::Trace,
    /// The embeddings of the images with their graph, [tokens, E], and the way on from there.
    vision: Option<(Tensor, vision::Trace)>,
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

    /// The same, frozen, to be computed in `kind`; f32 values are not kept beside those.
    pub fn load_frozen(
        config: &ModelConfig,
        checkpoint: &Checkpoint,
        device: Device,
        kind: Kind,
    ) -> Result<Self> {
        let parameters = Parameters::load_frozen(config, checkpoint, device, kind)?;
        Self::new(config, parameters, device)
    }

    /// Builds the towers over existing parameters.
    pub fn new(config: &ModelConfig, parameters: Parameters, device: Device) -> Result<Self> {
        let head_dims = [config.text.head_dim, config.vision.head_dim];
        let form = Form::best(device, parameters.kind(), &head_dims);
        Self::with_form(config, parameters, device, form)
    }

    /// The same with a form of attention of one's choice.
    pub fn with_form(
        config: &ModelConfig,
        parameters: Parameters,
        device: Device,
        form: Form,
    ) -> Result<Self> {
        let vision = vision::VisionTower::new(&parameters, config, device, form)?;
        let decoder = decoder::Decoder::new(&parameters, config, device)?;
        Ok(Self {
            config: config.clone(),
            device,
            form,
            parameters,
            vision,
            decoder,
            keep: Keep::Products,
        })
    }

    /// The model without its adapters, over the same tensors: what it was before training.
    pub fn base(&self) -> Result<Self> {
        Self::with_form(&self.config, self.parameters.base(), self.device, self.form)
    }

    /// What the checkpoint's config.json says.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the tensors live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What products compute in.
    pub fn kind(&self) -> Kind {
        self.parameters.kind()
    }

    /// How attention is computed.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Lays out a micro-batch for this model.
    pub fn pack(&self, batch: &MicroBatch<'_>) -> Result<Packed> {
        Packed::of(batch, &self.config, self.device, self.form)
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
        self.keep = if yes { Keep::Inputs } else { Keep::Products };
    }

    /// Hidden states [N, E] of every packed token, after the last norm.
    pub fn hidden(&self, batch: &MicroBatch<'_>, packed: &Packed) -> Result<Tensor> {
        let image_embeds = self.embeds_of(batch)?;
        self.decoder.forward(packed, image_embeds.as_ref())
    }

    /// The same for training: without a graph, but with a way back.
    pub fn trace(&self, batch: &MicroBatch<'_>, packed: &Packed) -> Result<(Tensor, Trace)> {
        let images = images_of(batch);
        let vision = match !images.is_empty() && self.parameters.is_trained("visual.") {
            true => Some(self.vision.trace(&images, self.keep)?),
            false => None,
        };
        let frozen = match vision {
            Some(_) => None,
            None => self.embeds_of(batch)?,
        };
        let embeds = vision
            .as_ref()
            .map(|(embeds, _)| embeds)
            .or(frozen.as_ref());
        let (hidden, decoder) = no_grad(|| self.decoder.trace(packed, embeds, self.keep))?;
        Ok((hidden, Trace { decoder, vision }))
    }

    /// Whether a gradient by a trace's hidden states leads to anything that is trained.
    pub fn needs_gradient(&self, trace: &Trace) -> bool {
        self.decoder.needs_gradient(&trace.decoder)
    }

    /// The way back from a gradient by the hidden states of a trace, [N, E]: what is trained gets its gradient added.
    pub fn backward(&self, trace: Trace, packed: &Packed, by_hidden: &Tensor) -> Result<()> {
        let by_images = no_grad(|| self.decoder.backward(trace.decoder, packed, by_hidden))?;
        match (trace.vision, by_images) {
            (Some((embeds, vision)), Some(by_embeds)) => {
                self.vision.backward(vision, &embeds, &by_embeds)
            }
            _ => Ok(()),
        }
    }

    fn embeds_of(&self, batch: &MicroBatch<'_>) -> Result<Option<Tensor>> {
        let images = images_of(batch);
        if images.is_empty() {
            return Ok(None);
        }
        self.image_embeds(&images).map(Some)
    }

    /// hidden [n, E] -> logits, f32 [n, V].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.decoder.logits(hidden)
    }

    /// The way back from a gradient by the logits, f32 [n, V], to that by the hidden states [n, E] which they come from. The head
    /// gets its gradient added.
    pub fn logits_backward(&self, hidden: &Tensor, by_logits: Tensor) -> Result<Tensor> {
        no_grad(|| self.decoder.logits_backward(hidden, by_logits))
    }

    /// Whether the head is trained.
    pub fn is_head_trained(&self) -> bool {
        self.decoder.is_head_trained()
    }
}

fn images_of<'a>(batch: &MicroBatch<'a>) -> Vec<&'a Patches> {
    let groups = batch.groups.iter();
    groups.flat_map(|group| group.images).collect()
}
