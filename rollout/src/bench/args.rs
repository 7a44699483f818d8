//! The command line of `rollout bench`.

use clap::Args;
use models::made_up::{Shape, count};
use shared::record::Precision;

/// Speed of the engine on this machine: tokens per second of generation alone and of whole records, and their parts.
///
/// The prompts are made up: random tokens and an image of noise. Responses have exactly the length asked for.
/// `models random` makes a checkpoint of any size to measure with.
#[derive(Args, Debug, Clone)]
pub struct BenchArgs {
    /// What is measured.
    #[command(flatten)]
    pub shape: Shape,

    /// Responses decoded side by side
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count)]
    pub rows: usize,

    /// What the engine computes in
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,

    /// Sampling temperature
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    pub temperature: f64,

    /// Sample from the smallest set of tokens whose probability reaches this mass
    #[arg(long, value_name = "P", default_value_t = 0.99)]
    pub top_p: f64,

    /// Keep each compute thread on a core of its own
    #[arg(long)]
    pub pin_threads: bool,

    /// Also a step's time for 1 to --rows rows and for contexts of 128 to 2048 tokens
    #[arg(long)]
    pub curve: bool,

    /// Also what new weights cost while the engine decodes
    #[arg(long)]
    pub swap: bool,
}
