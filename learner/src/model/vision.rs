//! The vision tower: patches to image embeddings.
//!
//! N patches of all images of the call, E hidden, O hidden size of the decoder. Between the first reordering and the last
//! one the patches lie in window order.

use anyhow::{Result, ensure};
use models::config::{ModelConfig, VisionConfig};
use models::image::{Grid, Patches};
use models::names;
use models::positions::vision_plan;
use tch::{Device, Tensor};

use super::attention::{VisionAttention, VisionRows};
use super::linear::{Linear, RmsNorm};
use super::mlp::Mlp;
use super::parameters::Parameters;
use super::product::Input;
use super::rotary::Rotary;

/// Epsilon of the tower's norms; Qwen2.5-VL has no key for it.
const NORM_EPS: f64 = 1e-6;

/// Norm, attention, norm, feed-forward, each added to its input.
#[derive(Debug)]
struct VisionBlock {
    norm1: RmsNorm,
    attn: VisionAttention,
    norm2: RmsNorm,
    mlp: Mlp,
}

impl VisionBlock {
    fn new(parameters: &Parameters, name: &str, config: &VisionConfig) -> Result<Self> {
        Ok(Self {
            norm1: RmsNorm::new(parameters, &format!("{name}.norm1"), NORM_EPS)?,
            attn: VisionAttention::new(parameters, &format!("{name}.attn"), config)?,
            norm2: RmsNorm::new(parameters, &format!("{name}.norm2"), NORM_EPS)?,
            mlp: Mlp::new(parameters, &format!("{name}.mlp"), true)?,
        })
    }

    /// x [N, E] -> [N, E].
    fn forward(&self, x: &Tensor, rotary: &Rotary, rows: &[VisionRows]) -> Tensor {
        let x = x + self.attn.forward(&self.norm1.forward(x), rotary, rows);
        &x + self.mlp.forward(&self.norm2.forward(&x))
    }
}

/// Joins merge x merge neighbouring patches into one embedding of the decoder's width.
#[derive(Debug)]
struct PatchMerger {
    ln_q: RmsNorm,
    up: Linear,
    down: Linear,
    merged_size: i64,
}

impl PatchMerger {
    fn new(parameters: &Parameters, config: &VisionConfig) -> Result<Self> {
        Ok(Self {
            ln_q: RmsNorm::new(parameters, "visual.merger.ln_q", NORM_EPS)?,
            up: Linear::new(parameters, "visual.merger.mlp.0", true)?,
            down: Linear::new(parameters, "visual.merger.mlp.2", true)?,
            merged_size: i64::try_from(config.hidden_size * config.spatial_merge_size.pow(2))?,
        })
    }

    /// x [N, E] -> [N/merge^2, O].
    fn forward(&self, x: &Tensor) -> Tensor {
        let merged = self.ln_q.forward(x).view([-1, self.merged_size]);
        self.down.forward(&self.up.forward(&merged).gelu("none"))
    }
}

/// The whole tower.
#[derive(Debug)]
pub struct VisionTower {
    patch_embed: Tensor, // [E, C*T*P*P]
    blocks: Vec<VisionBlock>,
    merger: PatchMerger,
    config: VisionConfig,
    device: Device,
}

impl VisionTower {
    /// The tower whose tensors start with `visual.`.
    pub fn new(parameters: &Parameters, config: &ModelConfig, device: Device) -> Result<Self> {
        let vision = &config.vision;
        // A convolution whose stride is its kernel is a linear layer over the patch.
        let patch_embed = parameters.get(names::PATCH_EMBED)?;
        let blocks = (0..vision.depth)
            .map(|i| VisionBlock::new(parameters, &format!("visual.blocks.{i}"), vision))
            .collect::<Result<_>>()?;
        Ok(Self {
            patch_embed,
            blocks,
            merger: PatchMerger::new(parameters, vision)?,
            config: vision.clone(),
            device,
        })
    }

    /// Image embeddings of all images, [tokens, O], in the order of the images and of their pads in the prompt.
    pub fn forward(&self, images: &[&Patches]) -> Result<Tensor> {
        let grids: Vec<Grid> = images.iter().map(|image| image.grid).collect();
        let plan = vision_plan(&grids, &self.config);
        let index = |values: &[i64]| Tensor::from_slice(values).to_device(self.device);
        let rotary = Rotary::vision(&plan.rope_positions, &self.config, self.device)?;
        let windows = VisionRows::sets(&plan.window_lengths, self.device)?;
        let whole_images = VisionRows::sets(&plan.image_lengths, self.device)?;

        let pixels = self
            .pixels(images)?
            .index_select(0, &index(&plan.patch_order)); // [N, C*T*P*P]
        let mut x = Input::new(&pixels).times(&self.patch_embed.flatten(1, -1), None); // [N, E]
        for (i, block) in self.blocks.iter().enumerate() {
            let rows = if self.config.full_attention_blocks.contains(&i) {
                &whole_images
            } else {
                &windows
            };
            x = block.forward(&x, &rotary, rows);
        }
        Ok(self
            .merger
            .forward(&x)
            .index_select(0, &index(&plan.token_order))) // [N/merge^2, O]
    }

    /// The patches of all images under each other, [N, C*T*P*P].
    fn pixels(&self, images: &[&Patches]) -> Result<Tensor> {
        let width = self.config.in_channels
            * self.config.temporal_patch_size
            * self.config.patch_size.pow(2);
        let mut parts = Vec::with_capacity(images.len());
        for image in images {
            let count = image.grid.t * image.grid.h * image.grid.w;
            ensure!(
                image.values.len() == count * width,
                "image of {count} patches: expected {} values, got {}",
                count * width,
                image.values.len()
            );
            parts.push(Tensor::from_slice(&image.values));
        }
        Ok(Tensor::cat(&parts, 0)
            .view([-1, i64::try_from(width)?])
            .to_device(self.device))
    }
}
