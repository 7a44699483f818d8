//! Which verifier judges: that of the command line; where a predictions file is scored again, the file's own in what is not given.

use anyhow::{Result, bail};
use shared::config::{GivenVerifier, VerifierArgs};

use super::args::EvalArgs;
use super::benchmark::Benchmark;
use super::predictions::Settings;
use crate::reward::Verifier;

/// Chooses the points at which formulas are compared: always the same, so that scoring again says the same.
const SALT: u64 = 0;
/// Of a command that stands in a file.
const MAX_SHOWN: usize = 200;

/// Of an evaluation that generates.
pub(super) fn of_command_line(args: &EvalArgs) -> Result<Verifier> {
    args.verifier.check(args.given)?;
    check(args.benchmark, args.given)?;
    start(&args.verifier)
}

/// Of a predictions file that is scored again; its head says so from now on.
pub(super) fn of_file(args: &EvalArgs, settings: &mut Settings) -> Result<Verifier> {
    let (given, mut chosen) = (args.given, args.verifier.clone());
    chosen.check(given)?;
    check(settings.benchmark, given)?;
    if let Some(line) = &settings.verifier_command
        && !given.command
        && !given.mode
    {
        // Files are taken for hostile: nothing that stands in one is run.
        let line: String = line.chars().take(MAX_SHOWN).collect();
        bail!(
            "its verdicts are those of --verifier-command {line:?}: give that again to go by it, or --verifier to go by the rules"
        );
    }
    if !given.mode {
        chosen.mode = settings.verifier;
    }
    if !given.format_rule {
        chosen.format_rule = settings.format_rule;
    }
    settings.set_verifier(&chosen);
    start(&chosen)
}

fn start(args: &VerifierArgs) -> Result<Verifier> {
    Ok(Verifier::from_args(args, SALT)?)
}

/// Refuses what a benchmark would ignore.
fn check(benchmark: Option<Benchmark>, given: GivenVerifier) -> Result<()> {
    let Some(benchmark) = benchmark.filter(|benchmark| !benchmark.has_free_answers()) else {
        return Ok(());
    };
    let flags = [
        ("--verifier", given.mode),
        ("--verifier-command", given.command),
    ];
    match flags.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((flag, _)) => bail!(
            "{flag} has no effect on {}, whose answers are letters or yes and no: leave it out",
            benchmark.name()
        ),
    }
}
