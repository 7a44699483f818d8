//! A finished group -> the record that the learner trains on.

use anyhow::Result;
use models::image::RgbImage;
use models::tokenizer::Tokenizer;
use shared::record::{GroupRecord, ImageRecord, Precision, ResponseRecord, Reward};

use crate::claim::Prepared;
use crate::engine::Response;
use crate::reward::{self, RewardConfig, Verifier};
use crate::stats::Counted;

/// A group whose responses have all ended, with what it was asked.
#[derive(Debug)]
pub struct Finished {
    /// The prompt and the right answer.
    pub prepared: Prepared,
    /// G responses in order of their index.
    pub responses: Vec<Response>,
    /// The greedy response, where the run asks for one.
    pub greedy: Option<Response>,
    /// What an engine on a device computes in.
    pub device_precision: Option<Precision>,
    /// The engine's counters when the last of them ended.
    pub counted: Counted,
}

/// Turns groups into records.
#[derive(Debug)]
pub struct RecordMaker {
    /// Decodes responses for the verifier.
    pub tokenizer: Tokenizer,
    /// Sampling temperature.
    pub temperature: f32,
    /// What the CPU engine computes in.
    pub precision: Precision,
    /// Says whether a response is right.
    pub verifier: Verifier,
    /// What a response is worth.
    pub reward: RewardConfig,
}

impl RecordMaker {
    /// The record of a group, its responses verified.
    ///
    /// # Errors
    /// A response that does not decode.
    pub fn record(&self, finished: Finished) -> Result<GroupRecord> {
        let Prepared {
            ticket,
            sample_id,
            answer,
            prompt,
            ..
        } = finished.prepared;
        let responses = finished
            .responses
            .into_iter()
            .map(|response| self.response(response, &answer));
        let greedy_reward = finished
            .greedy
            .map(|greedy| self.reward(&greedy, &answer))
            .transpose()?;
        Ok(GroupRecord {
            ticket,
            sample_id,
            temperature: self.temperature,
            precision: finished.device_precision.unwrap_or(self.precision),
            greedy_reward,
            responses: responses.collect::<Result<_>>()?,
            images: prompt.prompt.images.into_iter().map(image).collect(),
            prompt_ids: prompt.prompt.token_ids,
        })
    }

    fn reward(&self, response: &Response, answer: &str) -> Result<Reward> {
        let text = self.tokenizer.decode(&response.token_ids, true)?;
        Ok(reward::score(
            &self.verifier,
            &text,
            answer,
            response.token_ids.len(),
            &self.reward,
        ))
    }

    fn response(&self, response: Response, answer: &str) -> Result<ResponseRecord> {
        Ok(ResponseRecord {
            reward: self.reward(&response, answer)?,
            token_ids: response.token_ids,
            finish_reason: response.finish_reason,
            first_version: response.first_version,
            last_version: response.last_version,
            logprobs: response.rollout_logprobs,
            blank_logprobs: response.blank_logprobs,
            entropies: response.entropies,
            blank_entropies: response.blank_entropies,
        })
    }
}

fn image(image: RgbImage) -> ImageRecord {
    ImageRecord {
        width: image.width,
        height: image.height,
        pixels: image.pixels,
    }
}
