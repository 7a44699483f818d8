//! What a run takes of its device's memory, told from config.json before anything is loaded.
//!
//! Weights, gradients and moments are counted exactly. Activations are those of one micro-batch as large as it may be, half of its
//! tokens being of images unless one says otherwise; longer sequences that go alone take more.
//!
//! N tokens, P patches, E hidden, H heads, K kv heads, D head dim, F feed-forward, V vocab.

mod remedies;

use std::io::Write;

use anyhow::Result;
use clap::Args;
use models::config::ModelConfig;
use models::names;
use shared::config::{Device, Dtype, LearnerArgs, RunArgs, RunConfig};

use crate::device;
use crate::logprobs::positions_at_once;
use crate::memory::{self, gib};
use crate::model::parameters::stored_as;
use crate::model::selection::Selection;
pub use remedies::{check, remedies};

/// What is there before the first tensor: libtorch's code and threads; on a GPU its kernels, and room that its products work in.
const CPU_BASE: u64 = 330 << 20;
const GPU_BASE: u64 = 1200 << 20;
const F32_BYTES: u64 = 4;
/// Logits that exist at once beside the first ones: log-probabilities, and what is made of them.
const LOGIT_COPIES: u64 = 3;

/// What a run's parts would take of its device's memory, and whether it has room for them; nothing is loaded
///
/// Takes the options of a run, and its folder's config.toml. For a GPU that is not here it says what one would need.
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Examples:\n  learner plan --model FOLDER --device cuda\n  learner plan --model FOLDER --device cuda --checkpoint-layers --lora-rank 64"
)]
pub struct PlanArgs {
    /// Tokens of a micro-batch that are of images [default: half of --micro-batch-tokens]
    #[arg(long, value_name = "N")]
    pub image_tokens: Option<usize>,

    /// What both programs agree on.
    #[command(flatten)]
    pub run: RunArgs,

    /// The run.
    #[command(flatten)]
    pub learner: LearnerArgs,
}

/// How much goes through the network at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// N.
    pub tokens: usize,
    /// P.
    pub patches: usize,
}

/// Bytes, part by part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    device: Device,
    dtype: Dtype,
    load: Load,
    /// What it is, and its bytes; none is 0.
    pub parts: Vec<(&'static str, u64)>,
}

/// Prints the plan of a run; says what would help where there is not room enough.
pub fn run(args: &PlanArgs, config: &RunConfig, out: &mut dyn Write) -> Result<()> {
    let model = ModelConfig::from_dir(&config.run.model)?;
    let plan = Plan::of_run(config, &model, args.image_tokens)?;
    for line in plan.lines() {
        writeln!(out, "{line}")?;
    }
    let device = config.learner.device;
    let Some(room) = memory::room(device) else {
        writeln!(out, "{device} is not on this machine, or has no driver")?;
        return Ok(());
    };
    writeln!(
        out,
        "{:>12}  free on {device}, of {}",
        gib(room.free),
        gib(room.total)
    )?;
    if plan.total() > room.free {
        writeln!(out, "{}", remedies(config, &model, room.free)?)?;
    }
    Ok(())
}

impl Plan {
    /// Of a run; `image_tokens` of its largest micro-batch, or half of it.
    pub fn of_run(
        config: &RunConfig,
        model: &ModelConfig,
        image_tokens: Option<usize>,
    ) -> Result<Self> {
        let (args, rollout) = (&config.learner, &config.rollout);
        // A rollout batch may be smaller than a micro-batch may be.
        let of_group = rollout
            .group_size
            .saturating_mul(rollout.max_response_tokens);
        let of_group = of_group.saturating_add(rollout.max_prompt_tokens);
        let tokens = device::micro_batch_tokens(args.micro_batch_tokens, args.device)
            .min(args.batch_prompts.saturating_mul(of_group));
        let image_tokens = image_tokens.unwrap_or(tokens / 2).min(tokens);
        let load = Load {
            tokens,
            patches: image_tokens * model.vision.spatial_merge_size.pow(2),
        };
        let selection = Selection::new(model, args, config.run.seed)?;
        let has_reference = config.resolved().kl_coef > 0.0;
        Ok(Self::new(args, model, &selection, has_reference, load))
    }

    /// Of an update of `load`; `args` say where, in what, and what is kept.
    #[must_use]
    pub fn new(
        args: &LearnerArgs,
        model: &ModelConfig,
        selection: &Selection,
        has_reference: bool,
        load: Load,
    ) -> Self {
        let dtype = device::dtype(args.dtype, args.device);
        let (kind, target) = match dtype {
            Dtype::F32 => (tch::Kind::Float, args.device),
            Dtype::Bf16 => (tch::Kind::BFloat16, args.device),
        };
        let (mut trained, mut copies, mut frozen, mut all) = (0, 0, 0, 0);
        for spec in names::tensors(model) {
            let stored = stored_as(&spec, kind);
            let (count, bytes) = (spec.len() as u64, spec.len() as u64 * bytes_of(stored));
            all += bytes;
            match selection.is_trained(&spec.name) {
                true if stored == tch::Kind::Float => trained += count,
                true => (trained, copies) = (trained + count, copies + bytes),
                false => frozen += bytes,
            }
        }
        if let Some((settings, layers)) = selection.lora() {
            let factors = factor_elements(model, settings.rank, layers);
            trained += factors;
            if kind != tch::Kind::Float {
                copies += factors * bytes_of(kind);
            }
        }
        // With LoRA the reference is what is frozen anyway.
        let reference = if has_reference && selection.lora().is_none() {
            all
        } else {
            0
        };
        let is_of_vision = |name: &str| name.starts_with("visual.");
        let is_vision_trained = match selection.lora() {
            Some((_, layers)) => layers.iter().any(|layer| is_of_vision(layer)),
            None => names::tensors(model)
                .iter()
                .any(|spec| is_of_vision(&spec.name) && selection.is_trained(&spec.name)),
        };
        let width = bytes_of(kind);
        let text = text_layers(model, load.tokens as u64, width);
        let vision = vision_layers(model, load.patches as u64, width);
        let is_checkpointed = args.checkpoint_layers;
        let patches = load.patches as u64 * patch_values(model) * (2 * F32_BYTES + width);
        let mut parts = vec![
            ("weights that are trained, f32", F32_BYTES * trained),
            ("their copy that products read", copies),
            ("weights that are frozen", frozen),
            ("gradients, f32", F32_BYTES * trained),
            ("AdamW's two moments, f32", 2 * F32_BYTES * trained),
            ("reference model", reference),
            ("activations of the decoder", text.kept(is_checkpointed)),
            (
                "activations of the vision tower",
                patches
                    + if is_vision_trained {
                        vision.kept(is_checkpointed)
                    } else {
                        0
                    },
            ),
            (
                "what one layer works with",
                text.working.max(vision.working),
            ),
            (
                "logits of a chunk",
                logits(model, load.tokens as u64, target, width),
            ),
            (
                "libtorch itself",
                if args.device == Device::Cpu {
                    CPU_BASE
                } else {
                    GPU_BASE
                },
            ),
        ];
        parts.retain(|(_, bytes)| *bytes > 0);
        Self {
            device: args.device,
            dtype,
            load,
            parts,
        }
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }

    /// The table.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let Load { tokens, patches } = self.load;
        let head = format!(
            "an update in {} on {}, {tokens} tokens and {patches} patches at once:",
            self.dtype, self.device
        );
        let line = |name: &str, bytes: u64| format!("{:>12}  {name}", gib(bytes));
        let parts = self.parts.iter().map(|(name, bytes)| line(name, *bytes));
        std::iter::once(head)
            .chain(parts)
            .chain([line("in all", self.total())])
            .collect()
    }

    /// The same in one line.
    fn summary(&self, free: u64) -> String {
        let parts = self
            .parts
            .iter()
            .filter(|(_, bytes)| *bytes >= self.total() / 50);
        let parts: Vec<String> = parts
            .map(|(name, bytes)| format!("{name} {}", gib(*bytes)))
            .collect();
        format!(
            "memory: about {} of {} free on {}: {}",
            gib(self.total()),
            gib(free),
            self.device,
            parts.join("; ")
        )
    }
}

/// What the layers of a tower take.
#[derive(Debug, Clone, Copy)]
struct Layers {
    /// Their number.
    count: u64,
    /// What each of them reads.
    inputs: u64,
    /// That and the results of a layer's products.
    products: u64,
    /// What is there on a layer's way back alone.
    working: u64,
    /// Around the layers: what goes in, what comes out, and the gradient by it.
    ends: u64,
}

impl Layers {
    /// See [`crate::model::trace`].
    fn kept(&self, is_checkpointed: bool) -> u64 {
        self.ends
            + match is_checkpointed {
                true => self.count * self.inputs + self.products,
                false => self.count * self.products,
            }
    }

    /// Of layers over `n` tokens or patches, numbers of `width` bytes: E; H*D and K*D of a head; F.
    fn new(count: usize, n: u64, width: u64, [e, hd, kd, f]: [usize; 4]) -> Self {
        let [e, hd, kd, f] = [e, hd, kd, f].map(|size| size as u64);
        let inputs = n * e * width;
        // x, y after attention; q and what attention gave; k and v; gate and up.
        let products = n * (2 * e + 2 * hd + 2 * kd + 2 * f) * width;
        // silu, its gradient and two products of it, and an input in a library's own layout; norms work in f32.
        let mlp = n * (5 * f * width + 4 * e * F32_BYTES);
        let attention = n * ((6 * hd + 6 * kd) * width + 4 * e * F32_BYTES);
        Self {
            count: count as u64,
            inputs,
            products,
            working: mlp.max(attention),
            ends: n * e * (3 * width + F32_BYTES),
        }
    }
}

fn text_layers(model: &ModelConfig, tokens: u64, width: u64) -> Layers {
    let text = &model.text;
    let heads = [text.num_heads, text.num_kv_heads].map(|count| count * text.head_dim);
    let sizes = [text.hidden_size, heads[0], heads[1], text.intermediate_size];
    Layers::new(text.num_layers, tokens, width, sizes)
}

fn vision_layers(model: &ModelConfig, patches: u64, width: u64) -> Layers {
    let vision = &model.vision;
    let heads = vision.num_heads * vision.head_dim;
    let sizes = [vision.hidden_size, heads, heads, vision.intermediate_size];
    Layers::new(vision.depth, patches, width, sizes)
}

/// Numbers of a patch.
fn patch_values(model: &ModelConfig) -> u64 {
    let vision = &model.vision;
    (vision.in_channels * vision.temporal_patch_size * vision.patch_size.pow(2)) as u64
}

fn logits(model: &ModelConfig, tokens: u64, device: Device, width: u64) -> u64 {
    let device = match device {
        Device::Cpu => tch::Device::Cpu,
        Device::Cuda(number) => tch::Device::Cuda(usize::from(number)),
    };
    let vocab = model.text.vocab_size as u64;
    let at_once = positions_at_once(vocab.try_into().unwrap_or(i64::MAX), device);
    let positions = tokens.min(at_once.unsigned_abs());
    positions * vocab * (LOGIT_COPIES * F32_BYTES + width)
}

/// Numbers of all factors: rank times the sides of each matrix.
fn factor_elements(model: &ModelConfig, rank: usize, layers: &[String]) -> u64 {
    let specs = names::tensors(model);
    let is_adapted = |name: &str| {
        let layer = name.strip_suffix(".weight");
        layer.is_some_and(|layer| layers.iter().any(|adapted| adapted == layer))
    };
    let adapted = specs.iter().filter(|spec| is_adapted(&spec.name));
    adapted
        .map(|spec| (rank * spec.shape.iter().sum::<usize>()) as u64)
        .sum()
}

fn bytes_of(kind: tch::Kind) -> u64 {
    kind.elt_size_in_bytes() as u64
}
