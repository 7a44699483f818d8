//! `[rollout]`: how responses are sampled and scored.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use serde::Serialize;

use super::values::{at_least, non_negative, positive, positive_fraction, switch};
use super::{DataArgs, VerifierArgs};
use crate::record::Precision;

/// Keys of the table `[rollout]`.
#[derive(Args, Serialize, Debug, Clone, PartialEq)]
pub struct RolloutArgs {
    /// What generates. `auto` takes the best engine whose libraries are installed; a named one never falls back
    #[arg(long, value_enum, default_value_t = Engine::Auto, help_heading = "Engine")]
    pub engine: Engine,

    /// Sequences decoded side by side; a finished one makes room for the next. Does not change the responses
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least(1), help_heading = "Engine")]
    pub rows: usize,

    /// Compute threads of the engine [default: all cores]
    #[arg(long, value_name = "N", value_parser = at_least(1), help_heading = "Engine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,

    /// Keep each of them on a core of its own, from the first that the process may use: several rollouts on a machine need taskset
    /// as well. Steadier beside other work, slower where they must share a core
    #[arg(long, value_parser = switch, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Engine")]
    pub pin_threads: bool,

    /// What the CPU engine computes in. int8 is faster; its logprobs are those of the rounded policy, and the records say so
    #[arg(long, value_enum, default_value_t = Precision::F32, help_heading = "Engine")]
    pub precision: Precision,

    /// How the trt engine's graph writes attention; decomposed is for TensorRT builds that refuse the other
    #[arg(long, value_name = "FORM", value_enum, default_value_t = TrtAttention::Native, help_heading = "Engine")]
    pub trt_attention: TrtAttention,

    /// Most memory for keys and values in MiB; a response waits until there is room for all it may come to say
    /// [default: what the rows can need, at most half of the free memory]
    #[arg(long, value_name = "MIB", value_parser = at_least(1), help_heading = "Engine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_cache_mib: Option<usize>,

    /// Size of this process's ring to the learner in MiB. A full ring makes the engine wait; nothing is lost
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = at_least(1), help_heading = "Engine")]
    pub ring_mib: usize,

    /// Data set: a .parquet or .jsonl file, a folder of them or a name on the hub; FOLDER@train takes a split, A=2,B mixes
    ///
    /// Several with commas between are mixed; a weight behind one, as in A=2,B@train=0.5, says how often an epoch visits each of
    /// its rows (1 without). OWNER/NAME:REVISION@train is a branch, a tag or a commit of a data set on the hub.
    #[arg(
        long,
        value_name = "DATA,...",
        default_value = "models/geo-mini/data/train.parquet"
    )]
    #[arg(value_hint = ValueHint::AnyPath, help_heading = "Data")]
    pub data: String,

    /// Data set for the learner's --validate-every, named like --data and read like it: every row once, in order, greedily
    #[arg(long, value_name = "DATA", value_hint = ValueHint::AnyPath, help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_data: Option<String>,

    /// Validate on its first N problems only [default: all of them]
    #[arg(long, value_name = "N", value_parser = at_least(1), help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_limit: Option<usize>,

    /// How its columns are read.
    #[command(flatten)]
    #[serde(flatten)]
    pub source: DataArgs,

    /// minijinja file of the user's message, printing `{{ problem }}` in its place; or `think-boxed`, or `none` for the
    /// problem as it is [default: what the model folder names, else think-boxed]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_template: Option<PathBuf>,

    /// Longest prompt in tokens, image tokens included. A longer one is skipped and counted, never cut
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = at_least(1), help_heading = "Data")]
    pub max_prompt_tokens: usize,

    /// Responses per prompt, G; 1 with the learner's --advantage remax or reinforce-plus-plus only
    #[arg(long, value_name = "G", default_value_t = 8, value_parser = at_least(1), help_heading = "Sampling")]
    pub group_size: usize,

    /// Divides the logits, in the rollout and in the learner alike
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = positive, help_heading = "Sampling")]
    pub temperature: f64,

    /// Sample from the smallest set of tokens whose probability reaches this mass; 1 = all
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = positive_fraction, help_heading = "Sampling")]
    pub top_p: f64,

    /// Sample from the K most likely tokens; 0 = all
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = at_least(0), help_heading = "Sampling")]
    pub top_k: usize,

    /// Longest response in tokens, the end token included
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = at_least(1), help_heading = "Sampling")]
    pub max_response_tokens: usize,

    /// With --max-staleness above 0: whether responses under way go on with new weights at once, or are finished with the
    /// old ones first. Strictly on-policy, weights only change between groups
    #[arg(long, value_enum, default_value_t = NewWeights::Continue, help_heading = "Sampling")]
    pub new_weights: NewWeights,

    /// With --new-weights finish: most decoding steps that new weights wait; what is unfinished then continues on them
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least(1), help_heading = "Sampling")]
    pub finish_steps: usize,

    /// How the image is taken away for the second scoring of a response (eq. 8)
    #[arg(long, value_enum, default_value_t = Blank::Empty, help_heading = "Token signals")]
    pub blank: Blank,

    /// Mass p of the nucleus over which a token's entropy is taken (eq. 5)
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = positive_fraction)]
    #[arg(help_heading = "Token signals")]
    pub nucleus_p: f64,

    /// Which entropy of the next-token distribution marks reasoning tokens (eq. 5)
    #[arg(long, value_enum, default_value_t = Entropy::Renormalised, help_heading = "Token signals")]
    pub entropy: Entropy,

    /// What is right.
    #[command(flatten)]
    #[serde(flatten)]
    pub verifier: VerifierArgs,

    /// Share of a right answer in the reward
    #[arg(long, value_name = "W", default_value_t = 1.0, value_parser = non_negative, help_heading = "Reward")]
    pub accuracy_weight: f64,

    /// Share of the form of --format-rule in the reward; the field often takes 0.1 with accuracy 0.9
    #[arg(long, value_name = "W", default_value_t = 0.0, value_parser = non_negative, help_heading = "Reward")]
    pub format_weight: f64,

    /// The last N tokens before --max-response-tokens are punished, linearly (DAPO's soft overlong punishment); 0 = off
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = at_least(0), help_heading = "Reward")]
    pub overlong_buffer: usize,

    /// Largest punishment for length, reached at --max-response-tokens
    #[arg(long, value_name = "W", default_value_t = 1.0, value_parser = non_negative, help_heading = "Reward")]
    pub overlong_penalty: f64,
}

/// What runs the ONNX graph.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// The best of the following whose libraries are installed: trt, cuda, cpu
    Auto,
    /// ONNX Runtime on the processor, f32
    Cpu,
    /// ONNX Runtime's CUDA provider, bf16; not yet run on a GPU
    Cuda,
    /// ONNX Runtime's TensorRT provider, bf16; not yet run on a GPU
    Trt,
}

/// Attention in a graph for TensorRT.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum TrtAttention {
    /// As one operator, which TensorRT has kernels for
    Native,
    /// As products and a softmax
    Decomposed,
}

/// What becomes of groups under way when new weights come.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum NewWeights {
    /// The next token of every response comes from the new weights
    Continue,
    /// They end with the weights they began with; no group begins meanwhile
    Finish,
}

/// The form of the prompt without its image, for `log pi(o_it | no image, q)` of eq. 8.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Blank {
    /// The image's start and end token with no image token between
    Empty,
    /// The image item left out and the chat template rendered again
    Drop,
    /// A black image of the same size
    Black,
    /// A grey image of the same size
    Grey,
}

/// The entropy H of eq. 5.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Entropy {
    /// Over the nucleus, its probabilities scaled to sum to 1
    Renormalised,
    /// The nucleus's terms of the sum as they are
    Raw,
    /// Over the whole vocabulary
    Full,
}
