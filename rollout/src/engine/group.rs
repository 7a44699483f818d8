//! A group while it is generated: what was asked, and what has been said so far.

use shared::ids::{PolicyVersion, Ticket};
use shared::record::FinishReason;

use super::backend::{PromptPlace, ResponsePlace};
use super::inputs::PromptInputs;
use super::to_u64;
use crate::sampler::{Scored, uniform};

/// One prompt to answer G times.
#[derive(Debug)]
pub struct Job {
    /// The group's number; keys its randomness.
    pub ticket: Ticket,
    /// G, at least 1.
    pub group_size: usize,
    /// Whether a greedy response is wanted beside the G, as their baseline.
    pub has_greedy: bool,
    /// What the policy sees.
    pub prompt: PromptInputs,
    /// The same without its image; none when there is no image, or no blank pass is wanted.
    pub blank: Option<PromptInputs>,
}

impl Job {
    /// Responses to decode: the G and the greedy one.
    pub(super) fn num_responses(&self) -> usize {
        self.group_size + usize::from(self.has_greedy)
    }
}

/// One response with a value per token in each stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The end token included when it stopped.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Weights that gave the first token.
    pub first_version: PolicyVersion,
    /// Weights that gave the last token.
    pub last_version: PolicyVersion,
    /// log pi(token | image, question), in nats.
    pub rollout_logprobs: Vec<f32>,
    /// Entropy of the distribution that the token came from, in nats.
    pub entropies: Vec<f32>,
    /// log pi(token | blanked image, question), in nats.
    pub blank_logprobs: Vec<f32>,
    /// Entropy with the image blanked, in nats.
    pub blank_entropies: Vec<f32>,
}

/// A group whose responses have all ended.
#[derive(Debug)]
pub struct FinishedGroup {
    /// Its number.
    pub ticket: Ticket,
    /// In order of their index.
    pub responses: Vec<Response>,
    /// The greedy response, where one was wanted; not scored without the image.
    pub greedy: Option<Response>,
}

/// A group under way.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) job: Job,
    /// The G responses and, as the last, the greedy one.
    pub(super) responses: Vec<Response>,
    /// Responses that have not ended.
    pub(super) unfinished: usize,
    /// Where the prompt lies, from its pass for as long as a response needs it there.
    pub(super) prompt_place: Option<PromptPlace>,
    /// Where each response lies, from its first token to its last.
    pub(super) places: Vec<Option<ResponsePlace>>,
    /// Which responses have ended.
    pub(super) is_over: Vec<bool>,
    /// Responses that have a row, or had one.
    pub(super) started: usize,
    /// Logits [V] of the first token, from the prompt's pass until the last response has drawn from them.
    pub(super) first_logits: Option<Vec<f32>>,
    /// Weights of that pass.
    pub(super) prefill_version: PolicyVersion,
}

impl Group {
    pub(super) fn new(job: Job) -> Self {
        let num_responses = job.num_responses();
        Self {
            responses: (0..num_responses).map(|_| Response::empty()).collect(),
            unfinished: num_responses,
            prompt_place: None,
            places: (0..num_responses).map(|_| None).collect(),
            is_over: vec![false; num_responses],
            started: 0,
            first_logits: None,
            prefill_version: PolicyVersion::default(),
            job,
        }
    }

    /// Tokens of this response that have been read: all but the one drawn last.
    pub(super) fn cached_tokens(&self, response: usize) -> usize {
        self.responses[response].token_ids.len().saturating_sub(1)
    }

    /// The random number of a response's next token; the greedy one has none.
    pub(super) fn next_uniform(&self, run_seed: u64, response: usize) -> Option<f64> {
        let drawn = self.responses[response].token_ids.len();
        let is_drawn = response < self.job.group_size;
        is_drawn.then(|| uniform(run_seed, self.job.ticket.0, to_u64(response), to_u64(drawn)))
    }

    /// Takes the greedy response out, if there is one: what is left are the G.
    pub(super) fn take_greedy(&mut self) -> Option<Response> {
        self.responses.drain(self.job.group_size..).next()
    }
}

impl Response {
    fn empty() -> Self {
        Self {
            token_ids: Vec::new(),
            finish_reason: FinishReason::Length,
            first_version: PolicyVersion::default(),
            last_version: PolicyVersion::default(),
            rollout_logprobs: Vec::new(),
            entropies: Vec::new(),
            blank_logprobs: Vec::new(),
            blank_entropies: Vec::new(),
        }
    }

    /// Adds a token; true when the response ends with it.
    pub(super) fn push(
        &mut self,
        token: Scored,
        version: PolicyVersion,
        is_eos: bool,
        max_tokens: usize,
    ) -> bool {
        if self.token_ids.is_empty() {
            self.first_version = version;
        }
        // Weights may go back under a response, when a learner resumes: the record then says so by being too new.
        self.last_version = self.last_version.max(version);
        self.token_ids.push(token.token);
        self.rollout_logprobs.push(token.logprob);
        self.entropies.push(token.entropy);
        if is_eos {
            self.finish_reason = FinishReason::Stop;
        }
        is_eos || self.token_ids.len() >= max_tokens
    }

    /// Without an image there is nothing to blank.
    pub(super) fn copy_to_blank(&mut self) {
        self.blank_logprobs.clone_from(&self.rollout_logprobs);
        self.blank_entropies.clone_from(&self.entropies);
    }
}
