//! The command line of `rollout data`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use shared::config::DataArgs;
use shared::dataset::Dataset;

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  rollout data hiyouga/geometry3k@train --model Qwen2.5-VL-7B-Instruct
  rollout data geometry3k=2,ViRL39K@train=0.5,mine.jsonl --image-dir images
  rollout data mine.jsonl --prompt-key text --answer-key gold --image-key pictures --json
  rollout data mine.jsonl --show 7

Exit code: 0 when a row can be used, 1 when none can or after an error or Ctrl-C, 2 when the command line is wrong.";

/// What is in a data set.
#[derive(Args, Debug, Clone)]
pub struct DataCommand {
    /// Data set: a .parquet or .jsonl file, a folder of them or a name on the hub; FOLDER@train takes a split, A=2,B mixes
    #[arg(value_name = "DATA,...", value_hint = ValueHint::AnyPath)]
    pub data: String,

    /// Columns and image sizes.
    #[command(flatten)]
    pub source: DataArgs,

    /// Qwen2.5-VL folder: prompts are counted in its tokens and images as it takes them [default: characters]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, help_heading = "Data")]
    pub model: Option<PathBuf>,

    /// minijinja file of the user's message, `think-boxed` or `none` [default: what the model folder names, else think-boxed]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Data")]
    pub prompt_template: Option<PathBuf>,

    /// With --model: longest prompt in tokens; longer ones count as skipped
    #[arg(long, value_name = "N", default_value_t = 2048, help_heading = "Data")]
    pub max_prompt_tokens: usize,

    /// Read the first N rows only
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub limit: Option<usize>,

    /// Print row N, counted from 0, as the model would get it
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "limit",
        help_heading = "Output"
    )]
    pub show: Option<usize>,

    /// Print JSON
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

impl DataCommand {
    /// How many rows are read.
    pub(super) fn num_rows(&self, dataset: &Dataset) -> usize {
        self.limit
            .map_or(dataset.len(), |limit| limit.min(dataset.len()))
    }
}
