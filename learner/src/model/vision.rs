//! The vision tower: patches to image embeddings.
//!
//! N patches of all images of the call, E hidden, O hidden size of the decoder. Between the first reordering and the last
//! one the patches lie in window order.

use anyhow::{Result, ensure};
use models::config::{ModelConfig, VisionConfig};
use models::image::{Grid, Patches};
use models::names;
use models::positions::vision_plan;
use tch::{Device, Tensor, no_grad};

use super::attention::Attention;
use super::gradient;
use super::layer::Layer;
use super::linear::{Linear, RmsNorm};
use super::mlp::Mlp;
use super::parameters::Parameters;
use super::product::Input;
use super::reach::{Form, Reach};
use super::rotary::Rotary;
use super::trace::{self, Keep, Stack};
use super::weight::Weight;

/// Epsilon of the tower's norms; Qwen2.5-VL has no key for it.
const NORM_EPS: f64 = 1e-6;

fn block(parameters: &Parameters, name: &str, config: &VisionConfig) -> Result<Layer> {
    let norm = |part: &str| RmsNorm::new(parameters, &format!("{name}.{part}"), NORM_EPS);
    Ok(Layer {
        norm1: norm("norm1")?,
        attention: Attention::vision(parameters, &format!("{name}.attn"), config)?,
        norm2: norm("norm2")?,
        mlp: Mlp::new(parameters, &format!("{name}.mlp"), true)?,
    })
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

/// Where the patches of a pass lie, and what sees what.
#[derive(Debug)]
struct Layout {
    rotary: Rotary,
    windows: Reach,
    whole_images: Reach,
    patch_order: Tensor, // [N]
    token_order: Tensor, // [N/merge^2]
}

/// A pass that can go back.
#[derive(Debug)]
pub struct Trace {
    layout: Layout,
    start: Tensor, // what the first block read, with its graph, [N, E]
    blocks: trace::Trace,
    last: Tensor, // what the last block gave, [N, E]
}

/// The whole tower.
#[derive(Debug)]
pub struct VisionTower {
    patch_embed: Weight, // [E, C*T*P*P]
    blocks: Vec<Layer>,
    merger: PatchMerger,
    config: VisionConfig,
    device: Device,
    form: Form,
}

impl VisionTower {
    /// The tower whose tensors start with `visual.`.
    pub fn new(
        parameters: &Parameters,
        config: &ModelConfig,
        device: Device,
        form: Form,
    ) -> Result<Self> {
        let vision = &config.vision;
        // A convolution whose stride is its kernel is a linear layer over the patch.
        let patch_embed = parameters.weight(names::PATCH_EMBED)?;
        let blocks = (0..vision.depth)
            .map(|i| block(parameters, &format!("visual.blocks.{i}"), vision))
            .collect::<Result<_>>()?;
        Ok(Self {
            patch_embed,
            blocks,
            merger: PatchMerger::new(parameters, vision)?,
            config: vision.clone(),
            device,
            form,
        })
    }

    /// Image embeddings of all images, [tokens, O], in the order of the images and of their pads in the prompt.
    pub fn forward(&self, images: &[&Patches]) -> Result<Tensor> {
        let layout = self.layout(images)?;
        let start = self.embed(images, &layout)?;
        let last = self.stack(&layout).forward(start);
        Ok(self.merge(&last, &layout))
    }

    /// The same with a graph that begins after the blocks; [`Self::backward`] goes on from there.
    pub fn trace(&self, images: &[&Patches], keep: Keep) -> Result<(Tensor, Trace)> {
        let layout = self.layout(images)?;
        let start = self.embed(images, &layout)?;
        let needs_start = start.requires_grad();
        let (last, blocks) =
            no_grad(|| self.stack(&layout).trace(start.detach(), needs_start, keep));
        let last = last.set_requires_grad(blocks.needs_gradient());
        let embeds = self.merge(&last, &layout);
        let trace = Trace {
            layout,
            start,
            blocks,
            last,
        };
        Ok((embeds, trace))
    }

    /// The way back from a gradient by the embeddings of [`Self::trace`], [tokens, O].
    pub fn backward(&self, trace: Trace, embeds: &Tensor, by_embeds: &Tensor) -> Result<()> {
        gradient::into_graph(embeds, by_embeds)?;
        if trace.blocks.needs_gradient() {
            let stack = self.stack(&trace.layout);
            let by_start = no_grad(|| stack.backward(trace.blocks, trace.last.grad()))?;
            if trace.start.requires_grad() {
                gradient::into_graph(&trace.start, &by_start)?;
            }
        }
        Ok(())
    }

    fn layout(&self, images: &[&Patches]) -> Result<Layout> {
        let grids: Vec<Grid> = images.iter().map(|image| image.grid).collect();
        let plan = vision_plan(&grids, &self.config);
        let index = |values: &[i64]| Tensor::from_slice(values).to_device(self.device);
        Ok(Layout {
            rotary: Rotary::vision(&plan.rope_positions, &self.config, self.device)?,
            windows: Reach::of_spans(&plan.window_lengths, self.device, self.form)?,
            whole_images: Reach::of_spans(&plan.image_lengths, self.device, self.form)?,
            patch_order: index(&plan.patch_order),
            token_order: index(&plan.token_order),
        })
    }

    fn stack<'a>(&'a self, layout: &'a Layout) -> Stack<'a, impl Fn(usize) -> &'a Reach> {
        let reach = |index| match self.config.full_attention_blocks.contains(&index) {
            true => &layout.whole_images,
            false => &layout.windows,
        };
        Stack {
            layers: &self.blocks,
            rotary: &layout.rotary,
            reach,
        }
    }

    /// What the first block reads, [N, E].
    fn embed(&self, images: &[&Patches], layout: &Layout) -> Result<Tensor> {
        let pixels = self.pixels(images)?.index_select(0, &layout.patch_order); // [N, C*T*P*P]
        let matrix = self.patch_embed.in_graph().flatten(1, -1);
        Ok(Input::new(&pixels).times(&matrix, None))
    }

    /// What the last block gives [N, E] -> [N/merge^2, O].
    fn merge(&self, x: &Tensor, layout: &Layout) -> Tensor {
        self.merger.forward(x).index_select(0, &layout.token_order)
    }

    /// The patches of all images under each other, of the kind that the tower computes in, [N, C*T*P*P].
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
            .to_device(self.device)
            .to_kind(self.patch_embed.kind()))
    }
}
