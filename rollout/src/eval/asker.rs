//! Questions -> predictions: keeps the engine's rows filled. What comes out has no verdict yet.

use std::collections::HashMap;

use anyhow::Result;
use shared::ids::Ticket;
use shared::record::FinishReason;

use super::predictions::Prediction;
use super::prompts::Prompts;
use super::question::Question;
use super::questions::{Asked, Questions};
use crate::engine::{Engine, FinishedGroup, Job};

/// Skipped samples that are kept by name.
const MAX_NAMED: usize = 20;

/// Samples that do not count.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    pub(super) count: usize,
    /// The first few, with the reason.
    pub(super) named: Vec<String>,
}

/// Questions on their way through an engine that has nothing else to do.
pub(super) struct Asker<'a> {
    questions: &'a Questions,
    prompts: &'a Prompts,
    /// Responses per question.
    num_samples: usize,
    /// Indices of those to submit, the next one last.
    to_ask: Vec<usize>,
    /// Questions under way, and their prompts.
    waiting: HashMap<Ticket, (Question, String)>,
    skipped: Skipped,
    num_done: usize,
}

impl<'a> Asker<'a> {
    /// Asks the questions of `indices`, in that order, for `num_samples` responses each.
    pub(super) fn new(
        questions: &'a Questions,
        prompts: &'a Prompts,
        num_samples: usize,
        indices: impl DoubleEndedIterator<Item = usize>,
    ) -> Self {
        Self {
            questions,
            prompts,
            num_samples,
            to_ask: indices.rev().collect(),
            waiting: HashMap::new(),
            skipped: Skipped::default(),
            num_done: 0,
        }
    }

    /// Questions that are answered, or cannot be.
    pub(super) fn num_done(&self) -> usize {
        self.num_done
    }

    /// What did not count.
    pub(super) fn into_skipped(self) -> Skipped {
        self.skipped
    }

    /// Asks no more; what is under way still comes to its end.
    pub(super) fn abandon(&mut self) {
        self.to_ask.clear();
    }

    /// Fills the rows and takes one step; the predictions that came of it, or nothing when everything is done.
    pub(super) fn advance(&mut self, engine: &mut Engine) -> Result<Option<Vec<Prediction>>> {
        let mut made = Vec::new();
        while engine.has_room() {
            let Some(index) = self.to_ask.pop() else {
                break;
            };
            self.submit(index, engine, &mut made)?;
        }
        if engine.is_idle() {
            return Ok((!made.is_empty()).then_some(made));
        }
        engine.step()?;
        for group in engine.take_finished() {
            self.keep(&group, &mut made)?;
        }
        Ok(Some(made))
    }

    fn submit(
        &mut self,
        index: usize,
        engine: &mut Engine,
        made: &mut Vec<Prediction>,
    ) -> Result<()> {
        let (question, sample) = match self.questions.get(index)? {
            Asked::Whole(question, sample) => (question, sample),
            Asked::Broken(question, reason) => {
                self.break_off(&question, &reason, made);
                return Ok(());
            }
            Asked::Skipped(reason) => {
                self.skip(reason);
                return Ok(());
            }
        };
        match self.prompts.build(&sample) {
            Ok(built) => {
                let ticket = Ticket(index as u64);
                engine.submit(Job {
                    ticket,
                    group_size: self.num_samples,
                    has_greedy: false,
                    prompt: built.inputs,
                    blank: None,
                })?;
                self.waiting.insert(ticket, (question, built.text));
            }
            Err(error) if self.questions.counts_all() => {
                self.break_off(&question, &format!("{error:#}"), made);
            }
            Err(error) => self.skip(format!("sample {}: {error:#}", sample.id)),
        }
        Ok(())
    }

    fn skip(&mut self, reason: String) {
        self.num_done += 1;
        self.skipped.count += 1;
        if self.skipped.named.len() < MAX_NAMED {
            tracing::warn!("skipped {reason}");
            self.skipped.named.push(reason);
        }
    }

    /// A question of a benchmark that cannot be asked: each of its samples is wrong.
    fn break_off(&mut self, question: &Question, reason: &str, made: &mut Vec<Prediction>) {
        tracing::warn!("{}: {reason}; it counts as wrong", question.id);
        made.extend((0..self.num_samples).map(|sample| Prediction {
            error: Some(reason.to_owned()),
            ..Prediction::unanswered(question.clone(), sample)
        }));
        self.num_done += 1;
    }

    fn keep(&mut self, group: &FinishedGroup, made: &mut Vec<Prediction>) -> Result<()> {
        let Some((question, prompt)) = self.waiting.remove(&group.ticket) else {
            return Ok(());
        };
        for (sample, response) in group.responses.iter().enumerate() {
            let tokenizer = &self.prompts.processor().tokenizer;
            let finish = match response.finish_reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
            };
            made.push(Prediction {
                prompt: prompt.clone(),
                response: Some(tokenizer.decode(&response.token_ids, true)?),
                finish: finish.to_owned(),
                num_tokens: response.token_ids.len(),
                ..Prediction::unanswered(question.clone(), sample)
            });
        }
        self.num_done += 1;
        Ok(())
    }
}
