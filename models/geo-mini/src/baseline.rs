//! The text-only baseline: how often a reader of the question alone is right.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use arrow_array::{Array, StringArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Answers and how often each occurs, per question.
type Counts = BTreeMap<String, BTreeMap<String, usize>>;

/// A report of two figures: the commonest training answer per question, and the commonest *test* answer per question,
/// which no reader of the question alone can beat.
pub(crate) fn measure(data: &Path) -> Result<String> {
    let train = counts(&data.join("train.parquet"))?;
    let test = counts(&data.join("test.parquet"))?;
    let total: usize = test.values().flat_map(BTreeMap::values).sum();
    let right = |best: &dyn Fn(&str) -> Option<String>| -> usize {
        test.iter()
            .map(|(question, answers)| {
                best(question)
                    .and_then(|answer| answers.get(&answer).copied())
                    .unwrap_or(0)
            })
            .sum()
    };
    let learned = right(&|question| train.get(question).and_then(commonest));
    let bound = right(&|question| test.get(question).and_then(commonest));
    let percent = |count: usize| -> Result<f64> {
        Ok(100.0 * f64::from(u32::try_from(count)?) / f64::from(u32::try_from(total.max(1))?))
    };
    Ok(format!(
        "text-only baseline on {total} test rows, {} questions: {:.1} % with the commonest training answer per question; \
         at most {:.1} % for any rule that sees the question alone",
        test.len(),
        percent(learned)?,
        percent(bound)?
    ))
}

fn commonest(answers: &BTreeMap<String, usize>) -> Option<String> {
    answers
        .iter()
        .max_by_key(|(_, count)| **count)
        .map(|(answer, _)| answer.clone())
}

fn counts(path: &Path) -> Result<Counts> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut counts = Counts::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
        let batch = batch?;
        let column = |name: &str| -> Result<&StringArray> {
            let column = batch
                .column_by_name(name)
                .with_context(|| format!("no column {name}"))?;
            column
                .as_any()
                .downcast_ref()
                .with_context(|| format!("column {name} holds no strings"))
        };
        for (problem, answer) in column("problem")?.iter().zip(column("answer")?) {
            let (problem, answer) = (problem.unwrap_or_default(), answer.unwrap_or_default());
            *counts
                .entry(problem.to_owned())
                .or_default()
                .entry(answer.to_owned())
                .or_default() += 1;
        }
    }
    Ok(counts)
}
