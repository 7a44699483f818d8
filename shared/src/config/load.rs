//! Layers: defaults < the run folder's config.toml < `--config FILE` < the command line.

use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};

use super::error::{Error, Result};
use super::file::{self, FileArgs};
use super::save::FILE_NAME;
use super::{GivenVerifier, LearnerArgs, RolloutArgs, RunArgs, RunConfig};

/// Whose command line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Flattens [`RunArgs`] and [`RolloutArgs`].
    Rollout,
    /// Flattens [`RunArgs`] and [`LearnerArgs`].
    Learner,
}

/// Never in the run folder's own file: where it lies, and whether *this* start resumes, are no properties of a run.
const NOT_SAVED: [&str; 2] = ["run_dir", "resume"];

/// The configuration of `program`, started with the command line in `matches`.
///
/// `matches` comes from a clap command that flattens [`RunArgs`] and the program's own section. The other program's section
/// comes from the files alone.
///
/// # Errors
/// One line that names the key, the file and what was expected. A missing config.toml in the run folder is none.
pub fn load(matches: &ArgMatches, program: Program) -> Result<RunConfig> {
    let run_given = given::<RunArgs>(matches);
    let config_file = parse::<RunArgs>(&[&run_given])?.config;
    let named = match config_file {
        Some(path) => file::read(&path, &[])?,
        None => FileArgs::default(),
    };
    let run_dir = parse::<RunArgs>(&[&named.run, &run_given])?.run_dir;
    let saved = read_saved(&run_dir)?;

    let (rollout_given, learner_given) = match program {
        Program::Rollout => (given::<RolloutArgs>(matches), Vec::new()),
        Program::Learner => (Vec::new(), given::<LearnerArgs>(matches)),
    };
    let config = RunConfig {
        run: parse(&[&saved.run, &named.run, &run_given])?,
        rollout: parse(&[&saved.rollout, &named.rollout, &rollout_given])?,
        learner: parse(&[&saved.learner, &named.learner, &learner_given])?,
    };
    if program == Program::Rollout {
        config.rollout.verifier.check(GivenVerifier::of(matches))?;
    }
    check(&config)?;
    Ok(config)
}

/// A clap command that knows one table's flags and nothing else. A later argument wins over an earlier one.
pub(super) fn section_command<A: Args>() -> Command {
    let command = Command::new("config")
        .no_binary_name(true)
        .disable_help_flag(true)
        .args_override_self(true);
    A::augment_args(command)
}

fn read_saved(run_dir: &Path) -> Result<FileArgs> {
    match file::read(&run_dir.join(FILE_NAME), &NOT_SAVED) {
        Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(FileArgs::default())
        }
        other => other,
    }
}

/// The arguments of section `A` that really stand on the command line, as `--flag=value`.
fn given<A: Args>(matches: &ArgMatches) -> Vec<OsString> {
    let command = section_command::<A>();
    let mut args = Vec::new();
    for id in matches.ids().map(clap::Id::as_str) {
        let known = command.get_arguments().find(|arg| arg.get_id() == id);
        let Some(flag) = known.and_then(clap::Arg::get_long) else {
            continue;
        };
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        // Of a flag that is repeated the last one counts.
        if let Some(value) = matches.get_raw(id).and_then(Iterator::last) {
            let mut arg = OsString::from(format!("--{flag}="));
            arg.push(value);
            args.push(arg);
        }
    }
    args
}

fn parse<A: Args>(layers: &[&[OsString]]) -> Result<A> {
    let matches = section_command::<A>().try_get_matches_from(layers.concat())?;
    Ok(A::from_arg_matches(&matches)?)
}

/// What no key can know alone.
fn check(config: &RunConfig) -> Result<()> {
    let RunConfig {
        rollout, learner, ..
    } = config;
    let conflict = |message: String| Err(Error::Conflict(message));
    if rollout.overlong_buffer > rollout.max_response_tokens {
        return conflict(format!(
            "overlong_buffer ({}) is longer than max_response_tokens ({}) in [rollout]",
            rollout.overlong_buffer, rollout.max_response_tokens
        ));
    }
    match learner.mini_batch_prompts {
        Some(mini) if mini > learner.batch_prompts => conflict(format!(
            "mini_batch_prompts ({mini}) is larger than batch_prompts ({}) in [learner]",
            learner.batch_prompts
        )),
        _ => config.check(),
    }
}
