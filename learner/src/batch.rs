//! A rollout batch: the groups, and every response token's numbers in flat arrays.

use std::ops::Range;

use anyhow::{Context, Result};
use models::image::{ImageProcessor, Patches, RgbImage};
use shared::ids::Ticket;
use shared::record::{FinishReason, GroupRecord, ImageRecord, Precision, ResponseRecord, Reward};

use crate::model;

/// The groups of one rollout batch in the order of their tickets. Flat arrays are [N], N response tokens of the batch.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The groups.
    pub groups: Vec<Group>,
    /// All responses, group by group.
    pub responses: Vec<Response>,
    /// Sampled tokens.
    pub token_ids: Vec<u32>,
    /// log pi(token) by the rollout engine, at sampling.
    pub rollout_logprobs: Vec<f32>,
    /// The same with the image blanked.
    pub blank_logprobs: Vec<f32>,
    /// Nucleus entropy by the rollout engine (equation 5), nats.
    pub entropies: Vec<f32>,
    /// The same with the image blanked.
    pub blank_entropies: Vec<f32>,
}

/// One prompt of the batch.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its number in the run.
    pub ticket: Ticket,
    /// Where it comes from in the data set.
    pub sample_id: String,
    /// Prompt tokens, image pads expanded.
    pub prompt_ids: Vec<u32>,
    /// Resized images.
    pub images: Vec<RgbImage>,
    /// What the logits were divided by at sampling.
    pub temperature: f32,
    /// What the rollout engine computed in.
    pub precision: Precision,
    /// What the greedy response to it earned, where there is one.
    pub greedy_reward: Option<Reward>,
    /// Its responses in [`Batch::responses`].
    pub responses: Range<usize>,
}

/// One response of the batch.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its tokens in the flat arrays.
    pub tokens: Range<usize>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What it earned.
    pub reward: Reward,
}

/// Part of a batch that goes through the network at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MicroBatch {
    /// Groups, each with those of its responses that take part. All of one temperature.
    pub parts: Vec<Part>,
}

/// A group in a micro-batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index into [`Batch::groups`].
    pub group: usize,
    /// Indices into [`Batch::responses`].
    pub responses: Vec<usize>,
}

impl Batch {
    /// Lays the records' tokens out flat; the order of the records is kept.
    #[must_use]
    pub fn new(records: Vec<GroupRecord>) -> Self {
        let mut batch = Self::default();
        for record in records {
            let first = batch.responses.len();
            for response in record.responses {
                batch.push_response(response);
            }
            batch.groups.push(Group {
                ticket: record.ticket,
                sample_id: record.sample_id,
                prompt_ids: record.prompt_ids,
                images: record.images.into_iter().map(rgb_image).collect(),
                temperature: record.temperature,
                precision: record.precision,
                greedy_reward: record.greedy_reward,
                responses: first..batch.responses.len(),
            });
        }
        batch
    }

    fn push_response(&mut self, response: ResponseRecord) {
        let first = self.token_ids.len();
        self.token_ids.extend(response.token_ids);
        self.rollout_logprobs.extend(response.logprobs);
        self.blank_logprobs.extend(response.blank_logprobs);
        self.entropies.extend(response.entropies);
        self.blank_entropies.extend(response.blank_entropies);
        let tokens = first..self.token_ids.len();
        self.responses.push(Response {
            tokens,
            finish_reason: response.finish_reason,
            reward: response.reward,
        });
    }

    /// N: the response tokens of the batch.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// Total rewards, one per response.
    #[must_use]
    pub fn rewards(&self) -> Vec<f32> {
        self.responses
            .iter()
            .map(|response| response.reward.total)
            .collect()
    }

    /// Total rewards of the greedy responses, one per group; none unless every group has one.
    #[must_use]
    pub fn greedy_rewards(&self) -> Option<Vec<f32>> {
        let rewards = self.groups.iter().map(|group| group.greedy_reward);
        rewards.map(|reward| Some(reward?.total)).collect()
    }

    /// The groups' spans in the responses.
    #[must_use]
    pub fn group_spans(&self) -> Vec<Range<usize>> {
        self.groups
            .iter()
            .map(|group| group.responses.clone())
            .collect()
    }

    /// Mini-batches of `num_prompts` groups each, the last one smaller: ranges of groups.
    #[must_use]
    pub fn mini_batches(&self, num_prompts: usize) -> Vec<Range<usize>> {
        let starts = (0..self.groups.len()).step_by(num_prompts.max(1));
        starts
            .map(|start| start..(start + num_prompts).min(self.groups.len()))
            .collect()
    }

    /// Packs the responses of `groups` that `is_wanted` into micro-batches of at most `max_tokens` computed tokens.
    /// What is padded where, and by how much, is in `model::packed`.
    ///
    /// A group stays whole where it fits, since its prompt is computed once per micro-batch; one that alone is over the
    /// budget is cut between responses, and a single response over the budget goes alone. Order is kept.
    #[must_use]
    pub fn micro_batches(
        &self,
        groups: Range<usize>,
        max_tokens: usize,
        is_wanted: impl Fn(usize) -> bool,
    ) -> Vec<MicroBatch> {
        let mut packed: Vec<MicroBatch> = Vec::new();
        let mut room = 0;
        for group in groups {
            let wanted: Vec<usize> = self.groups[group]
                .responses
                .clone()
                .filter(|&response| is_wanted(response))
                .collect();
            for responses in self.split_to_budget(group, wanted, max_tokens) {
                let cost = self.cost(group, &responses);
                let part = Part { group, responses };
                match packed.last_mut() {
                    Some(last) if cost <= room && self.same_temperature(last, group) => {
                        last.parts.push(part);
                    }
                    _ => {
                        packed.push(MicroBatch { parts: vec![part] });
                        room = max_tokens;
                    }
                }
                room = room.saturating_sub(cost);
            }
        }
        packed
    }

    fn split_to_budget(
        &self,
        group: usize,
        responses: Vec<usize>,
        max_tokens: usize,
    ) -> Vec<Vec<usize>> {
        let mut pieces: Vec<Vec<usize>> = Vec::new();
        let mut used = 0;
        for response in responses {
            let own = self.cost(group, &[response]) - self.cost(group, &[]);
            match pieces.last_mut() {
                Some(piece) if used + own <= max_tokens => piece.push(response),
                _ => {
                    pieces.push(vec![response]);
                    used = self.cost(group, &[]);
                }
            }
            used += own;
        }
        pieces
    }

    fn cost(&self, group: usize, responses: &[usize]) -> usize {
        let lens = responses
            .iter()
            .map(|&response| self.responses[response].tokens.len());
        model::num_tokens(self.groups[group].prompt_ids.len(), lens)
    }

    fn same_temperature(&self, micro_batch: &MicroBatch, group: usize) -> bool {
        micro_batch
            .parts
            .iter()
            .all(|part| self.groups[part.group].temperature == self.groups[group].temperature)
    }

    /// The patches of each part's images. Made per micro-batch: those of a whole batch may not fit in memory.
    pub fn patches(
        &self,
        micro_batch: &MicroBatch,
        images: &ImageProcessor,
    ) -> Result<Vec<Vec<Patches>>> {
        let of_group = |group: &Group| {
            let patches = group
                .images
                .iter()
                .map(|image| images.patches(image))
                .collect::<models::Result<_>>();
            patches.with_context(|| {
                format!(
                    "images of sample {} (ticket {})",
                    group.sample_id, group.ticket
                )
            })
        };
        micro_batch
            .parts
            .iter()
            .map(|part| of_group(&self.groups[part.group]))
            .collect()
    }

    /// A micro-batch as the network takes it; `patches` are those of [`Self::patches`].
    #[must_use]
    pub fn input<'a>(
        &'a self,
        micro_batch: &MicroBatch,
        patches: &'a [Vec<Patches>],
    ) -> model::MicroBatch<'a> {
        let group = |(part, images): (&Part, &'a Vec<Patches>)| model::Group {
            prompt_ids: &self.groups[part.group].prompt_ids,
            images,
            responses: part
                .responses
                .iter()
                .map(|&r| &self.token_ids[self.responses[r].tokens.clone()])
                .collect(),
        };
        model::MicroBatch {
            groups: micro_batch.parts.iter().zip(patches).map(group).collect(),
        }
    }

    /// What the logits of a micro-batch are divided by.
    #[must_use]
    pub fn temperature(&self, micro_batch: &MicroBatch) -> f64 {
        micro_batch
            .parts
            .first()
            .map_or(1.0, |part| f64::from(self.groups[part.group].temperature))
    }
}

impl MicroBatch {
    /// Its responses in the order of the network's flat results.
    pub fn responses(&self) -> impl Iterator<Item = usize> {
        self.parts
            .iter()
            .flat_map(|part| part.responses.iter().copied())
    }
}

fn rgb_image(image: ImageRecord) -> RgbImage {
    RgbImage {
        width: image.width,
        height: image.height,
        pixels: image.pixels,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_records::{group, response};

    fn record(
        ticket: u64,
        prompt_len: usize,
        response_lens: &[usize],
        temperature: f32,
    ) -> GroupRecord {
        GroupRecord {
            prompt_ids: vec![0; prompt_len],
            temperature,
            ..group(
                ticket,
                response_lens.iter().map(|&len| response(len)).collect(),
            )
        }
    }

    #[test]
    fn groups_share_a_micro_batch_up_to_the_budget() {
        let batch = Batch::new(vec![
            record(0, 10, &[5, 5], 1.0),
            record(1, 10, &[5, 5], 1.0),
            record(2, 10, &[5], 0.5),
        ]);
        // 10 of the prompt, and 4 of each response: its last token is not computed.
        let packed = batch.micro_batches(0..3, 36, |_| true);
        assert_eq!(
            packed.iter().map(|m| m.parts.len()).collect::<Vec<_>>(),
            [2, 1]
        );
        let packed = batch.micro_batches(0..2, 35, |_| true);
        assert_eq!(packed.len(), 2);
        // Over the budget alone: cut between responses.
        let packed = batch.micro_batches(0..1, 15, |_| true);
        assert_eq!(
            packed
                .iter()
                .flat_map(MicroBatch::responses)
                .collect::<Vec<_>>(),
            [0, 1]
        );
        assert_eq!(packed.len(), 2);
        // Temperatures don't mix.
        assert_eq!(batch.micro_batches(0..3, 1000, |_| true).len(), 2);
        assert_eq!(batch.mini_batches(2), [0..2, 2..3]);
    }

    proptest! {
        #[test]
        fn every_wanted_response_is_in_one_micro_batch_within_the_budget(
            lens in prop::collection::vec((1_usize..30, prop::collection::vec(1_usize..20, 0..6)), 1..8),
            max_tokens in 1_usize..120,
            skip in 1_usize..5,
        ) {
            let records = lens.iter().enumerate().map(|(t, (prompt, responses))| record(t as u64, *prompt, responses, 1.0));
            let batch = Batch::new(records.collect());
            let is_wanted = |response: usize| response.is_multiple_of(skip);
            let packed = batch.micro_batches(0..batch.groups.len(), max_tokens, is_wanted);
            let seen: Vec<usize> = packed.iter().flat_map(MicroBatch::responses).collect();
            let expected: Vec<usize> = (0..batch.responses.len()).filter(|&r| is_wanted(r)).collect();
            prop_assert_eq!(seen, expected);
            for micro_batch in &packed {
                let cost: usize = micro_batch.parts.iter().map(|part| batch.cost(part.group, &part.responses)).sum();
                let is_single = micro_batch.responses().count() == 1;
                prop_assert!(cost <= max_tokens || is_single, "{} > {}", cost, max_tokens);
            }
        }
    }
}
