//! The verifier that a run is given: a mode, a form, maybe a command, and counts.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::config::{FormatRule, VerifierArgs, VerifierMode};

use super::command::{CommandError, CommandVerifier};
use super::compat::{compat_boxed, compat_equivalent};
use super::equivalence::compare;
use super::extract::boxed;
use super::format::{answer_tag, as_graded};
use super::verdict::{Comparison, Kind, Reason, Verdict};

/// Grades responses against the data set's answers.
///
/// ```
/// use rollout::reward::Verifier;
/// let verifier = Verifier::default();
/// assert!(verifier.verify("<think>...</think> It is \\boxed{\\frac{15}{\\sqrt5}}.", "3\\sqrt{5}").is_right);
/// assert!(verifier.grade("x = 4", "4").is_right);
/// ```
#[derive(Debug)]
pub struct Verifier {
    mode: VerifierMode,
    rule: FormatRule,
    salt: u64,
    command: Option<CommandVerifier>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    graded: AtomicU64,
    disagreed: AtomicU64,
    failed: AtomicU64,
}

/// What was graded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifierCounts {
    /// Responses.
    pub graded: u64,
    /// Of them, those on which `robust` and `compat` disagree.
    pub disagreed: u64,
    /// Of them, those to which the external verifier gave no answer: they count as wrong.
    pub failed: u64,
}

impl AddAssign for VerifierCounts {
    fn add_assign(&mut self, other: Self) {
        self.graded += other.graded;
        self.disagreed += other.disagreed;
        self.failed += other.failed;
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new(VerifierMode::Robust, FormatRule::EasyR1, 0)
    }
}

impl Verifier {
    /// `salt` chooses the random points at which formulas are compared that have no canonical form; `rule` says where the
    /// answer stands.
    #[must_use]
    pub fn new(mode: VerifierMode, rule: FormatRule, salt: u64) -> Self {
        Self {
            mode,
            rule,
            salt,
            command: None,
            counts: Counts::default(),
        }
    }

    /// As the options say. A command is started and must answer a first question.
    ///
    /// # Errors
    /// A command that does not.
    pub fn from_args(args: &VerifierArgs, salt: u64) -> Result<Self, CommandError> {
        let mut verifier = Self::new(args.mode, args.format_rule, salt);
        if let Some(line) = &args.command {
            let limit = Duration::try_from_secs_f64(args.timeout_s).unwrap_or(Duration::MAX);
            verifier.command = Some(CommandVerifier::start(line, limit)?);
        }
        Ok(verifier)
    }

    /// Where the answer of a response is looked for.
    #[must_use]
    pub fn rule(&self) -> FormatRule {
        self.rule
    }

    /// Grades a whole response. Without an answer in it, it is wrong.
    #[must_use]
    pub fn verify(&self, response: &str, gold: &str) -> Verdict {
        let (extracted, for_compat) = match self.rule {
            FormatRule::R1v => {
                let answer = answer_tag(response);
                let inner = answer.and_then(boxed).or_else(|| answer.map(str::to_owned));
                (inner, answer.unwrap_or(response).trim().to_owned())
            }
            rule => {
                let text = as_graded(response, rule);
                (boxed(response), compat_boxed(&text).to_owned())
            }
        };
        let compat = compat_equivalent(&for_compat, gold);
        let comparison = match &extracted {
            Some(answer) => compare(answer, gold, self.salt),
            None => Comparison {
                is_same: false,
                kind: Kind::Unread,
                reason: Reason::NoBox,
                fuel: 0,
            },
        };
        let verdict = self.verdict(extracted, comparison, compat);
        self.asked(verdict, response, gold)
    }

    /// Grades an answer that was found in a response by other rules than ours.
    #[must_use]
    pub fn verify_answer(&self, response: &str, answer: &str, gold: &str) -> Verdict {
        self.asked(self.grade(answer, gold), response, gold)
    }

    /// The verdict of the command, where there is one.
    fn asked(&self, mut verdict: Verdict, response: &str, gold: &str) -> Verdict {
        if let Some(command) = &self.command {
            match command.ask(response, gold, verdict.extracted.as_deref()) {
                Ok(accuracy) => {
                    verdict.accuracy = accuracy;
                    verdict.reason = Reason::Command;
                }
                Err(error) => {
                    let failed = self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    if failed < 20 {
                        tracing::warn!("a response counts as wrong: {error}");
                    }
                    verdict.accuracy = 0.0;
                    verdict.reason = Reason::CommandFailed;
                }
            }
            verdict.is_right = verdict.accuracy >= 1.0;
        }
        verdict
    }

    /// Grades a bare answer; the command is not asked.
    #[must_use]
    pub fn grade(&self, answer: &str, gold: &str) -> Verdict {
        let compat = compat_equivalent(answer, gold);
        let comparison = compare(answer, gold, self.salt);
        self.verdict(Some(answer.to_owned()), comparison, compat)
    }

    fn verdict(&self, extracted: Option<String>, comparison: Comparison, compat: bool) -> Verdict {
        self.counts.graded.fetch_add(1, Ordering::Relaxed);
        if comparison.is_same != compat {
            self.counts.disagreed.fetch_add(1, Ordering::Relaxed);
        }
        let (is_right, reason) = match self.mode {
            VerifierMode::Robust => (comparison.is_same, comparison.reason),
            VerifierMode::Compat => (compat, Reason::Mathruler),
        };
        Verdict {
            is_right,
            accuracy: if is_right { 1.0 } else { 0.0 },
            extracted,
            kind: comparison.kind,
            reason,
            robust: comparison.is_same,
            compat,
            fuel: comparison.fuel,
        }
    }

    /// What was graded since the last call.
    pub fn take_counts(&self) -> VerifierCounts {
        VerifierCounts {
            graded: self.counts.graded.swap(0, Ordering::Relaxed),
            disagreed: self.counts.disagreed.swap(0, Ordering::Relaxed),
            failed: self.counts.failed.swap(0, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command's word goes before ours; where it gives none, the response is wrong and counted.
    #[test]
    fn a_command_decides() {
        let script = r#"while IFS= read -r line; do
            case "$line" in *crash*) exit 1;; esac
            id=${line#*:}; id=${id%%,*}; echo "{\"id\": $id, \"accuracy\": 0.25}"
        done"#;
        let command = CommandVerifier::start(script, Duration::from_secs(20)).unwrap();
        let verifier = Verifier {
            command: Some(command),
            ..Verifier::default()
        };
        let accuracy = |response: &str| verifier.verify(response, "1").accuracy;
        assert_eq!(accuracy("\\boxed{2}"), 0.25);
        // A part is a part of the reward, and not right.
        assert!(!verifier.verify("\\boxed{1}", "1").is_right);
        assert_eq!(accuracy("crash \\boxed{1}"), 0.0);
        assert_eq!(accuracy("\\boxed{1}"), 0.25);
        assert_eq!(verifier.take_counts().failed, 1);
        // It sees the whole response, also where the answer was found by others.
        let accuracy = |response| verifier.verify_answer(response, "2", "1").accuracy;
        assert_eq!((accuracy("crash: 2"), accuracy("Answer: 2")), (0.0, 0.25));
        assert_eq!(verifier.grade("2", "1").accuracy, 0.0);
    }
}
