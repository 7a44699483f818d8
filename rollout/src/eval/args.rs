//! The command line of `rollout eval`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueHint};
use shared::config::Engine;
use shared::record::Precision;

/// Accuracy of a checkpoint on a data set, by the rule-based verifier.
#[derive(Args, Debug, Clone)]
pub struct EvalArgs {
    /// Data set: a parquet or .jsonl file or a folder of them, with an optional split as in FOLDER@test
    #[arg(long, value_name = "PATH[@SPLIT]", value_hint = ValueHint::AnyPath)]
    pub data: String,

    /// Hugging Face folder, or a .safetensors file beside one's config.json. With --run-dir its newest weights replace these
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, required_unless_present = "run_dir")]
    pub model: Option<PathBuf>,

    /// Evaluate the newest weights of this run
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub run_dir: Option<PathBuf>,

    /// The most likely token at each step (the default)
    #[arg(long, conflicts_with_all = ["temperature", "samples", "top_p", "top_k"])]
    pub greedy: bool,

    /// Sample at this temperature [default: 1 with --samples, --top-p or --top-k; else 0, which is greedy]
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub temperature: Option<f64>,

    /// Responses per problem: pass@1 to pass@K, each estimated without bias from all K
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = count)]
    pub samples: usize,

    /// Sample from the smallest set of tokens whose probability reaches this mass; 1 = all
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = fraction)]
    pub top_p: f64,

    /// Sample from the K most likely tokens; 0 = all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,

    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Evaluate the first N problems only
    #[arg(long, value_name = "N", value_parser = count)]
    pub limit: Option<usize>,

    /// minijinja file that turns `problem` into the user's message, as in training
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub prompt_template: Option<PathBuf>,

    /// Longest prompt in tokens; longer ones are skipped: counted, not part of the accuracy
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = count)]
    pub max_prompt_tokens: usize,

    /// Longest response in tokens; one that is cut there counts as it stands
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = count)]
    pub max_response_tokens: usize,

    /// What generates; a named engine never falls back
    #[arg(long, value_enum, default_value_t = Engine::Auto)]
    pub engine: Engine,

    /// What the CPU engine computes in
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,

    /// Responses decoded side by side
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count)]
    pub rows: usize,

    /// Most memory for keys and values in MiB [default: what the rows can need, at most half of the free memory]
    #[arg(long, value_name = "MIB", value_parser = count)]
    pub kv_cache_mib: Option<usize>,

    /// Compute threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = count)]
    pub threads: Option<usize>,

    /// Write the report as JSON, with every response, to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
}

impl EvalArgs {
    /// 0 = greedy.
    #[must_use]
    pub fn temperature(&self) -> f64 {
        let is_sampled = self.samples > 1 || self.top_p < 1.0 || self.top_k > 0;
        self.temperature
            .unwrap_or(if is_sampled { 1.0 } else { 0.0 })
    }

    /// What can be said before anything is read.
    pub(super) fn check(&self) -> Result<()> {
        if self.samples > 1 && self.temperature() == 0.0 {
            bail!(
                "--samples {} at --temperature 0 gives the same response each time; raise the temperature, or leave out --samples",
                self.samples
            );
        }
        let Some(path) = &self.json else {
            return Ok(());
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if path.is_dir() || !folder.is_dir() {
            bail!(
                "--json {}: give a file in a folder that is there",
                path.display()
            );
        }
        Ok(())
    }
}

fn temperature(text: &str) -> std::result::Result<f64, String> {
    number(text, |t| t >= 0.0, "a number of at least 0")
}

fn fraction(text: &str) -> std::result::Result<f64, String> {
    number(
        text,
        |p| p > 0.0 && p <= 1.0,
        "a number above 0 and at most 1",
    )
}

fn number(
    text: &str,
    holds: impl Fn(f64) -> bool,
    expected: &str,
) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && holds(x) => Ok(x),
        _ => Err(format!("expected {expected}")),
    }
}

fn count(text: &str) -> std::result::Result<usize, String> {
    match text.parse::<u32>() {
        Ok(n) if n > 0 => usize::try_from(n).map_err(|error| error.to_string()),
        _ => Err("expected a whole number of at least 1, below 2^32".to_owned()),
    }
}
