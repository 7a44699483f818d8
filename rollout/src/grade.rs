//! `rollout grade`: the verifier on its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueHint};
use serde::{Deserialize, Serialize};
use shared::config::{GivenVerifier, VerifierArgs, VerifierMode};

use crate::reward::{Verdict, Verifier};

/// Of one case; a response is some kilobytes.
const MAX_LINE: u64 = 16 << 20;

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  rollout grade --prediction '\\frac{15}{\\sqrt5}' --answer '3\\sqrt5'
  rollout grade --response --prediction '<think>...</think> \\boxed{12 cm}' --answer 12
  rollout grade cases.jsonl
  rollout grade --verifier compat --json cases.jsonl
  rollout grade --verifier-command 'python3 mine.py' --verifier-timeout-s 3 cases.jsonl

Exit code: 0 when all is graded, right or wrong, 1 after an error, 2 when the command line is wrong.";

/// Options of `rollout grade`.
#[derive(Args, Debug)]
#[command(mut_arg("verifier", |verifier| verifier.visible_alias("mode")))]
pub struct GradeArgs {
    /// Files of JSON lines; - or none = standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,

    /// One answer to grade; with --response, a whole response
    #[arg(
        long,
        value_name = "TEXT",
        requires = "answer",
        conflicts_with = "files",
        allow_hyphen_values = true
    )]
    prediction: Option<String>,

    /// The right answer
    #[arg(
        long,
        value_name = "TEXT",
        requires = "prediction",
        allow_hyphen_values = true
    )]
    answer: Option<String>,

    /// The predictions are whole responses, whose last box is the answer; a line's own mode goes first
    #[arg(long)]
    response: bool,

    /// Whose judgement counts.
    #[command(flatten)]
    verifier: VerifierArgs,

    /// Which of its options stand on the command line.
    #[arg(skip)]
    pub given: GivenVerifier,

    /// A JSON line per case, and one with the table at the end
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize, Debug)]
struct Case {
    prediction: String,
    answer: String,
    mode: Option<CaseMode>,
    expected: Option<bool>,
    expected_mathruler: Option<bool>,
    category: Option<String>,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum CaseMode {
    Bare,
    Response,
}

#[derive(Serialize)]
struct Line<'a> {
    prediction: &'a str,
    answer: &'a str,
    #[serde(flatten)]
    verdict: &'a Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
}

/// Cases with something expected.
#[derive(Serialize, Debug, Default, Clone, Copy)]
struct Tally {
    cases: u64,
    right: u64,
    false_positives: u64,
    false_negatives: u64,
}

impl Tally {
    fn add(&mut self, is_taken: bool, expected: bool) {
        self.cases += 1;
        self.right += u64::from(is_taken == expected);
        self.false_positives += u64::from(is_taken && !expected);
        self.false_negatives += u64::from(!is_taken && expected);
    }
}

/// Grades what the arguments name and writes the verdicts to `out`.
///
/// # Errors
/// A file that cannot be read, a line that is no case, an output that cannot be written, a verifier command that does not answer.
pub fn grade(args: &GradeArgs, stdin: &mut dyn BufRead, out: &mut dyn Write) -> Result<()> {
    args.verifier.check(args.given)?;
    let mut grader = Grader {
        verifier: Verifier::from_args(&args.verifier, 0)?,
        args,
        tallies: BTreeMap::new(),
        total: Tally::default(),
        graded: 0,
        taken: 0,
    };
    if let (Some(prediction), Some(answer)) = (&args.prediction, &args.answer) {
        let case = Case {
            prediction: prediction.clone(),
            answer: answer.clone(),
            mode: None,
            expected: None,
            expected_mathruler: None,
            category: None,
        };
        return grader.case(&case, out);
    }
    if args.files.is_empty() {
        grader.lines(stdin, "standard input", out)?;
    }
    for path in &args.files {
        if path.as_os_str() == "-" {
            grader.lines(stdin, "standard input", out)?;
        } else {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
            grader.lines(&mut BufReader::new(file), &name, out)?;
        }
    }
    grader.table(out)
}

struct Grader<'a> {
    verifier: Verifier,
    args: &'a GradeArgs,
    tallies: BTreeMap<String, Tally>,
    total: Tally,
    graded: u64,
    taken: u64,
}

impl Grader<'_> {
    fn lines(&mut self, input: &mut dyn BufRead, name: &str, out: &mut dyn Write) -> Result<()> {
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let length = input
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)
                .with_context(|| format!("cannot read {name}"))?;
            if length == 0 {
                break;
            }
            if length as u64 == MAX_LINE {
                bail!(
                    "{name}:{number}: a line of more than {} MiB is no case",
                    MAX_LINE >> 20
                );
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let case: Case = serde_json::from_slice(&line).with_context(|| {
                format!("{name}:{number}: expected {{\"prediction\": text, \"answer\": text, ...}}")
            })?;
            self.case(&case, out)?;
        }
        Ok(())
    }

    fn case(&mut self, case: &Case, out: &mut dyn Write) -> Result<()> {
        let is_response = case
            .mode
            .map_or(self.args.response, |mode| mode == CaseMode::Response);
        let verdict = if is_response {
            self.verifier.verify(&case.prediction, &case.answer)
        } else {
            let (prediction, answer) = (&case.prediction, &case.answer);
            self.verifier.verify_answer(prediction, prediction, answer)
        };
        let expected = match self.args.verifier.mode {
            VerifierMode::Robust => case.expected,
            VerifierMode::Compat => case.expected_mathruler.or(case.expected),
        };
        self.graded += 1;
        self.taken += u64::from(verdict.is_right);
        if let Some(expected) = expected {
            self.total.add(verdict.is_right, expected);
            let category = case.category.clone().unwrap_or_else(|| "-".to_owned());
            self.tallies
                .entry(category)
                .or_default()
                .add(verdict.is_right, expected);
        }
        if self.args.json {
            let line = Line {
                prediction: &case.prediction,
                answer: &case.answer,
                verdict: &verdict,
                expected,
                category: case.category.as_deref(),
            };
            serde_json::to_writer(&mut *out, &line)?;
            writeln!(out)?;
        } else if expected != Some(verdict.is_right) {
            writeln!(out, "{}", describe(case, &verdict, expected))?;
        }
        Ok(())
    }

    fn table(&self, out: &mut dyn Write) -> Result<()> {
        if self.args.json {
            let summary = serde_json::json!({
                "summary": {"graded": self.graded, "taken": self.taken, "expected": self.total, "categories": self.tallies},
            });
            return Ok(writeln!(out, "{summary}")?);
        }
        writeln!(out, "{} graded, {} taken as right", self.graded, self.taken)?;
        if self.total.cases == 0 {
            return Ok(());
        }
        writeln!(
            out,
            "{:<24} {:>6} {:>9} {:>15} {:>15}",
            "category", "cases", "accuracy", "false positives", "false negatives"
        )?;
        let rows = self
            .tallies
            .iter()
            .map(|(name, tally)| (name.as_str(), tally));
        for (name, tally) in rows.chain([("all", &self.total)]) {
            let accuracy = percent(tally.right, tally.cases);
            writeln!(
                out,
                "{name:<24} {:>6} {accuracy:>7.1} % {:>15} {:>15}",
                tally.cases, tally.false_positives, tally.false_negatives
            )?;
        }
        Ok(())
    }
}

fn describe(case: &Case, verdict: &Verdict, expected: Option<bool>) -> String {
    let word = |is_right: bool| if is_right { "right" } else { "wrong" };
    let name = |value: serde_json::Result<serde_json::Value>| {
        value
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let extracted = match &verdict.extracted {
        Some(answer) => format!("{answer:?}"),
        None => "no answer".to_owned(),
    };
    let expected = match expected {
        Some(expected) => format!(", expected {}", word(expected)),
        None => String::new(),
    };
    format!(
        "{}: {extracted} for {:?} ({}, {}{expected})",
        word(verdict.is_right),
        case.answer,
        name(serde_json::to_value(verdict.kind)),
        name(serde_json::to_value(verdict.reason)),
    )
}

#[expect(clippy::cast_precision_loss, reason = "counts for people")]
fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}
