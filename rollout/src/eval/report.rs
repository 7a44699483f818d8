//! What an evaluation comes to: accuracy, pass@k, the benchmark's own figures, and why responses ended; as text and as JSON.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use shared::config::VerifierMode;

use super::asker::Skipped;
use super::benchmark::Figure;
use super::interval::{interval, mean, pass_at_k, standard_error, to_f64};
use super::predictions::{Prediction, Predictions, Settings};
use super::problems::{Group, Problem, figures, groups, problems, with_clusters};

/// Questions without an answer that are kept by name.
const MAX_NAMED: usize = 20;

/// Everything there is to say about an evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    #[serde(flatten)]
    settings: Settings,
    limit: Option<usize>,
    /// Those that the accuracy is of.
    num_problems: usize,
    /// Mean over all responses, in [0, 1].
    accuracy: f64,
    /// Of the mean over problems of their share of right responses.
    standard_error: f64,
    /// 95 % of the accuracy, by drawing the problems again, or Wilson's (see `interval`).
    interval: [f64; 2],
    /// By the rules alone.
    rules_accuracy: f64,
    /// Responses that the verifier's command gave no answer on, of those judged just now: they count as wrong.
    num_verifier_failures: u64,
    /// None when none was asked.
    judge: Option<JudgeReport>,
    /// pass@1, pass@2, ... pass@samples_per_problem.
    pass_at_k: Vec<f64>,
    /// Of each.
    pass_at_k_intervals: Vec<[f64; 2]>,
    /// As the benchmark's authors report it; means over the samples of a problem.
    figures: Vec<Figure>,
    groups: BTreeMap<&'static str, Vec<Group>>,
    well_formed: f64,
    mean_response_tokens: f64,
    finished_stop: usize,
    finished_length: usize,
    /// Problems of a benchmark that could not be asked: wrong.
    num_unasked: usize,
    /// The first few, with the reason.
    unasked: Vec<String>,
    /// Rows of a data set that could not be used: not among the problems.
    num_skipped: usize,
    /// The first few, with the reason.
    skipped: Vec<String>,
    /// One per problem, in the order of the data.
    samples: Vec<SampleResult>,
}

/// What the judge did.
#[derive(Debug, Clone, Serialize)]
struct JudgeReport {
    model: String,
    /// Responses that the rules hold wrong.
    num_asked: usize,
    num_right: usize,
    /// No verdict after all tries: they stay wrong.
    num_failed: usize,
}

/// One problem and what was answered.
#[derive(Debug, Clone, Serialize)]
struct SampleResult {
    index: u64,
    id: String,
    answer: String,
    num_right: usize,
    responses: Vec<ResponseResult>,
}

/// One response.
#[derive(Debug, Clone, Serialize)]
struct ResponseResult {
    text: String,
    extraction: Option<String>,
    is_right: bool,
    accuracy: f64,
    is_well_formed: bool,
    finish: String,
    num_tokens: usize,
}

impl Report {
    /// Of the first `limit` problems; those whose responses are not all there are left out.
    pub(super) fn new(
        predictions: &Predictions,
        limit: Option<usize>,
        skipped: Skipped,
        num_verifier_failures: u64,
    ) -> Self {
        let settings = predictions.settings.clone();
        let k = settings.samples_per_problem;
        let problems = problems(predictions, limit);
        let lines = || {
            problems
                .iter()
                .flat_map(|problem| problem.lines.iter().copied())
        };
        let answered = || lines().filter(|line| line.response.is_some());
        let shares: Vec<f64> = problems.iter().map(Problem::share).collect();
        let passes = |k: usize| {
            let pass = move |p: &Problem| pass_at_k(p.lines.len(), p.num_right(), k);
            problems
                .iter()
                .map(move |p| (p.question.cluster.as_str(), pass(p)))
        };
        let unasked: Vec<String> = problems
            .iter()
            .filter_map(|p| {
                let error = p.lines.first()?.error.as_ref()?;
                Some(format!("{}: {error}", p.question.id))
            })
            .collect();
        let finished = |how: &str| answered().filter(|line| line.finish == how).count();
        let flag = |flag: bool| f64::from(u8::from(flag));
        Self {
            limit,
            num_problems: problems.len(),
            accuracy: mean(shares.iter().copied()),
            standard_error: standard_error(&shares),
            interval: interval(with_clusters(problems.iter())),
            rules_accuracy: mean(lines().map(Prediction::rules_accuracy)),
            num_verifier_failures,
            judge: judge_report(lines()),
            pass_at_k: (1..=k)
                .map(|k| mean(passes(k).map(|(_, pass)| pass)))
                .collect(),
            pass_at_k_intervals: (1..=k).map(|k| interval(passes(k))).collect(),
            figures: figures(&settings, &problems),
            groups: groups(&settings, &problems),
            well_formed: mean(lines().map(|line| flag(line.is_well_formed))),
            mean_response_tokens: mean(answered().map(|line| to_f64(line.num_tokens))),
            finished_stop: finished("stop"),
            finished_length: finished("length"),
            num_unasked: unasked.len(),
            unasked: unasked.into_iter().take(MAX_NAMED).collect(),
            num_skipped: skipped.count,
            skipped: skipped.named,
            samples: problems.iter().map(result).collect(),
            settings,
        }
    }

    /// Problems that the accuracy is of.
    pub(super) fn num_problems(&self) -> usize {
        self.num_problems
    }

    /// For a person.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        let settings = &self.settings;
        let how = if settings.temperature == 0.0 {
            "greedy".to_owned()
        } else {
            format!(
                "pass@1 from {} responses per problem at temperature {}",
                settings.samples_per_problem, settings.temperature
            )
        };
        let what = match settings.benchmark {
            Some(benchmark) => format!("{} of {}", benchmark.name(), settings.data),
            None => settings.data.clone(),
        };
        let left_out = match (self.num_skipped, self.num_unasked) {
            (0, 0) => "none skipped".to_owned(),
            (n, 0) => format!("{n} skipped, which do not count"),
            (_, n) => format!("{n} could not be asked and count as wrong"),
        };
        writeln!(out, "model        {}", settings.model)?;
        writeln!(
            out,
            "data         {what}: {} problems, {left_out}",
            self.num_problems
        )?;
        for unasked in &self.unasked {
            writeln!(out, "  not asked  {}", short(unasked))?;
        }
        writeln!(out, "verifier     {}", self.verifier())?;
        writeln!(
            out,
            "accuracy     {:.2} % +- {:.2}, 95 % {} ({how})",
            100.0 * self.accuracy,
            100.0 * self.standard_error,
            range(self.interval)
        )?;
        if let Some(judge) = &self.judge {
            writeln!(
                out,
                "judge        {}: {} of {} wrong by the rules are right, {} without a verdict; by the rules alone {:.2} %",
                judge.model,
                judge.num_right,
                judge.num_asked,
                judge.num_failed,
                100.0 * self.rules_accuracy
            )?;
        }
        let passes = self.pass_at_k.iter().zip(&self.pass_at_k_intervals);
        for (index, (pass, interval)) in passes.enumerate().skip(1) {
            let k = index + 1;
            if k.is_power_of_two() || k == settings.samples_per_problem {
                let name = format!("pass@{k}");
                writeln!(
                    out,
                    "{name:<12} {:.2} %, 95 % {}",
                    100.0 * pass,
                    range(*interval)
                )?;
            }
        }
        writeln!(out, "well formed  {:.2} %", 100.0 * self.well_formed)?;
        writeln!(
            out,
            "finished     {} by the end token, {} at the length limit",
            self.finished_stop, self.finished_length
        )?;
        writeln!(out, "length       {:.1} tokens", self.mean_response_tokens)?;
        self.write_figures(out)
    }

    /// Whose verdicts these are.
    fn verifier(&self) -> String {
        let settings = &self.settings;
        let mut line = match (&settings.verifier_command, settings.verifier) {
            (Some(command), _) => format!("the command {}", short(command)),
            (None, VerifierMode::Robust) => "robust".to_owned(),
            (None, VerifierMode::Compat) => "compat".to_owned(),
        };
        match settings.benchmark {
            Some(benchmark) if !benchmark.has_free_answers() => {
                "the benchmark's rules".clone_into(&mut line);
            }
            Some(benchmark) if !benchmark.is_data_set() => {
                line += ", where the benchmark has no rule of its own";
            }
            _ => {}
        }
        if self.num_verifier_failures > 0 {
            line += &format!(
                "; it gave no answer on {} responses, which count as wrong",
                self.num_verifier_failures
            );
        }
        line
    }

    fn write_figures(&self, out: &mut dyn Write) -> Result<()> {
        if !self.figures.is_empty() {
            writeln!(out)?;
        }
        for figure in &self.figures {
            if figure.is_share {
                writeln!(out, "{:<34} {:>8.2} %", figure.name, 100.0 * figure.value)?;
            } else {
                writeln!(out, "{:<34} {:>8}", figure.name, figure.value)?;
            }
        }
        for (axis, groups) in &self.groups {
            writeln!(out, "\n{axis:<34} {:>8}  accuracy  95 %", "problems")?;
            for group in groups {
                writeln!(
                    out,
                    "{:<34} {:>8}  {:>6.2} %  {}",
                    short(&group.name),
                    group.num_problems,
                    100.0 * group.accuracy,
                    range(group.interval)
                )?;
            }
        }
        Ok(())
    }

    /// All of it, with every response.
    ///
    /// # Errors
    /// Never for these types; serde_json says it may.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

fn judge_report<'a>(lines: impl Iterator<Item = &'a Prediction>) -> Option<JudgeReport> {
    let verdicts = lines.filter(|line| !line.is_right_by_rules);
    let verdicts: Vec<_> = verdicts.filter_map(|line| line.judge.as_ref()).collect();
    let count = |wanted| {
        verdicts
            .iter()
            .filter(|verdict| verdict.is_right == wanted)
            .count()
    };
    Some(JudgeReport {
        model: verdicts.first()?.model.clone(),
        num_asked: verdicts.len(),
        num_right: count(Some(true)),
        num_failed: count(None),
    })
}

fn result(problem: &Problem) -> SampleResult {
    let response = |line: &&Prediction| ResponseResult {
        text: line.response.clone().unwrap_or_default(),
        extraction: line.extraction.clone(),
        is_right: line.is_right,
        accuracy: line.accuracy(),
        is_well_formed: line.is_well_formed,
        finish: line.finish.clone(),
        num_tokens: line.num_tokens,
    };
    SampleResult {
        index: problem.question.index,
        id: problem.question.id.clone(),
        answer: problem.question.answer.clone(),
        num_right: problem.num_right(),
        responses: problem.lines.iter().map(response).collect(),
    }
}

fn range([low, high]: [f64; 2]) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high)
}

/// Names come from files of strangers: one line, no control characters.
fn short(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(160).collect()
}
