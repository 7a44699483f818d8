//! Accuracy, pass@k and why responses ended; as text and as JSON.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use shared::record::FinishReason;

use super::args::EvalArgs;
use crate::engine::Response;

/// Skipped samples that are kept by name.
const MAX_NAMED: usize = 20;

/// Everything there is to say about an evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    model: String,
    data: String,
    prompt_template: Option<PathBuf>,
    limit: Option<usize>,
    max_prompt_tokens: usize,
    max_response_tokens: usize,
    temperature: f64,
    top_p: f64,
    top_k: usize,
    seed: u64,
    samples_per_problem: usize,
    /// Evaluated ones: what was skipped is not among them.
    num_problems: usize,
    /// Mean over all responses, in [0, 1].
    accuracy: f64,
    /// Of the mean over problems of their share of right responses.
    standard_error: f64,
    /// pass@1, pass@2, ... pass@samples_per_problem.
    pass_at_k: Vec<f64>,
    well_formed: f64,
    mean_response_tokens: f64,
    finished_stop: usize,
    finished_length: usize,
    num_skipped: usize,
    /// The first few, with the reason.
    skipped: Vec<String>,
    /// One per problem, in the order of the data set.
    pub samples: Vec<SampleResult>,
}

/// One problem and what was answered.
#[derive(Debug, Clone, Serialize)]
pub struct SampleResult {
    index: u64,
    /// The sample's name.
    pub id: String,
    /// The right answer.
    pub answer: String,
    /// Right responses.
    pub num_right: usize,
    responses: Vec<ResponseResult>,
}

/// One response.
#[derive(Debug, Clone, Serialize)]
struct ResponseResult {
    text: String,
    is_right: bool,
    is_well_formed: bool,
    finish: &'static str,
    num_tokens: usize,
}

impl SampleResult {
    /// Without a response yet.
    #[must_use]
    pub fn new(index: u64, id: String, answer: String) -> Self {
        Self {
            index,
            id,
            answer,
            num_right: 0,
            responses: Vec::new(),
        }
    }

    /// Adds a judged response.
    pub fn add(&mut self, text: String, is_right: bool, is_well_formed: bool, response: &Response) {
        self.num_right += usize::from(is_right);
        let finish = match response.finish_reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        };
        let num_tokens = response.token_ids.len();
        self.responses.push(ResponseResult {
            text,
            is_right,
            is_well_formed,
            finish,
            num_tokens,
        });
    }

    fn share_right(&self) -> f64 {
        mean(
            self.responses
                .iter()
                .map(|response| f64::from(u8::from(response.is_right))),
        )
    }
}

impl Report {
    /// An empty one.
    #[must_use]
    pub fn new(args: &EvalArgs, model: &str) -> Self {
        Self {
            model: model.to_owned(),
            data: args.data.clone(),
            prompt_template: args.prompt_template.clone(),
            limit: args.limit,
            max_prompt_tokens: args.max_prompt_tokens,
            max_response_tokens: args.max_response_tokens,
            temperature: args.temperature(),
            top_p: args.top_p,
            top_k: args.top_k,
            seed: args.seed,
            samples_per_problem: args.samples,
            num_problems: 0,
            accuracy: 0.0,
            standard_error: 0.0,
            pass_at_k: Vec::new(),
            well_formed: 0.0,
            mean_response_tokens: 0.0,
            finished_stop: 0,
            finished_length: 0,
            num_skipped: 0,
            skipped: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Adds a problem's result.
    pub fn add(&mut self, sample: SampleResult) {
        self.samples.push(sample);
    }

    /// Counts a sample that cannot be used, and names the first few.
    pub fn skip(&mut self, reason: String) {
        self.num_skipped += 1;
        if self.skipped.len() < MAX_NAMED {
            tracing::warn!("skipped {reason}");
            self.skipped.push(reason);
        }
    }

    /// Samples that could not be used.
    #[must_use]
    pub fn num_skipped(&self) -> usize {
        self.num_skipped
    }

    /// Where the evaluation of so many problems stands.
    #[must_use]
    pub fn line(&self, num_samples: usize) -> String {
        let accuracy = mean(self.samples.iter().map(SampleResult::share_right));
        format!(
            "{} of {num_samples} problems  accuracy {:.1} %",
            self.samples.len() + self.num_skipped,
            100.0 * accuracy
        )
    }

    /// Puts the results in order and computes the figures.
    #[must_use]
    pub fn finish(mut self) -> Self {
        self.samples.sort_by_key(|sample| sample.index);
        self.num_problems = self.samples.len();
        let shares: Vec<f64> = self.samples.iter().map(SampleResult::share_right).collect();
        self.accuracy = mean(shares.iter().copied());
        self.standard_error = standard_error(&shares);
        self.pass_at_k = (1..=self.samples_per_problem)
            .map(|k| {
                mean(
                    self.samples
                        .iter()
                        .map(|sample| pass_at_k(sample.responses.len(), sample.num_right, k)),
                )
            })
            .collect();
        let responses = || self.samples.iter().flat_map(|sample| &sample.responses);
        self.well_formed =
            mean(responses().map(|response| f64::from(u8::from(response.is_well_formed))));
        self.mean_response_tokens = mean(responses().map(|response| to_f64(response.num_tokens)));
        self.finished_stop = responses()
            .filter(|response| response.finish == "stop")
            .count();
        self.finished_length = responses()
            .filter(|response| response.finish == "length")
            .count();
        self
    }

    /// For a person.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        let how = if self.temperature == 0.0 {
            "greedy".to_owned()
        } else {
            format!(
                "pass@1 from {} responses per problem at temperature {}",
                self.samples_per_problem, self.temperature
            )
        };
        let skipped = match self.num_skipped {
            0 => "none skipped".to_owned(),
            n => format!("{n} skipped, which do not count"),
        };
        writeln!(out, "model        {}", self.model)?;
        writeln!(
            out,
            "data         {}: {} problems, {skipped}",
            self.data, self.num_problems
        )?;
        writeln!(
            out,
            "accuracy     {:.2} % +- {:.2} ({how})",
            100.0 * self.accuracy,
            100.0 * self.standard_error
        )?;
        for (index, pass) in self.pass_at_k.iter().enumerate().skip(1) {
            let k = index + 1;
            if k.is_power_of_two() || k == self.samples_per_problem {
                writeln!(out, "{:<12} {:.2} %", format!("pass@{k}"), 100.0 * pass)?;
            }
        }
        writeln!(out, "well formed  {:.2} %", 100.0 * self.well_formed)?;
        writeln!(
            out,
            "finished     {} by the end token, {} at the length limit",
            self.finished_stop, self.finished_length
        )?;
        writeln!(out, "length       {:.1} tokens", self.mean_response_tokens)?;
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

/// The chance that at least one of `k` responses is right, estimated without bias from `num_right` of `n`:
/// 1 - C(n - c, k) / C(n, k).
#[must_use]
pub fn pass_at_k(n: usize, num_right: usize, k: usize) -> f64 {
    let wrong = n - num_right.min(n);
    if k == 0 || n == 0 {
        return 0.0;
    }
    if wrong < k {
        return 1.0;
    }
    // C(n - c, k) / C(n, k) = product over i in n - c + 1 ..= n of (1 - k / i).
    1.0 - (wrong + 1..=n)
        .map(|i| 1.0 - to_f64(k) / to_f64(i))
        .product::<f64>()
}

/// 0 for none.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value;
        count += 1;
    }
    if count == 0 { 0.0 } else { sum / to_f64(count) }
}

/// Of the mean of `values`, with N - 1; 0 for fewer than two.
fn standard_error(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values.iter().copied());
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / to_f64(values.len() - 1) / to_f64(values.len())).sqrt()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn to_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::{pass_at_k, standard_error};

    #[test]
    fn pass_at_k_equals_counting_the_subsets() {
        for n in 1..8_usize {
            for right in 0..=n {
                for k in 1..=n {
                    let subsets = (0..1_u32 << n).filter(|set| set.count_ones() as usize == k);
                    let (mut hits, mut total) = (0, 0);
                    for set in subsets {
                        total += 1;
                        hits += u32::from(set & ((1 << right) - 1) != 0);
                    }
                    let expected = f64::from(hits) / f64::from(total);
                    assert!(
                        (pass_at_k(n, right, k) - expected).abs() < 1e-12,
                        "{n} {right} {k}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_standard_error_of_coin_flips() {
        let values = [1.0, 0.0, 1.0, 0.0];
        assert!((standard_error(&values) - (1.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(standard_error(&[1.0]), 0.0);
    }
}
