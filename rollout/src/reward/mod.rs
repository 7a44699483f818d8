//! The reward of a response: is the answer right, is the form right, is it too long. Pure functions of text and numbers.
//!
//! # Layout
//! - [`Verifier`]: what a run grades with; [`Verdict`] says what it found. [`score`]: the parts and their weighted sum
//! - `extract`: the last `\boxed{}` of a response
//! - `equivalence`, `compare`, `quantity`, `region`: are two answers the same answer; what kind of answer it is: `answer`, read by `read`,
//!   `relation`, `set`, `name`, `layout`; `choice`, `phrase` and `clock` for letters, words and times
//! - `wording`: what people put into words around or instead of a number
//! - `math`: LaTeX to an expression tree to a canonical form or to many digits, every step bounded
//! - `compat`: what mathruler would say
//! - `format`: `<think> ... </think> ... \boxed{}`
//! - `overlong`: DAPO's linear punishment
//! - `command`: a verifier of the user's own
//!
//! Responses are written by a policy that is paid for finding the holes in this code: a wrong "equal" is worse than a wrong
//! "different", no input may cost more than its fuel, and the result never depends on a clock.

mod answer;
mod choice;
mod clock;
mod command;
mod compare;
pub mod compat;
mod equivalence;
mod extract;
mod format;
mod layout;
mod math;
mod name;
mod overlong;
mod phrase;
mod quantity;
mod read;
mod region;
mod relation;
mod set;
mod verdict;
mod verifier;
mod wording;

use shared::config::RolloutArgs;
use shared::record::Reward;

pub use command::CommandError;
pub use compat::{compat_boxed, compat_equivalent};
pub use equivalence::{compare, equivalent};
pub use extract::boxed;
pub use format::{has_form, is_well_formed};
pub use overlong::overlong_penalty;
pub use verdict::{Comparison, Kind, Reason, Verdict};
pub use verifier::{Verifier, VerifierCounts};

/// Weights of the parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardConfig {
    /// Of a right answer.
    pub accuracy_weight: f32,
    /// Of the right form.
    pub format_weight: f32,
    /// Length of the stretch before the limit in which a response is punished, in tokens; 0 = off.
    pub overlong_buffer: usize,
    /// Largest punishment.
    pub overlong_penalty: f32,
    /// The limit of a response, in tokens.
    pub max_response_tokens: usize,
}

impl From<&RolloutArgs> for RewardConfig {
    fn from(args: &RolloutArgs) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rewards are f32 in the record"
        )]
        let weight = |weight: f64| weight as f32;
        Self {
            accuracy_weight: weight(args.accuracy_weight),
            format_weight: weight(args.format_weight),
            overlong_buffer: args.overlong_buffer,
            overlong_penalty: weight(args.overlong_penalty),
            max_response_tokens: args.max_response_tokens,
        }
    }
}

/// Scores `response` (decoded, special tokens left out) of `num_tokens` tokens against the data set's answer.
///
/// `total = accuracy_weight * accuracy + format_weight * format + overlong`; accuracy and format are 0 or 1 (R of eq. 1; an
/// external verifier may say something between), overlong is in [-overlong_penalty, 0].
#[must_use]
pub fn score(
    verifier: &Verifier,
    response: &str,
    gold: &str,
    num_tokens: usize,
    config: &RewardConfig,
) -> Reward {
    let accuracy = verifier.verify(response, gold).accuracy;
    let format = if has_form(response, verifier.rule()) {
        1.0
    } else {
        0.0
    };
    let overlong = overlong_penalty(num_tokens, config);
    let total = config.accuracy_weight * accuracy + config.format_weight * format + overlong;
    Reward {
        total,
        accuracy,
        format,
        overlong,
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod statement_tests;
