//! Writes ONNX folders: the program behind scripts/export_onnx.sh.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use models::export::{Outcome, Source, export};

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
    Export {
        /// Model folder or .safetensors file [default: the run's newest weights]
        checkpoint: Option<PathBuf>,
        /// Folder to write [default: `onnx` in the model folder, or in the run folder for a run's weights]
        out: Option<PathBuf>,
        /// Run folder, for the defaults
        #[arg(long, default_value = "runs/default")]
        run_dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let Command::Export {
        checkpoint,
        out,
        run_dir,
    } = Arguments::parse().command;
    match run(checkpoint, out, run_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing to be done when even that cannot be written.
            let _ = writeln!(std::io::stderr(), "models: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(checkpoint: Option<PathBuf>, out: Option<PathBuf>, run_dir: PathBuf) -> anyhow::Result<()> {
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
    let out = out.unwrap_or_else(|| home.join("onnx"));
    let outcomes =
        export(&source, &out).with_context(|| format!("exporting {}", source.weights.display()))?;
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
