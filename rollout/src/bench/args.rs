//! The command line of `rollout bench`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use models::made_up::ImageSize;
use shared::record::Precision;

/// Speed of the engine on this machine: tokens per second of generation alone and of whole records, and their parts.
///
/// The prompts are made up: random tokens and an image of noise. Responses have exactly the length asked for.
/// `models random` makes a checkpoint of any size to measure with.
#[derive(Args, Debug, Clone)]
pub struct BenchArgs {
    /// Hugging Face folder
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, default_value = "models/geo-mini/model")]
    pub model: PathBuf,

    /// Prompts of a round
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count)]
    pub prompts: usize,

    /// Responses per prompt
    #[arg(long, value_name = "G", default_value_t = 8, value_parser = count)]
    pub group_size: usize,

    /// Tokens of each response
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = count)]
    pub new_tokens: usize,

    /// Size of each prompt's image in pixels; none = text only
    #[arg(long, value_name = "WxH", default_value = "224x224")]
    pub image: ImageSize,

    /// Text tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = count)]
    pub prompt_tokens: usize,

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

    /// Compute threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = count)]
    pub threads: Option<usize>,

    /// Keep each compute thread on a core of its own
    #[arg(long)]
    pub pin_threads: bool,

    /// Rounds; the table shows medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count)]
    pub rounds: usize,

    /// Seed of prompts and sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Also a step's time for 1 to --rows rows and for contexts of 128 to 2048 tokens
    #[arg(long)]
    pub curve: bool,

    /// Also what new weights cost while the engine decodes
    #[arg(long)]
    pub swap: bool,

    /// Write everything to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
}

fn count(text: &str) -> Result<usize, String> {
    text.parse::<usize>()
        .ok()
        .filter(|count| (1..=1 << 20).contains(count))
        .ok_or_else(|| "expected a whole number of at least 1".to_owned())
}
