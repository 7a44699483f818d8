//! Questions -> predictions: keeps the engine's rows filled, and scores what comes out by the rules.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use shared::ids::Ticket;
use shared::record::FinishReason;
use shared::telemetry::Progress;

use super::PROGRESS_EVERY;
use super::predictions::{Prediction, Predictions};
use super::prompts::Prompts;
use super::question::Question;
use super::questions::{Asked, Questions};
use super::rules::{self, Verdict};
use crate::engine::{Engine, FinishedGroup, Job};
use crate::stop::Stop;

/// Skipped samples that are kept by name.
const MAX_NAMED: usize = 20;

/// Samples that do not count.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    pub(super) count: usize,
    /// The first few, with the reason.
    pub(super) named: Vec<String>,
}

/// An evaluation under way.
pub(super) struct Generation<'a> {
    pub(super) questions: &'a Questions,
    pub(super) prompts: &'a Prompts,
    pub(super) engine: Engine,
    pub(super) predictions: &'a mut Predictions,
    pub(super) skipped: Skipped,
    /// Questions in all.
    pub(super) num_questions: usize,
    /// The next to submit.
    next: usize,
    /// Questions under way, and their prompts.
    waiting: HashMap<Ticket, (Question, String)>,
    /// Questions that are done, those of an earlier call included.
    num_done: usize,
    /// Of this call.
    num_here: usize,
    num_right: usize,
    num_judged: usize,
    started: Instant,
}

impl<'a> Generation<'a> {
    pub(super) fn new(
        questions: &'a Questions,
        prompts: &'a Prompts,
        engine: Engine,
        predictions: &'a mut Predictions,
        num_questions: usize,
    ) -> Self {
        let num_done = (0..num_questions)
            .filter(|index| predictions.has(*index))
            .count();
        Self {
            questions,
            prompts,
            engine,
            predictions,
            skipped: Skipped::default(),
            num_questions,
            next: 0,
            waiting: HashMap::new(),
            num_done,
            num_here: 0,
            num_right: 0,
            num_judged: 0,
            started: Instant::now(),
        }
    }

    /// Until all are answered, or the flag goes up: then what is there stays in the file.
    pub(super) fn run(mut self, progress: &Progress, stop: &Stop) -> Result<Skipped> {
        let mut shown = Instant::now();
        while self.advance()? {
            if shown.elapsed() >= PROGRESS_EVERY {
                progress.step(self.num_done as u64, &self.line());
                shown = Instant::now();
            }
            if stop.is_raised() {
                let how = match self.predictions.path() {
                    Some(path) => format!("; {} keeps them, run again to go on", path.display()),
                    None => String::new(),
                };
                bail!(
                    "stopped after {} of {} samples{how}",
                    self.num_done,
                    self.num_questions
                );
            }
        }
        Ok(self.skipped)
    }

    /// Where it stands, and how long it will take.
    fn line(&self) -> String {
        let share = rules_share(self.num_right, self.num_judged);
        let left = self.num_questions.saturating_sub(self.num_done);
        let per_question =
            self.started.elapsed() / u32::try_from(self.num_here.max(1)).unwrap_or(u32::MAX);
        let left = per_question.saturating_mul(u32::try_from(left).unwrap_or(u32::MAX));
        let time = if self.num_here == 0 {
            "?".to_owned()
        } else {
            clock(left)
        };
        format!("accuracy {:.1} %  time left {time}", 100.0 * share)
    }

    /// Fills the rows and takes one step; false when everything is done.
    fn advance(&mut self) -> Result<bool> {
        while self.next < self.num_questions && self.engine.has_room() {
            let index = self.next;
            self.next += 1;
            if !self.predictions.has(index) {
                self.submit(index)?;
            }
        }
        if self.engine.is_idle() {
            return Ok(self.next < self.num_questions);
        }
        self.engine.step()?;
        for group in self.engine.take_finished() {
            self.keep(&group)?;
        }
        Ok(true)
    }

    fn submit(&mut self, index: usize) -> Result<()> {
        let (question, sample) = match self.questions.get(index)? {
            Asked::Whole(question, sample) => (question, sample),
            Asked::Broken(question, reason) => return self.break_off(question, reason),
            Asked::Skipped(reason) => {
                self.skip(reason);
                return Ok(());
            }
        };
        match self.prompts.build(&sample) {
            Ok(built) => {
                let ticket = Ticket(index as u64);
                self.engine.submit(Job {
                    ticket,
                    group_size: self.predictions.settings.samples_per_problem,
                    prompt: built.inputs,
                    blank: None,
                })?;
                self.waiting.insert(ticket, (question, built.text));
                Ok(())
            }
            Err(error) if self.predictions.settings.benchmark.is_some() => {
                self.break_off(question, format!("{error:#}"))
            }
            Err(error) => {
                self.skip(format!("sample {}: {error:#}", sample.id));
                Ok(())
            }
        }
    }

    fn skip(&mut self, reason: String) {
        self.num_done += 1;
        self.num_here += 1;
        self.skipped.count += 1;
        if self.skipped.named.len() < MAX_NAMED {
            tracing::warn!("skipped {reason}");
            self.skipped.named.push(reason);
        }
    }

    /// A question of a benchmark that cannot be asked: each of its samples is wrong.
    fn break_off(&mut self, question: Question, reason: String) -> Result<()> {
        tracing::warn!("{}: {reason}; it counts as wrong", question.id);
        for sample in 0..self.predictions.settings.samples_per_problem {
            self.predictions.add(Prediction {
                question: question.clone(),
                sample,
                prompt: String::new(),
                response: None,
                finish: String::new(),
                num_tokens: 0,
                error: Some(reason.clone()),
                extraction: None,
                is_right_by_rules: false,
                judge: None,
                is_right: false,
                is_well_formed: false,
            })?;
            self.num_judged += 1;
        }
        self.num_done += 1;
        self.num_here += 1;
        Ok(())
    }

    fn keep(&mut self, group: &FinishedGroup) -> Result<()> {
        let Some((question, prompt)) = self.waiting.remove(&group.ticket) else {
            return Ok(());
        };
        for (sample, response) in group.responses.iter().enumerate() {
            let tokenizer = &self.prompts.processor().tokenizer;
            let finish = match response.finish_reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
            };
            let mut prediction = Prediction {
                question: question.clone(),
                sample,
                prompt: prompt.clone(),
                response: Some(tokenizer.decode(&response.token_ids, true)?),
                finish: finish.to_owned(),
                num_tokens: response.token_ids.len(),
                error: None,
                extraction: None,
                is_right_by_rules: false,
                judge: None,
                is_right: false,
                is_well_formed: false,
            };
            prediction.score(self.predictions.settings.benchmark);
            self.num_right += usize::from(prediction.is_right);
            self.num_judged += 1;
            self.predictions.add(prediction)?;
        }
        self.num_done += 1;
        self.num_here += 1;
        Ok(())
    }
}

impl Prediction {
    /// By the rules; what a judge said stands.
    pub(super) fn score(&mut self, benchmark: Option<super::Benchmark>) {
        let Some(response) = &self.response else {
            return;
        };
        let Verdict {
            extraction,
            is_right,
        } = match benchmark {
            Some(benchmark) => benchmark.score(&self.question, response),
            None => rules::score_box(&self.question, response),
        };
        let judged = self.judge.as_ref().and_then(|judge| judge.is_right);
        self.is_well_formed = rules::is_well_formed(response);
        self.extraction = extraction;
        self.is_right_by_rules = is_right;
        self.is_right = is_right || judged == Some(true);
    }
}

fn rules_share(num_right: usize, num: usize) -> f64 {
    super::interval::to_f64(num_right) / super::interval::to_f64(num.max(1))
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
