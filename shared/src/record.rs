//! The group record: everything the learner needs to train on one prompt's responses.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::ids::{PolicyVersion, Ticket};

/// One prompt with its G responses. Self-contained: the learner needs no data set and no image decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRecord {
    /// The group's number in the run.
    pub ticket: Ticket,
    /// The sample's name in its data set, for reports.
    pub sample_id: String,
    /// Prompt tokens, image pads expanded.
    pub prompt_ids: Vec<u32>,
    /// The prompt's images in order of appearance, after resizing.
    pub images: Vec<ImageRecord>,
    /// Sampling temperature; log-probabilities and entropies are those of logits / temperature.
    pub temperature: f32,
    /// What the rollout engine computed in: where it is coarse, its log-probabilities are not the learner's.
    pub precision: Precision,
    /// What a greedy response to the prompt earned, where the run asks for one: a baseline, nothing to train on.
    pub greedy_reward: Option<Reward>,
    /// The G responses in order of their index.
    pub responses: Vec<ResponseRecord>,
}

/// What a rollout engine's matrix products are computed in: for the CPU `--precision`.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// The published weights as they are
    F32,
    /// 8-bit integers: weights rounded per output channel, activations per token; the head in f32
    Int8,
    /// The same with the head in 8 bits too: faster still, and further from the published policy
    Int8Head,
    /// Weights, activations and cache in bf16, the head in f32: what an engine on a GPU does, whatever is asked for
    #[value(skip)]
    Bf16,
}

/// As on the command line.
impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
            Self::Int8Head => "int8-head",
            Self::Bf16 => "bf16",
        })
    }
}

/// A resized RGB image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `height * width * 3` bytes: rows from the top, RGB.
    pub pixels: Vec<u8>,
}

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// It sampled an end token, which is its last token.
    Stop,
    /// It reached the length limit.
    Length,
}

/// A response's reward with its parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reward {
    /// The weighted sum that advantages are made of.
    pub total: f32,
    /// 1 when the answer is equivalent to the reference (eq. 1), else 0.
    pub accuracy: f32,
    /// 1 when the response is well formed, else 0.
    pub format: f32,
    /// The (non-positive) penalty for running into the length limit.
    pub overlong: f32,
}

impl Reward {
    /// Total, accuracy, format, overlong: the order in a record's bytes.
    pub(crate) fn parts(&self) -> [f32; 4] {
        [self.total, self.accuracy, self.format, self.overlong]
    }
}

/// One response. The four streams have one value per token; value t is of token t given the tokens before it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseRecord {
    /// Response tokens, the end token included when it stopped.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Policy version that sampled the first token.
    pub first_version: PolicyVersion,
    /// Policy version that sampled the last token.
    pub last_version: PolicyVersion,
    /// The verifier's verdict.
    pub reward: Reward,
    /// log pi(token | image, question), in nats.
    pub logprobs: Vec<f32>,
    /// log pi(token | blanked image, question), in nats.
    pub blank_logprobs: Vec<f32>,
    /// Entropy of the token's distribution (eq. 5), in nats.
    pub entropies: Vec<f32>,
    /// The same with the image blanked.
    pub blank_entropies: Vec<f32>,
}

/// Longest side of an image in a record, in pixels.
pub const MAX_IMAGE_SIDE: u32 = 1 << 16;

impl GroupRecord {
    /// What a record must satisfy. A rollout calls it before sending (a record that fails it would be refused on
    /// arrival), `codec::decode` calls it on everything that arrives.
    pub fn check(&self) -> Result<()> {
        if self.ticket > Ticket::MAX {
            return Err(refuse("ticket", format!("{} is too large", self.ticket)));
        }
        finite("temperature", &[self.temperature])?;
        if self.temperature < 0.0 {
            return Err(refuse(
                "temperature",
                format!("{} is negative", self.temperature),
            ));
        }
        self.images.iter().try_for_each(ImageRecord::check)?;
        if let Some(reward) = &self.greedy_reward {
            finite("greedy reward", &reward.parts())?;
        }
        self.responses.iter().try_for_each(ResponseRecord::check)
    }
}

impl ImageRecord {
    fn check(&self) -> Result<()> {
        let Self {
            width,
            height,
            pixels,
        } = self;
        let sides = 1..=MAX_IMAGE_SIDE;
        let expected = u64::from(*width) * u64::from(*height) * 3;
        if !sides.contains(width) || !sides.contains(height) || pixels.len() as u64 != expected {
            let reason = format!("of {width} x {height} pixels has {} bytes", pixels.len());
            return Err(refuse("image", reason));
        }
        Ok(())
    }
}

impl ResponseRecord {
    fn check(&self) -> Result<()> {
        if self.first_version > self.last_version {
            let reason = format!("{} comes after {}", self.first_version, self.last_version);
            return Err(refuse("first version", reason));
        }
        finite("reward", &self.reward.parts())?;
        let streams = [
            ("logprobs", &self.logprobs),
            ("blank logprobs", &self.blank_logprobs),
            ("entropies", &self.entropies),
            ("blank entropies", &self.blank_entropies),
        ];
        for (field, stream) in streams {
            if stream.len() != self.token_ids.len() {
                let reason = format!(
                    "have {} values for {} tokens",
                    stream.len(),
                    self.token_ids.len()
                );
                return Err(refuse(field, reason));
            }
            finite(field, stream)?;
        }
        Ok(())
    }
}

fn finite(field: &'static str, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(refuse(field, format!("[{index}] is {}", values[index]))),
        None => Ok(()),
    }
}

fn refuse(field: &'static str, reason: String) -> Error {
    Error::Record { field, reason }
}
