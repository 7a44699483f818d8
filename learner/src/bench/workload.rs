//! Groups of a given shape, made up.

use anyhow::Result;
use models::made_up;
use models::processor::Processor;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use shared::ids::{PolicyVersion, Ticket};
use shared::record::{FinishReason, GroupRecord, ImageRecord, Precision, ResponseRecord, Reward};

use super::args::BenchArgs;
use crate::batch::{Batch, Group};
use crate::model::num_tokens;
use crate::plan::Load;

/// The update's groups.
pub(super) fn batch(args: &BenchArgs, processor: &Processor) -> Result<Batch> {
    let mut rng = ChaCha8Rng::seed_from_u64(args.shape.seed);
    let records = (0..args.shape.prompts as u64)
        .map(|ticket| group(args, processor, ticket, &mut rng))
        .collect::<Result<_>>()?;
    Ok(Batch::new(records))
}

fn group(
    args: &BenchArgs,
    processor: &Processor,
    ticket: u64,
    rng: &mut ChaCha8Rng,
) -> Result<GroupRecord> {
    let image = made_up::noise(rng, processor, args.shape.image)?;
    let text = made_up::text(rng, processor, args.shape.prompt_tokens)?;
    let has_image = image.is_some();
    let prompt = made_up::prompt(processor, &text, image, has_image);
    let images = prompt.images.into_iter().map(|image| ImageRecord {
        width: image.width,
        height: image.height,
        pixels: image.pixels,
    });
    let responses = (0..args.shape.group_size)
        .map(|index| {
            let score = if index % 2 == 0 { 1.0 } else { 0.0 };
            response(args.shape.new_tokens, score, processor, rng)
        })
        .collect::<Result<_>>()?;
    Ok(GroupRecord {
        ticket: Ticket(ticket),
        sample_id: ticket.to_string(),
        prompt_ids: prompt.token_ids,
        images: images.collect(),
        temperature: 1.0,
        precision: Precision::F32,
        greedy_reward: None,
        responses,
    })
}

fn response(
    num_tokens: usize,
    score: f32,
    processor: &Processor,
    rng: &mut ChaCha8Rng,
) -> Result<ResponseRecord> {
    let mut numbers = || -> Vec<f32> {
        let unit = |number: u32| (number >> 8) as f32 / (1 << 24) as f32;
        (0..num_tokens).map(|_| unit(rng.next_u32())).collect()
    };
    let (entropies, blank_entropies) = (numbers(), numbers());
    let blank_logprobs = numbers().iter().map(|number| -number).collect();
    Ok(ResponseRecord {
        token_ids: made_up::text(rng, processor, num_tokens)?,
        finish_reason: FinishReason::Length,
        reward: Reward {
            accuracy: score,
            format: 0.0,
            overlong: 0.0,
            total: score,
        },
        first_version: PolicyVersion(0),
        last_version: PolicyVersion(0),
        logprobs: vec![0.0; num_tokens], // the policy's come in their place
        blank_logprobs,
        entropies,
        blank_entropies,
    })
}

/// The most tokens and the most patches of a micro-batch of at most `max_tokens`.
pub(super) fn largest(batch: &Batch, max_tokens: usize, processor: &Processor) -> Load {
    let side = processor.config.vision.patch_size;
    let mut largest = Load {
        tokens: 0,
        patches: 0,
    };
    for micro_batch in batch.micro_batches(0..batch.groups.len(), max_tokens, |_| true) {
        let (mut tokens, mut pixels) = (0, 0);
        for part in &micro_batch.parts {
            let group = &batch.groups[part.group];
            let responses = part.responses.iter();
            let lens = responses.map(|&response| batch.responses[response].tokens.len());
            tokens += num_tokens(group.prompt_ids.len(), lens);
            let images = group.images.iter();
            pixels += images
                .map(|image| image.width as usize * image.height as usize)
                .sum::<usize>();
        }
        largest.tokens = largest.tokens.max(tokens);
        largest.patches = largest.patches.max(pixels / side.pow(2));
    }
    largest
}

/// Plus and minus one: what a group half right gives, but for the standard deviation.
pub(super) fn advantages(batch: &Batch) -> Vec<f32> {
    let sign = |accuracy: f32| if accuracy > 0.0 { 1.0 } else { -1.0 };
    let responses = batch.responses.iter();
    responses
        .map(|response| sign(response.reward.accuracy))
        .collect()
}

/// The same responses, each with a prompt of its own.
pub(super) fn one_by_one(batch: &Batch) -> Batch {
    let alone = |group: &Group| -> Vec<Group> {
        let each = group.responses.clone();
        each.map(|response| Group {
            responses: response..response + 1,
            ..group.clone()
        })
        .collect()
    };
    Batch {
        groups: batch.groups.iter().flat_map(alone).collect(),
        ..batch.clone()
    }
}
