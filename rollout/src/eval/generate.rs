//! An evaluation under way: questions -> predictions, scored by the rules as they come.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use shared::telemetry::Progress;

use super::PROGRESS_EVERY;
use super::asker::{Asker, Skipped};
use super::interval::to_f64;
use super::predictions::{Prediction, Predictions};
use super::prompts::Prompts;
use super::questions::Questions;
use super::rules;
use crate::engine::Engine;
use crate::reward::Verifier;
use crate::stop::Stop;

/// Asks what is missing among the predictions.
pub(super) struct Generation<'a> {
    asker: Asker<'a>,
    engine: Engine,
    predictions: &'a mut Predictions,
    verifier: &'a Verifier,
    /// Questions in all.
    num_questions: usize,
    /// Of them, those answered in an earlier call.
    num_before: usize,
    sum_accuracy: f64,
    num_judged: usize,
    started: Instant,
}

impl<'a> Generation<'a> {
    pub(super) fn new(
        questions: &'a Questions,
        prompts: &'a Prompts,
        engine: Engine,
        predictions: &'a mut Predictions,
        verifier: &'a Verifier,
        num_questions: usize,
    ) -> Self {
        let missing: Vec<usize> = (0..num_questions)
            .filter(|index| !predictions.has(*index))
            .collect();
        let num_samples = predictions.settings.samples_per_problem;
        Self {
            num_before: num_questions - missing.len(),
            asker: Asker::new(questions, prompts, num_samples, missing.into_iter()),
            engine,
            predictions,
            verifier,
            num_questions,
            sum_accuracy: 0.0,
            num_judged: 0,
            started: Instant::now(),
        }
    }

    /// Until all are answered, or the flag goes up: then what is there stays in the file.
    pub(super) fn run(mut self, progress: &Progress, stop: &Stop) -> Result<Skipped> {
        let mut shown = Instant::now();
        while let Some(made) = self.asker.advance(&mut self.engine)? {
            for prediction in made {
                self.keep(prediction)?;
            }
            if shown.elapsed() >= PROGRESS_EVERY {
                progress.step(self.num_done() as u64, &self.line());
                shown = Instant::now();
            }
            if stop.is_raised() {
                let how = match self.predictions.path() {
                    Some(path) => format!("; {} keeps them, run again to go on", path.display()),
                    None => String::new(),
                };
                bail!(
                    "stopped after {} of {} samples{how}",
                    self.num_done(),
                    self.num_questions
                );
            }
        }
        Ok(self.asker.into_skipped())
    }

    fn num_done(&self) -> usize {
        self.num_before + self.asker.num_done()
    }

    /// Where it stands, and how long it will take.
    fn line(&self) -> String {
        let share = self.sum_accuracy / to_f64(self.num_judged.max(1));
        let left = self.num_questions.saturating_sub(self.num_done());
        let num_here = self.asker.num_done();
        let per_question =
            self.started.elapsed() / u32::try_from(num_here.max(1)).unwrap_or(u32::MAX);
        let left = per_question.saturating_mul(u32::try_from(left).unwrap_or(u32::MAX));
        let time = if num_here == 0 {
            "?".to_owned()
        } else {
            clock(left)
        };
        format!("accuracy {:.1} %  time left {time}", 100.0 * share)
    }

    fn keep(&mut self, mut prediction: Prediction) -> Result<()> {
        prediction.score(self.predictions.settings.benchmark, self.verifier);
        self.sum_accuracy += prediction.accuracy();
        self.num_judged += 1;
        self.predictions.add(prediction)
    }
}

impl Prediction {
    /// By the rules; what a judge said stands.
    pub(super) fn score(&mut self, benchmark: Option<super::Benchmark>, verifier: &Verifier) {
        let Some(response) = &self.response else {
            return;
        };
        let verdict = match benchmark {
            Some(benchmark) => benchmark.score(&self.question, response, verifier),
            None => rules::score_box(&self.question, response, verifier),
        };
        let judged = self.judge.as_ref().and_then(|judge| judge.is_right);
        let is_right = verdict.is_right();
        self.is_well_formed = rules::is_well_formed(response, verifier);
        let is_part = verdict.accuracy > 0.0 && verdict.accuracy < 1.0;
        self.credit = is_part.then_some(verdict.accuracy);
        self.extraction = verdict.extraction;
        self.is_right_by_rules = is_right;
        self.is_right = is_right || judged == Some(true);
    }
}

/// `2:05:09`, `5:09`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        assert_eq!(clock(Duration::from_secs(7509)), "2:05:09");
        assert_eq!(clock(Duration::from_secs(309)), "5:09");
    }
}
