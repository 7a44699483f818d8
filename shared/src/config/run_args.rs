//! `[run]`: what both programs must agree on.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde::Serialize;

use super::values::whole;

/// Keys of the table `[run]`.
#[derive(Args, Serialize, Debug, Clone, PartialEq)]
pub struct RunArgs {
    /// Folder of the run: rings, weights, checkpoints, metrics and config.toml live here
    ///
    /// `rollout` and `learner` meet in this folder; start them in any order.
    #[arg(long, value_name = "FOLDER", default_value = "runs/default", value_hint = ValueHint::DirPath)]
    #[arg(help_heading = "Run")]
    #[serde(skip)]
    pub run_dir: PathBuf,

    /// TOML file with the tables [run], [rollout] and [learner]
    ///
    /// Keys are the long flag names with `_` for `-`. The command line wins over this file, this file over
    /// the run folder's own config.toml, and that one over the defaults.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Run")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Qwen2.5-VL folder in the Hugging Face layout: the policy before step 0, and the frozen reference of the KL term
    #[arg(long, value_name = "FOLDER", default_value = "models/geo-mini/model", value_hint = ValueHint::DirPath)]
    #[arg(help_heading = "Run")]
    pub model: PathBuf,

    /// Seed of everything random: order of the prompts, sampling, ties
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole, help_heading = "Run")]
    pub seed: u64,
}
