//! The command line of `rollout eval`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueHint};
use shared::config::{DataArgs, Engine, GivenVerifier, TrtAttention, VerifierArgs};
use shared::record::Precision;

use super::benchmark::Benchmark;
use super::prompts::{ImageRule, Protocol};

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  rollout eval --model Qwen2.5-VL-7B-Instruct --data hiyouga/geometry3k@test
  rollout eval --model Qwen2.5-VL-7B-Instruct --benchmark mathverse --data mathverse/testmini.json --image-dir mathverse/images
  rollout eval --run-dir runs/mine --benchmark hallusionbench --data HallusionBench.json --samples 4 --json report.json
  rollout eval --model M --benchmark mathvista --data AI4Math/MathVista@testmini --protocol paper \\
    --judge-url http://localhost:8000/v1 --judge-model Qwen2.5-72B-Instruct
  rollout eval --rescore eval-mathverse.jsonl --verifier compat

Each response goes to the predictions file as soon as it is there: after Ctrl-C or a crash the same command goes on.
Exit code: 0 when all is done, 1 after an error or one Ctrl-C, 2 when the command line is wrong, 130 after a second Ctrl-C.";

/// Accuracy of a checkpoint on a data set or a benchmark, by the rule-based verifier.
#[derive(Args, Debug, Clone)]
pub struct EvalArgs {
    /// Data set: a parquet or .jsonl file, a folder of them or a name on the hub; FOLDER@test takes a split. With --benchmark its
    /// published file, or the folder with it
    #[arg(long, value_name = "PATH[@SPLIT]", value_hint = ValueHint::AnyPath, required_unless_present = "rescore")]
    pub data: Option<String>,

    /// Hugging Face folder, or a .safetensors file beside one's config.json. With --run-dir its newest weights replace these
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, required_unless_present_any = ["run_dir", "rescore"])]
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

    /// minijinja file of the user's message, `think-boxed` or `none` [default: what the model folder names, else think-boxed]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub prompt_template: Option<PathBuf>,

    /// Longest prompt in tokens. A longer one is skipped: counted, not part of the accuracy; of a benchmark it is wrong
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = count)]
    pub max_prompt_tokens: usize,

    /// Longest response in tokens; one that is cut there counts as it stands
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = count)]
    pub max_response_tokens: usize,

    /// What generates; a named engine never falls back
    #[arg(long, value_enum, default_value_t = Engine::Auto)]
    pub engine: Engine,

    /// How the trt engine's graph writes attention
    #[arg(long, value_name = "FORM", value_enum, default_value_t = TrtAttention::Native)]
    pub trt_attention: TrtAttention,

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

    /// File of JSON lines for every prompt, response and verdict, which the same command goes on from [default with --benchmark:
    /// eval-BENCHMARK.jsonl]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub predictions: Option<PathBuf>,

    /// Score a predictions file again, in place or into --predictions, by its own verifier or the one that is given: needs no
    /// model and generates nothing
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["data", "model", "run_dir", "benchmark", "limit"])]
    pub rescore: Option<PathBuf>,

    /// A published benchmark: its prompts, its scoring, its figures
    #[arg(long, value_enum, help_heading = "Benchmark")]
    pub benchmark: Option<Benchmark>,

    /// How questions are put
    #[arg(long, value_enum, default_value_t = Protocol::Model, help_heading = "Benchmark")]
    pub protocol: Protocol,

    /// What is done to images before the model's own resizing [default: as the protocol]
    #[arg(long, value_enum, help_heading = "Benchmark")]
    pub image_rule: Option<ImageRule>,

    /// HallusionBench: ask the questions without an image as well, as its authors do (1129 instead of 951)
    #[arg(long, help_heading = "Benchmark")]
    pub with_text_rows: bool,

    /// What is right.
    #[command(flatten)]
    pub verifier: VerifierArgs,

    /// Which of its options stand on the command line.
    #[arg(skip)]
    pub given: GivenVerifier,

    /// The judge.
    #[command(flatten)]
    pub judge: JudgeArgs,

    /// Columns and image sizes.
    #[command(flatten)]
    pub source: DataArgs,
}

/// A model that is asked about what the rules hold wrong.
#[derive(Args, Debug, Clone)]
pub struct JudgeArgs {
    /// OpenAI-compatible endpoint that is asked about responses that the rules hold wrong, as in http://localhost:8000/v1
    #[arg(
        long,
        value_name = "URL",
        requires = "judge_model",
        help_heading = "Judge"
    )]
    pub judge_url: Option<String>,

    /// Name of the judge's model
    #[arg(
        long,
        value_name = "NAME",
        requires = "judge_url",
        help_heading = "Judge"
    )]
    pub judge_model: Option<String>,

    /// Environment variable with the judge's key; without one no key is sent
    #[arg(
        long,
        value_name = "NAME",
        default_value = "OPENAI_API_KEY",
        help_heading = "Judge"
    )]
    pub judge_key_env: String,

    /// Requests in flight
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_most_256, help_heading = "Judge")]
    pub judge_parallel: usize,

    /// Time limit of a request, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600), help_heading = "Judge")]
    pub judge_timeout: u64,

    /// Tries per response; a pause before each further one, twice as long each time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_most_256, help_heading = "Judge")]
    pub judge_tries: usize,
}

impl EvalArgs {
    /// 0 = greedy.
    #[must_use]
    pub fn temperature(&self) -> f64 {
        let is_sampled = self.samples > 1 || self.top_p < 1.0 || self.top_k > 0;
        self.temperature
            .unwrap_or(if is_sampled { 1.0 } else { 0.0 })
    }

    /// Where predictions go; none when nobody asked for them.
    pub(super) fn predictions_path(&self) -> Option<PathBuf> {
        let default =
            |benchmark: Benchmark| PathBuf::from(format!("eval-{}.jsonl", benchmark.name()));
        self.predictions
            .clone()
            .or_else(|| self.benchmark.map(default))
    }

    /// What is done to images.
    pub(super) fn image_rule(&self) -> ImageRule {
        self.image_rule.unwrap_or(match self.protocol {
            Protocol::Model => ImageRule::Model,
            Protocol::Paper | Protocol::PaperUser => ImageRule::Paper,
        })
    }

    /// What can be said before anything is read.
    pub(super) fn check(&self) -> Result<()> {
        if self.samples > 1 && self.temperature() == 0.0 {
            bail!(
                "--samples {} at --temperature 0 gives the same response each time; raise the temperature, or leave out --samples",
                self.samples
            );
        }
        if self.protocol != Protocol::Model && self.prompt_template.is_some() {
            bail!(
                "--prompt-template and --protocol both say how questions are put: give one of them"
            );
        }
        let files = [
            ("--json", self.json.clone()),
            ("--predictions", self.predictions_path()),
        ];
        for (flag, path) in files {
            let Some(path) = path else {
                continue;
            };
            let folder = match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            if path.is_dir() || !folder.is_dir() {
                bail!(
                    "{flag} {}: give a file in a folder that is there",
                    path.display()
                );
            }
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

fn at_most_256(text: &str) -> std::result::Result<usize, String> {
    count(text)
        .ok()
        .filter(|n| *n <= 256)
        .ok_or_else(|| "expected a whole number from 1 to 256".to_owned())
}

fn count(text: &str) -> std::result::Result<usize, String> {
    match text.parse::<u32>() {
        Ok(n) if n > 0 => usize::try_from(n).map_err(|error| error.to_string()),
        _ => Err("expected a whole number of at least 1, below 2^32".to_owned()),
    }
}
