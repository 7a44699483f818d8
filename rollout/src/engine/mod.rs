//! The engine: many responses decoded side by side.
//!
//! A step is `schedule -> run -> sample -> finish`. Rows are independent: what a response says depends on the weights, its
//! prompt and its random stream (run seed, ticket, response index), never on what shares the pass.
//!
//! # Layout
//! - `session`: the model on ONNX Runtime; the only file that names `ort`
//! - `cache`: keys and values of the rows
//! - `library`: where the ONNX Runtime library is
//! - `inputs`: a prompt as the model takes it
//! - `schedule`: which response sits in which row
//! - `prefill`, `decode`, `score`: the three kinds of pass
//! - `sample`: the sampler over many rows

pub mod cache;
mod decode;
mod group;
mod inputs;
pub mod library;
mod prefill;
mod sample;
mod schedule;
mod score;
pub mod session;

use std::collections::HashMap;

use shared::ids::PolicyVersion;

pub use cache::KvCache;
pub use group::{FinishedGroup, Job, Response};
pub use inputs::PromptInputs;
pub use session::{
    EngineKind, EngineLoader, EngineModel, ForwardInputs, Logits, build_info, probe,
};

use crate::error::Result;
use crate::sampler::{Sampler, Sampling, Scored, uniform};
use decode::NextToken;
use group::Group;
use schedule::{Schedule, Seat};

/// What does not change while the engine lives.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Most responses decoded side by side.
    pub rows: usize,
    /// Longest response in tokens, the end token included.
    pub max_response_tokens: usize,
    /// Tokens that end a response.
    pub eos: Vec<u32>,
    /// Key of all randomness.
    pub run_seed: u64,
    /// How tokens are drawn and measured.
    pub sampling: Sampling,
}

/// Decodes groups of responses with one version of the weights at a time.
pub struct Engine {
    settings: EngineSettings,
    model: EngineModel,
    version: PolicyVersion,
    samplers: Vec<Sampler>,
    schedule: Schedule,
    groups: HashMap<u64, Group>,
    /// Keys and values of the rows being decoded.
    rows_cache: KvCache,
    /// Of the prompt at the head of the queue, until its last response has a row.
    prompt_cache: KvCache,
    /// Of passes that are thrown away.
    score_cache: KvCache,
    finished: Vec<FinishedGroup>,
    num_groups: u64,
    num_tokens: u64,
}

impl Engine {
    /// An idle engine with the weights of `version`.
    #[must_use]
    pub fn new(settings: EngineSettings, model: EngineModel, version: PolicyVersion) -> Self {
        let text = &model.config().text;
        Self {
            samplers: sample::samplers(&settings.sampling),
            schedule: Schedule::new(settings.rows),
            groups: HashMap::new(),
            rows_cache: KvCache::new(text, settings.rows.max(1), 0),
            prompt_cache: KvCache::new(text, 0, 0),
            score_cache: KvCache::new(text, 0, 0),
            finished: Vec::new(),
            num_groups: 0,
            num_tokens: 0,
            settings,
            model,
            version,
        }
    }

    /// Takes a group in. Its responses start as soon as rows are free.
    pub fn submit(&mut self, job: Job) {
        // Filed under a number of our own: a ticket may come twice.
        self.schedule.push(self.num_groups, job.group_size);
        self.groups.insert(self.num_groups, Group::new(job));
        self.num_groups += 1;
    }

    /// Goes on with other weights. Responses under way keep what is cached of their prompt and say so in their versions.
    pub fn set_model(&mut self, model: EngineModel, version: PolicyVersion) {
        self.model = model;
        self.version = version;
    }

    /// The weights in use.
    #[must_use]
    pub fn version(&self) -> PolicyVersion {
        self.version
    }

    /// Whether no response is under way or waiting.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.groups.is_empty()
    }

    /// Whether a group submitted now would find a free row at the next step.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.schedule.rows().len() + self.schedule.num_waiting() < self.schedule.max_rows()
    }

    /// Rows in use.
    #[must_use]
    pub fn rows_in_use(&self) -> usize {
        self.schedule.rows().len()
    }

    /// Response tokens drawn since the start.
    #[must_use]
    pub fn num_tokens(&self) -> u64 {
        self.num_tokens
    }

    /// Groups that came to their end, in the order they did.
    pub fn take_finished(&mut self) -> Vec<FinishedGroup> {
        std::mem::take(&mut self.finished)
    }

    /// Brings every row one token further. Does nothing when idle.
    ///
    /// # Errors
    /// ONNX Runtime's, or weights that give no distribution.
    pub fn step(&mut self) -> Result<()> {
        self.schedule()?;
        if let Some(logits) = self.run()? {
            let tokens = self.sample(&logits)?;
            self.accept(&tokens)?;
        }
        Ok(())
    }

    /// Fills free rows: the prompt's first pass once per group, then its cache into each row with the first token.
    fn schedule(&mut self) -> Result<()> {
        while let Some(seat) = self.schedule.place() {
            let row = self.schedule.rows().len() - 1;
            let Some(group) = self.groups.get_mut(&seat.group) else {
                continue;
            };
            if group.first_logits.is_none() {
                group.first_logits = Some(prefill::prefill(
                    &mut self.model,
                    &mut self.prompt_cache,
                    &group.job.prompt,
                )?);
                group.prefill_version = self.version;
            }
            let Some(logits) = &group.first_logits else {
                continue;
            };
            let number = uniform(
                self.settings.run_seed,
                group.job.ticket.0,
                to_u64(seat.response),
                0,
            );
            let token = sample::draw_rows(&mut self.samplers, &[logits], &[number])?;
            let prompt_tokens = group.job.prompt.len();
            let version = group.prefill_version;
            if seat.response + 1 == group.job.group_size {
                group.first_logits = None;
            }
            self.make_room(row, prompt_tokens + 1)?;
            self.rows_cache
                .copy_rows(&self.prompt_cache, 0, row..row + 1, prompt_tokens)?;
            if self.extend(seat, token[0], version) {
                self.finish(row)?;
            }
        }
        Ok(())
    }

    /// One decoding pass over the rows in use; logits [B, V].
    fn run(&mut self) -> Result<Option<Logits>> {
        let tokens: Vec<NextToken> = self
            .schedule
            .rows()
            .iter()
            .filter_map(|seat| self.next_token(*seat))
            .collect();
        let Some(needed) = tokens.iter().map(|token| token.length).max() else {
            return Ok(None);
        };
        self.make_room(tokens.len(), needed)?;
        decode::decode(&mut self.model, &mut self.rows_cache, &tokens).map(Some)
    }

    /// Draws a token per row.
    fn sample(&mut self, logits: &Logits) -> Result<Vec<Scored>> {
        let seed = self.settings.run_seed;
        let number = |seat: &Seat| {
            let group = self.groups.get(&seat.group)?;
            let drawn = group.responses[seat.response].token_ids.len();
            Some(uniform(
                seed,
                group.job.ticket.0,
                to_u64(seat.response),
                to_u64(drawn),
            ))
        };
        let uniforms: Vec<f64> = self.schedule.rows().iter().filter_map(number).collect();
        sample::draw_rows(
            &mut self.samplers,
            &logits.rows()?.collect::<Vec<_>>(),
            &uniforms,
        )
    }

    /// Adds the drawn tokens to their responses and frees the rows that came to an end.
    fn accept(&mut self, tokens: &[Scored]) -> Result<()> {
        // From the last row down: the row that moves into a hole has been looked at already.
        for row in (0..tokens.len()).rev() {
            if self.extend(self.schedule.rows()[row], tokens[row], self.version) {
                self.finish(row)?;
            }
        }
        Ok(())
    }

    /// Adds a token to a response; true when it was the last.
    fn extend(&mut self, seat: Seat, token: Scored, version: PolicyVersion) -> bool {
        self.num_tokens += 1;
        let Some(group) = self.groups.get_mut(&seat.group) else {
            return true;
        };
        let is_eos = self.settings.eos.contains(&token.token);
        group.responses[seat.response].push(
            token,
            version,
            is_eos,
            self.settings.max_response_tokens,
        )
    }

    /// Frees a row; the last response of a group takes the group along.
    fn finish(&mut self, row: usize) -> Result<()> {
        let seat = self.schedule.rows()[row];
        if let Some(source) = self.schedule.finish(row) {
            let moved = self.schedule.rows()[row];
            let length = self
                .groups
                .get(&moved.group)
                .map_or(0, |group| group.cached_tokens(moved.response));
            self.rows_cache.move_row(source, row, length)?;
        }
        let is_last = self.groups.get_mut(&seat.group).is_some_and(|group| {
            group.unfinished -= 1;
            group.unfinished == 0
        });
        if let Some(group) = is_last.then(|| self.groups.remove(&seat.group)).flatten() {
            let finished = self.blank_pass(group)?;
            self.finished.push(finished);
        }
        Ok(())
    }

    /// Scores the responses of a group after its blanked prompt (eq. 8). Without an image nothing changes.
    fn blank_pass(&mut self, group: Group) -> Result<FinishedGroup> {
        let Group {
            job, mut responses, ..
        } = group;
        match &job.blank {
            Some(blank) => {
                let token_ids: Vec<&[u32]> = responses
                    .iter()
                    .map(|response| response.token_ids.as_slice())
                    .collect();
                let scored = score::score(
                    &mut self.model,
                    &mut self.score_cache,
                    &mut self.samplers,
                    blank,
                    &token_ids,
                )?;
                for (response, scored) in responses.iter_mut().zip(scored) {
                    response.blank_logprobs = scored.iter().map(|token| token.logprob).collect();
                    response.blank_entropies = scored.iter().map(|token| token.entropy).collect();
                }
            }
            None => responses.iter_mut().for_each(Response::copy_to_blank),
        }
        Ok(FinishedGroup {
            ticket: job.ticket,
            responses,
        })
    }

    /// Scores given responses after `prompt`: the teacher-forced twin of decoding them.
    ///
    /// # Errors
    /// As for [`Self::step`].
    pub fn score(
        &mut self,
        prompt: &PromptInputs,
        responses: &[&[u32]],
    ) -> Result<Vec<Vec<Scored>>> {
        score::score(
            &mut self.model,
            &mut self.score_cache,
            &mut self.samplers,
            prompt,
            responses,
        )
    }

    /// The last token of a response, which the next pass reads.
    fn next_token(&self, seat: Seat) -> Option<NextToken> {
        let group = self.groups.get(&seat.group)?;
        let tokens = &group.responses[seat.response].token_ids;
        let length = group.job.prompt.len() + tokens.len();
        Some(NextToken {
            token_id: *tokens.last()?,
            position: group.job.prompt.position(0, length - 1),
            length,
        })
    }

    /// Slots for rows of `needed` tokens; the first `rows_in_use` rows keep theirs.
    fn make_room(&mut self, rows_in_use: usize, needed: usize) -> Result<()> {
        let seats = self.schedule.rows().iter().take(rows_in_use);
        let lengths = seats.map(|seat| {
            self.groups
                .get(&seat.group)
                .map_or(0, |group| group.cached_tokens(seat.response))
        });
        decode::grow(&self.model, &mut self.rows_cache, needed, lengths)
    }
}

/// usize is at most 64 bits wide.
fn to_u64(n: usize) -> u64 {
    n as u64
}
