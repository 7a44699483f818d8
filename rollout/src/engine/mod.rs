//! The engine: many responses decoded side by side.
//!
//! A step is `schedule -> run -> sample -> finish`. Rows are independent: what a response says depends on the weights, its
//! prompt and its random stream (run seed, ticket, response index), never on what shares the pass.
//!
//! # Layout
//! - `session`: the model on ONNX Runtime; this module alone names `ort`
//! - `kernel`: what ONNX Runtime lacks on the CPU: attention over shared blocks
//! - `backend`: what runs the model and keeps what it read, either of:
//! - `blocks`: with a cache in blocks, on the CPU; `rows`: with one in rows of fixed size, on a device
//! - `ready`: a version of the weights as either takes it up
//! - `cache`: keys and values, in blocks that sequences take and give back
//! - `packed`: matrices as our own products read them, made from each version of the weights
//! - `library`: where the ONNX Runtime library is
//! - `inputs`: a prompt as the model takes it
//! - `schedule`: which responses are under way, and which come next
//! - `pass`: new tokens of many sequences, packed
//! - `group`: a group while it is generated
//! - `admit`: waiting responses into free rows
//! - `decode`: a pass with one token per row; `stream`: passes over known tokens (prompts, `score`)
//! - `finish`: groups that are over, and the pass without their image
//! - `sample`: the sampler over many rows
//! - `spent`: where the time went

mod admit;
mod backend;
mod blocks;
pub mod cache;
mod decode;
mod finish;
mod group;
mod inputs;
mod kernel;
pub mod library;
mod packed;
mod pass;
mod ready;
pub mod rows;
mod sample;
mod schedule;
mod score;
pub mod session;
mod spent;
mod stream;

use std::collections::HashMap;
use std::time::Instant;

use shared::ids::PolicyVersion;
use shared::record::Precision;

pub use cache::{KvCache, blocks_of};
pub use group::{FinishedGroup, Job, Response};
pub use inputs::PromptInputs;
pub use pass::{Pass, Piece};
pub use ready::ReadyWeights;
pub use session::{
    EngineKind, EngineLoader, EngineModel, Enlisted, Haste, HeadSettings, Logits, Products,
    Provider, RowForm, RowHeads, RowLoader, RowModel, RowPass, RowSettings, StagedWeights,
    TensorRt, Threads, build_info, probe,
};
pub use spent::Spent;
pub use stream::{PASS_LOGITS, PASS_TOKENS};

use crate::error::{Error, Result};
use crate::sampler::{Sampler, Sampling, Scored};
use backend::{Backend, NextToken};
use blocks::Blocks;
use group::Group;
use rows::Rows;
use schedule::{Schedule, Seat};

/// What does not change while the engine lives.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Most responses decoded side by side.
    pub rows: usize,
    /// Longest response in tokens, the end token included.
    pub max_response_tokens: usize,
    /// Blocks of the key/value cache: a response starts when those it may come to need are free.
    pub cache_blocks: usize,
    /// Tokens that end a response.
    pub eos: Vec<u32>,
    /// Key of all randomness.
    pub run_seed: u64,
    /// How tokens are drawn and measured.
    pub sampling: Sampling,
}

/// Decodes groups of responses with one version of the weights at a time. After an error it is of no further use.
pub struct Engine {
    settings: EngineSettings,
    backend: Backend,
    version: PolicyVersion,
    samplers: Vec<Sampler>,
    schedule: Schedule,
    groups: HashMap<u64, Group>,
    finished: Vec<FinishedGroup>,
    num_groups: u64,
    num_tokens: u64,
    spent: Spent,
}

impl Engine {
    /// An idle engine with the weights of `version`. On a device it has no more rows than its model.
    ///
    /// # Errors
    /// No memory for the cache, or weights that are meant for a model that is there already.
    pub fn new(
        mut settings: EngineSettings,
        weights: impl Into<ReadyWeights>,
        version: PolicyVersion,
    ) -> Result<Self> {
        let backend = match weights.into() {
            ReadyWeights::Model(model) => {
                Backend::Blocks(Blocks::new(*model, settings.cache_blocks)?)
            }
            ReadyWeights::Device(model) => {
                settings.rows = settings.rows.min(model.settings().decoded_rows);
                Backend::Rows(Rows::new(*model, settings.sampling.clone())?)
            }
            ReadyWeights::Staged(_) => return Err(Error::OtherEngine),
        };
        Ok(Self::with(settings, backend, version))
    }

    fn with(settings: EngineSettings, backend: Backend, version: PolicyVersion) -> Self {
        Self {
            samplers: sample::samplers(&settings.sampling),
            schedule: Schedule::new(settings.rows),
            groups: HashMap::new(),
            finished: Vec::new(),
            num_groups: 0,
            num_tokens: 0,
            spent: Spent::default(),
            settings,
            backend,
            version,
        }
    }

    /// Takes a group in. Its responses start as soon as there are rows and blocks for them.
    ///
    /// # Errors
    /// A prompt that would never find room in the cache, or an image that a device's engine is not built for.
    pub fn submit(&mut self, job: Job) -> Result<()> {
        let longest = self.settings.max_response_tokens;
        self.backend.check(&job.prompt, longest)?;
        // Filed under a number of our own: a ticket may come twice.
        self.schedule.push(self.num_groups, job.num_responses());
        self.groups.insert(self.num_groups, Group::new(job));
        self.num_groups += 1;
        Ok(())
    }

    /// Goes on with other weights. Responses under way keep what is cached of their prompt and say so in their versions.
    ///
    /// # Errors
    /// Weights for another engine, which changes nothing, or ONNX Runtime's.
    pub fn set_weights(
        &mut self,
        weights: impl Into<ReadyWeights>,
        version: PolicyVersion,
    ) -> Result<()> {
        match (&mut self.backend, weights.into()) {
            (Backend::Blocks(blocks), ReadyWeights::Model(model)) => blocks.set_model(*model),
            (Backend::Rows(rows), ReadyWeights::Staged(mut weights)) => {
                rows.model_mut().replace_weights(&mut weights)?;
            }
            _ => return Err(Error::OtherEngine),
        }
        self.version = version;
        Ok(())
    }

    /// Frees what was replaced, as every step does at its end: the first one with new weights asks for much memory, and would
    /// wait for every piece that is given back meanwhile. An engine that has nothing to do takes no step: whoever waits with it calls this.
    pub fn retire_replaced(&mut self) {
        self.backend.retire_replaced();
    }

    /// Draws tokens another way from here on. To be called when idle: what is under way would change its distribution.
    ///
    /// # Errors
    /// On a device, another number of banned tokens; nothing changes.
    pub fn set_sampling(&mut self, sampling: Sampling) -> Result<()> {
        if let Backend::Rows(rows) = &mut self.backend {
            rows.set_sampling(sampling.clone())?;
        }
        self.samplers = sample::samplers(&sampling);
        self.settings.sampling = sampling;
        Ok(())
    }

    /// The weights in use.
    #[must_use]
    pub fn version(&self) -> PolicyVersion {
        self.version
    }

    /// What an engine on a device computes in, whatever precision was asked for.
    #[must_use]
    pub fn device_precision(&self) -> Option<Precision> {
        match &self.backend {
            Backend::Blocks(_) => None,
            Backend::Rows(rows) => Some(rows.precision()),
        }
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

    /// Where the time went since the start.
    #[must_use]
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// Brings every row one token further. Does nothing when idle.
    ///
    /// # Errors
    /// ONNX Runtime's, or weights that give no distribution.
    pub fn step(&mut self) -> Result<()> {
        self.schedule()?;
        let tokens = self.run()?;
        self.accept(&tokens);
        self.retire_replaced();
        self.finish()
    }

    /// One decoding pass over the rows in use, and a token for each.
    fn run(&mut self) -> Result<Vec<Scored>> {
        let start = Instant::now();
        for seat in self.schedule.rows() {
            if let Some(group) = self.groups.get_mut(&seat.group) {
                let tokens = group.cached_tokens(seat.response) + 1;
                if let Some(place) = &mut group.places[seat.response] {
                    self.backend.extend(place, tokens)?;
                }
            }
        }
        let seed = self.settings.run_seed;
        let of_row = |seat: &Seat| next_token(self.groups.get(&seat.group)?, seat.response, seed);
        let tokens: Vec<NextToken<'_>> = self.schedule.rows().iter().filter_map(of_row).collect();
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        self.spent.decode += start.elapsed();
        self.backend
            .step(&mut self.samplers, &tokens, &mut self.spent)
    }

    /// Adds the drawn tokens to their responses and frees the rows that came to an end.
    fn accept(&mut self, tokens: &[Scored]) {
        let seats = self.schedule.rows().to_vec();
        for (seat, &token) in seats.into_iter().zip(tokens) {
            self.extend(seat, token, self.version);
        }
        self.free_rows();
    }

    /// Adds a token to a response. When it was the last, its blocks are free again.
    fn extend(&mut self, seat: Seat, token: Scored, version: PolicyVersion) {
        self.num_tokens += 1;
        let Some(group) = self.groups.get_mut(&seat.group) else {
            return;
        };
        let is_eos = self.settings.eos.contains(&token.token);
        let max_tokens = self.settings.max_response_tokens;
        if group.responses[seat.response].push(token, version, is_eos, max_tokens) {
            group.is_over[seat.response] = true;
            group.unfinished -= 1;
            if let Some(place) = group.places[seat.response].take() {
                self.backend.give_back(place, max_tokens);
            }
        }
    }

    /// Frees the rows of responses that have ended.
    fn free_rows(&mut self) {
        let groups = &self.groups;
        self.schedule.retain(|seat| {
            let group = groups.get(&seat.group);
            group.is_none_or(|group| group.is_over[seat.response])
        });
    }
}

/// The last token of a response, which the next pass reads.
fn next_token(group: &Group, response: usize, seed: u64) -> Option<NextToken<'_>> {
    let tokens = &group.responses[response].token_ids;
    let (prompt, cached) = (&group.job.prompt, group.cached_tokens(response));
    Some(NextToken {
        token_id: *tokens.last()?,
        position: prompt.position(0, prompt.len() + cached),
        prompt: group.prompt_place.as_ref(),
        prompt_tokens: prompt.len(),
        response: group.places[response].as_ref()?,
        cached,
        uniform: group.next_uniform(seed, response),
    })
}

/// usize is at most 64 bits wide.
fn to_u64(n: usize) -> u64 {
    n as u64
}
