//! `[learner]`: the objective, the token weights, the optimizer.

use clap::{Args, ValueEnum, ValueHint};
use serde::Serialize;

use super::device::{Device, Dtype};
use super::names::Names;
use super::objective_args::ObjectiveArgs;
use super::token_args::TokenArgs;
use super::values::{at_least, below_one, non_negative, positive, switch, whole};

/// Keys of the table `[learner]`. `None` where the default depends on `--algo`: see [`super::resolve`].
#[derive(Args, Serialize, Debug, Clone, PartialEq)]
pub struct LearnerArgs {
    /// What is maximised.
    #[command(flatten)]
    #[serde(flatten)]
    pub objective: ObjectiveArgs,

    /// What each token counts in it.
    #[command(flatten)]
    #[serde(flatten)]
    pub tokens: TokenArgs,

    /// Prompts per rollout batch, counted after the group filter
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least(1), help_heading = "Batch")]
    pub batch_prompts: usize,

    /// Prompts per optimizer step [default: --batch-prompts, strictly on-policy]
    #[arg(long, value_name = "N", value_parser = at_least(1), help_heading = "Batch")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mini_batch_prompts: Option<usize>,

    /// Passes over each rollout batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least(1), help_heading = "Batch")]
    pub update_epochs: usize,

    /// How often a rollout batch may ask for groups until the group filter has left enough; a step then trains on what
    /// there is, and a run that has nothing left stops and says why
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least(1), help_heading = "Batch")]
    pub sampling_rounds: usize,

    /// Policy versions that a response may be behind the learner; 0 = strictly on-policy
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole, help_heading = "Batch")]
    pub max_staleness: u64,

    /// Rollout batches to train on
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = whole, help_heading = "Batch")]
    pub steps: u64,

    /// Learning rate
    #[arg(long, value_name = "X", default_value_t = 1e-6, value_parser = non_negative, help_heading = "Optimizer")]
    pub lr: f64,

    /// How the learning rate changes over the run
    #[arg(long, value_enum, default_value_t = Schedule::Constant, help_heading = "Optimizer")]
    pub schedule: Schedule,

    /// Optimizer steps over which the learning rate rises from 0
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole, help_heading = "Optimizer")]
    pub warmup_steps: u64,

    /// AdamW's decoupled weight decay
    #[arg(long, value_name = "X", default_value_t = 0.01, value_parser = non_negative, help_heading = "Optimizer")]
    pub weight_decay: f64,

    /// AdamW's decay of the mean of the gradients
    #[arg(long, value_name = "X", default_value_t = 0.9, value_parser = below_one, help_heading = "Optimizer")]
    pub adam_beta1: f64,

    /// AdamW's decay of the mean of their squares
    #[arg(long, value_name = "X", default_value_t = 0.999, value_parser = below_one, help_heading = "Optimizer")]
    pub adam_beta2: f64,

    /// Largest norm of the whole gradient
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = positive, help_heading = "Optimizer")]
    pub grad_clip: f64,

    /// Leave tensors as they are: published names, separated by commas. `visual.blocks.0` stands for all below it, a
    /// pattern with `*` for what it matches as a whole (`*.bias`)
    #[arg(long, value_name = "PATTERNS", help_heading = "Optimizer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Names>,

    /// Leave the vision tower as it is: --freeze visual
    #[arg(long, value_parser = switch, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Optimizer")]
    pub freeze_vision: bool,

    /// Train two factors of this rank beside each matrix instead of the matrices, which saves their gradients and optimizer
    /// state; what is published is merged. 0 = off
    #[arg(long, value_name = "R", default_value_t = 0, value_parser = at_least(0), help_heading = "LoRA")]
    pub lora_rank: usize,

    /// The factors' product counts alpha / rank [default: twice the rank]
    #[arg(long, value_name = "X", value_parser = positive, help_heading = "LoRA")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_alpha: Option<f64>,

    /// Layers that get factors: ends of their names, separated by commas, such as q_proj,v_proj; in both towers unless
    /// frozen [default: all linear layers of the language model]
    #[arg(long, value_name = "NAMES", help_heading = "LoRA")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_targets: Option<Names>,

    /// Where the learner computes: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu, help_heading = "Machine")]
    pub device: Device,

    /// What the learner computes in; the weights that are trained, their gradients and the optimizer stay f32
    /// [default: f32 on the CPU, bf16 elsewhere]
    #[arg(long, value_enum, value_name = "TYPE", help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,

    /// Compute threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = at_least(1), help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,

    /// Tokens that pass through the network at once. Memory and speed only: the result does not depend on it
    /// [default: 2048 on the CPU, 16384 elsewhere]
    #[arg(long, value_name = "N", value_parser = at_least(1), help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch_tokens: Option<usize>,

    /// Keep only what each layer reads and compute the layers again on the way back: less memory, about a third
    /// more time, the same gradients
    #[arg(long, value_parser = switch, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Machine")]
    pub checkpoint_layers: bool,

    /// Write a checkpoint every N rollout batches, and at the end; 0 = only at the end
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole, help_heading = "Checkpoints")]
    pub save_every: u64,

    /// How many checkpoints stay on disk
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least(1), help_heading = "Checkpoints")]
    pub keep_checkpoints: usize,

    /// Go on from the run folder's newest checkpoint, bit for bit
    #[arg(long, value_parser = switch, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Checkpoints")]
    #[serde(skip)]
    pub resume: bool,

    /// Have a rollout answer its --validation-data greedily every N rollout batches, as well as before the first one and after
    /// the last; the best checkpoint so far stays, as checkpoints/best. 0 = off
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole, help_heading = "Checkpoints")]
    pub validate_every: u64,

    /// Shell command to run after each publication of weights, such as scripts/export_onnx.sh
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString, help_heading = "Checkpoints")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_sync: Option<String>,
}

/// Learning rate over the optimizer steps.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays
    Constant,
    /// Falls to 0 on a line
    Linear,
    /// Falls to 0 on half a cosine
    Cosine,
}
