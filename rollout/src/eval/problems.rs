//! Predictions by problem, and what is computed of many problems: the benchmark's figures, the accuracy of its groups.

use std::collections::BTreeMap;

use serde::Serialize;

use super::benchmark::{Figure, Graded};
use super::interval::{interval, mean, to_f64};
use super::predictions::{Prediction, Predictions, Settings};
use super::question::Question;

/// A problem with all its responses.
pub(super) struct Problem<'a> {
    pub(super) question: &'a Question,
    pub(super) lines: Vec<&'a Prediction>,
}

impl Problem<'_> {
    pub(super) fn share(&self) -> f64 {
        mean(self.lines.iter().map(|line| line.accuracy()))
    }

    pub(super) fn num_right(&self) -> usize {
        self.lines.iter().filter(|line| line.is_right).count()
    }
}

/// Problems that have something in common.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) num_problems: usize,
    pub(super) accuracy: f64,
    pub(super) interval: [f64; 2],
}

/// Of the first `limit` problems those whose responses are all there.
pub(super) fn problems(predictions: &Predictions, limit: Option<usize>) -> Vec<Problem<'_>> {
    let mut problems: Vec<Problem> = Vec::new();
    for ((index, sample), line) in &predictions.lines {
        let is_within = limit.is_none_or(|limit| *index < limit as u64);
        if !is_within || *sample >= predictions.settings.samples_per_problem {
            continue;
        }
        match problems.last_mut() {
            Some(last) if last.question.index == *index => last.lines.push(line),
            _ => problems.push(Problem {
                question: &line.question,
                lines: vec![line],
            }),
        }
    }
    problems.retain(|problem| problem.lines.len() == predictions.settings.samples_per_problem);
    problems
}

/// Their shares of right responses.
pub(super) fn with_clusters<'a>(
    problems: impl Iterator<Item = &'a Problem<'a>>,
) -> impl Iterator<Item = (&'a str, f64)> {
    problems.map(|problem| (problem.question.cluster.as_str(), problem.share()))
}

/// The figures of the first responses, of the second ones, ...: their mean.
pub(super) fn figures(settings: &Settings, problems: &[Problem]) -> Vec<Figure> {
    let Some(benchmark) = settings.benchmark else {
        return Vec::new();
    };
    let of_sample = |sample: usize| -> Vec<Figure> {
        let graded = problems.iter().filter_map(|problem| {
            let is_right = problem.lines.get(sample)?.is_right;
            Some(Graded {
                question: problem.question,
                is_right,
            })
        });
        benchmark.figures(&graded.collect::<Vec<_>>())
    };
    let k = settings.samples_per_problem;
    let mut figures = of_sample(0);
    for sample in 1..k {
        for (figure, more) in figures.iter_mut().zip(of_sample(sample)) {
            figure.value += more.value;
        }
    }
    for figure in &mut figures {
        figure.value /= to_f64(k.max(1));
    }
    figures
}

/// Accuracy by the benchmark's groups.
pub(super) fn groups(
    settings: &Settings,
    problems: &[Problem],
) -> BTreeMap<&'static str, Vec<Group>> {
    let axes = settings
        .benchmark
        .map_or(&[][..], |benchmark| benchmark.axes());
    let mut groups = BTreeMap::new();
    for axis in axes {
        let mut members: BTreeMap<&str, Vec<&Problem>> = BTreeMap::new();
        for problem in problems {
            for name in problem.question.groups.get(*axis).into_iter().flatten() {
                members.entry(name).or_default().push(problem);
            }
        }
        let group = |(name, members): (&str, Vec<&Problem>)| Group {
            name: name.to_owned(),
            num_problems: members.len(),
            accuracy: mean(members.iter().map(|problem| problem.share())),
            interval: interval(
                members
                    .iter()
                    .map(|problem| (problem.question.cluster.as_str(), problem.share())),
            ),
        };
        if !members.is_empty() {
            groups.insert(*axis, members.into_iter().map(group).collect());
        }
    }
    groups
}
