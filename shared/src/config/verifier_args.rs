//! Whose word says whether a response is right: the same flags wherever responses are judged.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum, ValueHint};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::values::positive;

/// Keys of the table `[rollout]`, too.
#[derive(Args, Serialize, Debug, Clone, PartialEq)]
pub struct VerifierArgs {
    /// What decides whether an answer is right. `robust` compares values; `compat` says what mathruler, EasyR1's grader, would
    /// say, its errors included
    #[arg(
        id = "verifier",
        long = "verifier",
        value_name = "VERIFIER",
        value_enum
    )]
    #[arg(default_value_t = VerifierMode::Robust, help_heading = "Reward")]
    #[serde(rename = "verifier")]
    pub mode: VerifierMode,

    /// A verifier of your own, run by sh: reads {"id", "response", "answer", "extracted"} and writes {"id", "accuracy"}, a JSON
    /// line each. A response that it fails on counts as wrong, and it is started anew [default: none]
    #[arg(id = "verifier_command", long = "verifier-command", value_name = "CMD")]
    #[arg(value_hint = ValueHint::CommandString, help_heading = "Reward")]
    #[serde(rename = "verifier_command", skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,

    /// How long --verifier-command may take for one response, in seconds
    #[arg(
        id = "verifier_timeout_s",
        long = "verifier-timeout-s",
        value_name = "S"
    )]
    #[arg(default_value_t = 10.0, value_parser = positive, help_heading = "Reward")]
    #[serde(rename = "verifier_timeout_s")]
    pub timeout_s: f64,

    /// The form of a whole response: where its answer stands, and what counts as well formed
    #[arg(long, value_enum, default_value_t = FormatRule::EasyR1, help_heading = "Reward")]
    pub format_rule: FormatRule,
}

impl VerifierArgs {
    /// Refuses what would be ignored.
    ///
    /// # Errors
    /// A time limit without a command.
    pub fn check(&self, given: GivenVerifier) -> Result<()> {
        if given.timeout && self.command.is_none() {
            return Err(Error::Conflict(
                "--verifier-timeout-s is how long --verifier-command may take: give that too, or leave it out".to_owned(),
            ));
        }
        Ok(())
    }
}

/// Which of them stand on the command line: they go before what a file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GivenVerifier {
    /// `--verifier`
    pub mode: bool,
    /// `--verifier-command`
    pub command: bool,
    /// `--verifier-timeout-s`
    pub timeout: bool,
    /// `--format-rule`
    pub format_rule: bool,
}

impl GivenVerifier {
    /// Of a command that flattens [`VerifierArgs`].
    #[must_use]
    pub fn of(matches: &ArgMatches) -> Self {
        let is_given = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        Self {
            mode: is_given("verifier"),
            command: is_given("verifier_command"),
            timeout: is_given("verifier_timeout_s"),
            format_rule: is_given("format_rule"),
        }
    }
}

/// Whose judgement of an answer counts.
#[derive(ValueEnum, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum VerifierMode {
    /// The same value in any form
    #[default]
    Robust,
    /// As mathruler 0.1
    Compat,
}

/// What a well-formed response looks like.
#[derive(ValueEnum, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum FormatRule {
    /// `<think>...</think>...\boxed{}`, white space around < > / ignored
    #[default]
    EasyR1,
    /// The same to the letter
    NoisyRollout,
    /// `<think>...</think> <answer>...</answer>`; the answer is what stands in the tag
    R1v,
}
