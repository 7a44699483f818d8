//! Writes model folders: ONNX ones (the program behind scripts/export_onnx.sh), and checkpoints of random weights.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use models::export::{Outcome, Source, export};
use models::graph::{Cuda, CudaCache, Elements, Form, Operators, Trt};
use models::random::{self, Plan, SHARD_BYTES};

/// Qwen2.5-VL as files.
#[derive(Debug, Parser)]
#[command(name = "models", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a checkpoint as an ONNX folder: vision.onnx, decoder.onnx, their weights, tokenizer and configuration
    ///
    /// The graphs for a device (--form trt, cuda) have their weights as inputs: the metadata of such an input names the bytes
    /// of model.safetensors that it is made from, f32 there whatever the input's own type.
    Export {
        /// Model folder or .safetensors file [default: the run's newest weights]
        checkpoint: Option<PathBuf>,
        /// Folder to write [default: `onnx`, `onnx-trt` or `onnx-cuda` in the model folder, or in the run folder for a
        /// run's weights]
        out: Option<PathBuf>,
        /// Run folder, for the defaults
        #[arg(long, default_value = "runs/default")]
        run_dir: PathBuf,
        #[command(flatten)]
        target: Target,
    },
    /// Write a checkpoint of random weights: config.json, model.safetensors, tokenizer and processor files
    ///
    /// Matrices are normal with the configuration's initializer_range (0.02 if it has none), biases a tenth of that, norms 1.
    /// The same seed gives the same bytes on any number of threads. A checkpoint above 5 GB is written in shards with
    /// an index, as on the hub.
    Random {
        /// config.json of a Qwen2.5-VL, or its folder; the tokenizer and processor files beside it are copied
        #[arg(long)]
        config: PathBuf,
        /// Fixes every weight
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Type that the weights are stored in
        #[arg(long, value_enum, default_value_t = Dtype::F32)]
        dtype: Dtype,
        /// Folder to write; it must be new or empty
        out: PathBuf,
    },
}

/// What the graphs are for. An option that the form has no use for is refused.
#[derive(Debug, Args)]
struct Target {
    /// What the graphs are for
    #[arg(long, value_enum, default_value_t = Runtime::Cpu)]
    form: Runtime,
    /// Type of weights, activations and cache in a graph for a device [default: bf16]
    #[arg(long, value_enum)]
    dtype: Option<DeviceDtype>,
    /// Candidates per row that a device gives for sampling, 1 to 3839; 0 = logits alone [default: 256]
    #[arg(long)]
    candidates: Option<usize>,
    /// Tokens that a row's cache holds, prompt and response together (trt) [default: 4096]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_SLOTS))]
    slots: Option<u32>,
    /// Attention and rotary embedding in smaller operators, for a TensorRT that refuses them whole (trt)
    #[arg(long)]
    decomposed: bool,
    /// How the cache lies (cuda) [default: blocks]
    #[arg(long, value_enum)]
    cache: Option<CacheLayout>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runtime {
    /// Any ONNX Runtime, f32
    Cpu,
    /// TensorRT 10.15 or 10.16, as one engine: standard operators alone
    Trt,
    /// ONNX Runtime's CUDA provider
    Cuda,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DeviceDtype {
    Bf16,
    F32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CacheLayout {
    /// In blocks that sequences share (PagedAttention)
    Blocks,
    /// A buffer per row (GroupQueryAttention)
    Rows,
}

/// More tokens than any such model reads.
const MAX_SLOTS: i64 = 1 << 20;
const DEFAULT_SLOTS: u32 = 4096;
/// 64 rows of them are 128 KiB.
const DEFAULT_CANDIDATES: usize = 256;

impl Target {
    fn graphs(&self) -> anyhow::Result<Form> {
        let is_device = self.form != Runtime::Cpu;
        self.refuse("--dtype", self.dtype.is_some() && !is_device)?;
        self.refuse("--candidates", self.candidates.is_some() && !is_device)?;
        self.refuse("--slots", self.slots.is_some() && self.form != Runtime::Trt)?;
        self.refuse("--decomposed", self.decomposed && self.form != Runtime::Trt)?;
        self.refuse(
            "--cache",
            self.cache.is_some() && self.form != Runtime::Cuda,
        )?;
        let elements = match self.dtype {
            None | Some(DeviceDtype::Bf16) => Elements::Bf16,
            Some(DeviceDtype::F32) => Elements::F32,
        };
        let is_paged = !matches!(self.cache, Some(CacheLayout::Rows));
        anyhow::ensure!(
            self.form != Runtime::Cuda || elements == Elements::Bf16 || !is_paged,
            "PagedAttention takes no f32: leave --dtype out, or give --cache rows"
        );
        let candidates = self.candidates.unwrap_or(DEFAULT_CANDIDATES);
        let candidates = Some(candidates).filter(|&candidates| candidates > 0);
        Ok(match self.form {
            Runtime::Cpu => Form::Portable,
            Runtime::Trt => Form::Trt(Trt {
                elements,
                operators: if self.decomposed {
                    Operators::Decomposed
                } else {
                    Operators::Native
                },
                slots: self.slots.unwrap_or(DEFAULT_SLOTS) as usize,
                candidates,
            }),
            Runtime::Cuda => Form::Cuda(Cuda {
                elements,
                cache: match self.cache {
                    None | Some(CacheLayout::Blocks) => CudaCache::Blocks,
                    Some(CacheLayout::Rows) => CudaCache::Rows,
                },
                candidates,
            }),
        })
    }

    fn refuse(&self, option: &str, is_out_of_place: bool) -> anyhow::Result<()> {
        let form = self.form.to_possible_value();
        let form = form.map(|form| form.get_name().to_owned());
        anyhow::ensure!(
            !is_out_of_place,
            "{option} means nothing for --form {}: leave it out",
            form.unwrap_or_default()
        );
        Ok(())
    }

    fn folder(&self) -> &'static str {
        match self.form {
            Runtime::Cpu => "onnx",
            Runtime::Trt => "onnx-trt",
            Runtime::Cuda => "onnx-cuda",
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    Bf16,
    F16,
}

impl From<Dtype> for random::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
        }
    }
}

/// Checkpoints from this size on show how far they are.
const LARGE_BYTES: u64 = 1_000_000_000;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Export {
            checkpoint,
            out,
            run_dir,
            target,
        } => run_export(checkpoint, out, run_dir, &target),
        Command::Random {
            config,
            seed,
            dtype,
            out,
        } => run_random(
            &Plan {
                config,
                seed,
                dtype: dtype.into(),
                shard_bytes: SHARD_BYTES,
            },
            &out,
        ),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing to be done when even that cannot be written.
            let _ = writeln!(std::io::stderr(), "models: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_export(
    checkpoint: Option<PathBuf>,
    out: Option<PathBuf>,
    run_dir: PathBuf,
    target: &Target,
) -> anyhow::Result<()> {
    let form = target.graphs()?;
    let (source, home) = match checkpoint {
        Some(checkpoint) => {
            let source = Source::of_checkpoint(&checkpoint, &run_dir)?;
            let home = if checkpoint.is_dir() {
                checkpoint
            } else {
                run_dir
            };
            (source, home)
        }
        None => (Source::newest_of_run(&run_dir)?, run_dir),
    };
    let out = out.unwrap_or_else(|| home.join(target.folder()));
    let outcomes = export(&source, &out, form)
        .with_context(|| format!("exporting {}", source.weights.display()))?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{} -> {}", source.weights.display(), out.display())?;
    for (name, outcome) in outcomes {
        let outcome = match outcome {
            Outcome::Kept => "unchanged",
            Outcome::Written => "written",
            Outcome::Linked => "linked",
        };
        writeln!(stdout, "  {name}: {outcome}")?;
    }
    Ok(())
}

fn run_random(plan: &Plan, out: &Path) -> anyhow::Result<()> {
    let written = random::write(plan, out, progress())?;
    writeln!(
        std::io::stdout(),
        "{}: {} parameters, {:.1} MB of weights, seed {}",
        out.display(),
        written.parameters,
        megabytes(written.bytes),
        plan.seed
    )?;
    Ok(())
}

/// Tells on stderr how much of a large checkpoint is written: in one line on a terminal, else in a line per tenth.
fn progress() -> impl FnMut(u64, u64) {
    let mut shown = 0;
    let is_terminal = std::io::stderr().is_terminal();
    let step = if is_terminal { 1 } else { 10 };
    move |done, total| {
        let percent = done * 100 / total.max(1);
        if total < LARGE_BYTES || percent < shown + step {
            return;
        }
        shown = percent - percent % step;
        let (start, end) = match (is_terminal, done == total) {
            (false, _) => ("", "\n"),
            (true, false) => ("\r", ""),
            (true, true) => ("\r", "\n"),
        };
        let total = megabytes(total);
        // A progress that nobody can read is no reason to stop.
        let _ = write!(
            std::io::stderr(),
            "{start}models: {shown} % of {total:.0} MB{end}"
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown to a digit")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
