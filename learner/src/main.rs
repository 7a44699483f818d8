//! `learner`: trains the policy of a run; `learner doctor`: says what is installed.

use std::io::stdout;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use learner::{allocator, bench, doctor, memory, plan, read, run, sft, signals};
use shared::config::{self, LearnerArgs, Program, RunArgs};
use shared::telemetry;

/// Trains Qwen2.5-VL by reinforcement learning with token reweighting, on what `rollout` generates for it
///
/// Start `rollout` with the same --run-dir, before or after. Ctrl-C finishes the step, saves and ends; --resume goes on.
#[derive(Parser, Debug)]
#[command(
    name = "learner",
    version,
    args_conflicts_with_subcommands = true,
    args_override_self = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    learner: LearnerArgs,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Says what is installed, what would work, and what to do about what does not
    Doctor,
    /// Measures what an update takes on this machine
    Bench(Box<bench::BenchArgs>),
    /// Says what a run would take of its device's memory, part by part; loads nothing
    Plan(Box<plan::PlanArgs>),
    /// Teaches worked solutions: supervised training on the `solution` column of a data set
    Sft(sft::SftArgs),
    /// Teaches the vision tower to read numbers, before anything else is trained
    Read(read::ReadArgs),
    /// One bf16 product: dies where the system has no AMX for it
    #[command(name = doctor::PROBE_COMMAND, hide = true)]
    ProbeBf16,
}

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<ExitCode> {
    allocator::keep_memory();
    allocator::bound_product_caches();
    let matches = Cli::command().get_matches();
    match Cli::from_arg_matches(&matches)?.command {
        Some(Command::Doctor) => doctor::report(&mut stdout().lock())?,
        Some(Command::ProbeBf16) if doctor::probe_bf16() => {}
        Some(Command::ProbeBf16) => return Ok(ExitCode::FAILURE),
        Some(Command::Bench(args)) => {
            let stop = signals::watch()?;
            let telemetry = telemetry::init("learner")?;
            memory::explained(|| bench::bench(&args, &telemetry, &stop, &mut stdout().lock()))?;
        }
        Some(Command::Plan(args)) => {
            // The options of a run, so its files count, too.
            let own = matches.subcommand_matches("plan").unwrap_or(&matches);
            let config = config::load(own, Program::Learner)?;
            plan::run(&args, &config, &mut stdout().lock())?;
        }
        Some(Command::Sft(args)) => sft::run(&args, &telemetry::init("learner")?)?,
        Some(Command::Read(args)) => read::run(&args, &telemetry::init("learner")?)?,
        None => {
            let config = config::load(&matches, Program::Learner)?;
            let telemetry = telemetry::init("learner")?;
            let stop = signals::watch()?;
            memory::explained(|| run::run(&config, &stop, &telemetry))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(
    clippy::print_stderr,
    reason = "the last word of the program, also when logging never started"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
