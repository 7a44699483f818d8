//! `rollout`: generates for a run; `rollout eval`: measures a checkpoint; `rollout data`: says what is in a data set;
//! `rollout doctor`: says what is installed.

use std::io::{stdin, stdout};
use std::process::ExitCode;

use anyhow::Result;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use rollout::bench::{BenchArgs, bench};
use rollout::data::{self, DataCommand, data};
use rollout::doctor;
use rollout::eval::{EXAMPLES, EvalArgs, eval};
use rollout::grade::{self, GradeArgs, grade};
use rollout::run::{self, Given};
use rollout::stop::Stop;
use shared::config::{self, GivenVerifier, Program, RolloutArgs, RunArgs};
use shared::telemetry;

/// Generates responses with the run's newest weights and streams them to its learner
///
/// Start `learner` with the same --run-dir, before or after. Any number of rollouts may take part in one run.
/// Ctrl-C gives unfinished groups back and ends.
#[derive(Parser, Debug)]
#[command(name = "rollout", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunFlags,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Takes part in a run (what `rollout` alone does)
    Run(RunFlags),
    /// Measures a checkpoint on a data set or a benchmark: accuracy, pass@k
    ///
    /// The engine maps its weights from one f32 file. A checkpoint in another form (bf16, shards) is first written as such a file, of
    /// 4 bytes per parameter, into the temporary folder, and removed again: TMPDIR chooses that folder. To convert only once,
    /// `scripts/export_onnx.sh MODEL OUT` writes a folder to give as --model.
    #[command(after_long_help = EXAMPLES, args_override_self = true)]
    Eval(EvalArgs),
    /// Says what is in a data set, and what a run would skip of it and why
    #[command(after_long_help = data::EXAMPLES)]
    Data(DataCommand),
    /// Measures the engine's speed on this machine
    Bench(BenchArgs),
    /// Says whether answers are right, and why: the verifier on its own
    ///
    /// Give --prediction and --answer, or files of JSON lines with the keys prediction and answer, and as you like mode ("bare" or
    /// "response"), expected, expected_mathruler and category. Where there is something expected, what is judged otherwise is
    /// shown with a table of accuracy, false positives and false negatives.
    #[command(after_long_help = grade::EXAMPLES)]
    Grade(GradeArgs),
    /// Says what is installed, what would work, and what to do about what does not
    ///
    /// With the options of a run, --model above all, it also says how much memory that run needs.
    Doctor(RunFlags),
}

#[derive(Args, Debug)]
struct RunFlags {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    rollout: RolloutArgs,
}

fn main() -> ExitCode {
    silence_telemetry();
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// The published ONNX Runtime reports to its maker as soon as it is loaded, and keeps an id of the machine in the cache
/// folder. Its interface can only quiet what comes later; this variable stops all of it. Whoever wants the reports sets it to 0.
#[allow(unsafe_code, reason = "the library reads the environment")]
fn silence_telemetry() {
    const SWITCH: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(SWITCH).is_none() {
        // SAFETY: the first thing that `main` does: no other thread is there to read the environment meanwhile.
        unsafe { std::env::set_var(SWITCH, "1") };
    }
}

fn start() -> Result<()> {
    let matches = Cli::command().get_matches();
    match Cli::from_arg_matches(&matches)?.command {
        Some(Command::Doctor(_)) => {
            let flags = matches.subcommand_matches("doctor").unwrap_or(&matches);
            let config = config::load(flags, Program::Rollout)?;
            doctor::report(&config.run.model, &config.rollout, &mut stdout().lock())
        }
        Some(Command::Eval(mut args)) => {
            let flags = matches.subcommand_matches("eval");
            args.given = flags.map(GivenVerifier::of).unwrap_or_default();
            let telemetry = telemetry::init("eval")?;
            eval(
                &args,
                &telemetry,
                &Stop::on_signals("stopping after this step")?,
                &mut stdout().lock(),
            )
        }
        Some(Command::Data(args)) => {
            let telemetry = telemetry::init("data")?;
            data(
                &args,
                &telemetry,
                &Stop::on_signals("stopping after these rows")?,
                &mut stdout().lock(),
            )
        }
        Some(Command::Bench(args)) => {
            let telemetry = telemetry::init("bench")?;
            bench(
                &args,
                &telemetry,
                &Stop::on_signals("stopping: nothing will be shown")?,
                &mut stdout().lock(),
            )
        }
        Some(Command::Grade(mut args)) => {
            let flags = matches.subcommand_matches("grade");
            args.given = flags.map(GivenVerifier::of).unwrap_or_default();
            grade(&args, &mut stdin().lock(), &mut stdout().lock())
        }
        Some(Command::Run(_)) => generate(matches.subcommand_matches("run").unwrap_or(&matches)),
        None => generate(&matches),
    }
}

fn generate(matches: &ArgMatches) -> Result<()> {
    let load_config = || Ok(config::load(matches, Program::Rollout)?);
    load_config()?; // a wrong flag is said before anything else
    let telemetry = telemetry::init("rollout")?;
    let is_given = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    let given = Given {
        model: is_given("model"),
        data: is_given("data"),
    };
    let stop = Stop::on_signals("stopping: unfinished groups are given back")?;
    run::run(&load_config, given, &telemetry, &stop)
}

#[allow(
    clippy::print_stderr,
    reason = "the last word of the program, also when logging never started"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
