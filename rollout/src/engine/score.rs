//! Teacher forcing: the statistics of given responses after a prompt. The prompt is read once, the logits are
//! those at response tokens only, and several groups share a pass.

use super::cache::{KvCache, blocks_of};
use super::inputs::PromptInputs;
use super::sample::score_rows;
use super::session::EngineModel;
use super::stream::{PASS_TOKENS, Stream, embed_images, read};
use crate::error::Result;
use crate::sampler::{Sampler, Scored};

/// Responses to one prompt.
#[derive(Debug, Clone)]
pub(super) struct Given<'a> {
    pub(super) prompt: &'a PromptInputs,
    /// Not one of them empty.
    pub(super) responses: Vec<&'a [u32]>,
}

/// The scores of the responses of a group, a list per response.
pub(super) type GroupScores = Vec<Vec<Scored>>;

/// Scores every token of every response as if it had just been drawn after its prompt.
pub(super) fn score(
    model: &mut EngineModel,
    cache: &mut KvCache,
    samplers: &mut [Sampler],
    groups: &[Given<'_>],
) -> Result<Vec<GroupScores>> {
    let mut scores = Vec::with_capacity(groups.len());
    let mut rest = groups;
    while !rest.is_empty() {
        let (round, after) = rest.split_at(fitting(rest.iter().map(|group| group.prompt.len())));
        scores.extend(score_round(model, cache, samplers, round)?);
        rest = after;
    }
    Ok(scores)
}

/// How many of the first lengths fill a pass; at least one.
fn fitting(lengths: impl Iterator<Item = usize>) -> usize {
    let mut total = 0;
    let fits = |length: &usize| {
        total += length;
        total <= PASS_TOKENS
    };
    lengths.take_while(fits).count().max(1)
}

fn score_round(
    model: &mut EngineModel,
    cache: &mut KvCache,
    samplers: &mut [Sampler],
    groups: &[Given<'_>],
) -> Result<Vec<GroupScores>> {
    let mut scores: Vec<GroupScores> = groups
        .iter()
        .map(|group| vec![Vec::new(); group.responses.len()])
        .collect();

    // The prompts; what follows them is the first token of each of their responses.
    let prompts: Vec<_> = groups.iter().map(|group| group.prompt).collect();
    let embeds = embed_images(model, &prompts)?;
    let mut streams: Vec<_> = prompts
        .iter()
        .zip(&embeds)
        .map(|(prompt, embeds)| Stream::prompt(prompt, embeds))
        .collect();
    promise(model, cache, &streams)?;
    read(model, cache, &mut streams, |wanted, logits| {
        for (place, row) in wanted.iter().zip(logits.rows()?) {
            let responses = &groups[place.stream].responses;
            let first: Vec<u32> = responses
                .iter()
                .filter_map(|r| r.first().copied())
                .collect();
            let scored = score_rows(samplers, &vec![row; first.len()], &first)?;
            for (scores, scored) in scores[place.stream].iter_mut().zip(scored) {
                scores.push(scored);
            }
        }
        Ok(())
    })?;
    let mut prompt_blocks: Vec<_> = streams.into_iter().map(|stream| stream.blocks).collect();

    // The responses, a pass full at a time: what they hold is given back before the next.
    let places: Vec<(usize, usize)> = groups
        .iter()
        .enumerate()
        .flat_map(|(group, given)| {
            (0..given.responses.len()).map(move |response| (group, response))
        })
        .collect();
    let mut rest = places.as_slice();
    while !rest.is_empty() {
        let length = |&(group, response): &(usize, usize)| groups[group].responses[response].len();
        let (now, after) = rest.split_at(fitting(rest.iter().map(length)));
        rest = after;
        let mut streams: Vec<_> = now
            .iter()
            .map(|&(group, response)| {
                let given = &groups[group];
                Stream::response(
                    given.prompt,
                    &prompt_blocks[group],
                    given.responses[response],
                )
            })
            .collect();
        promise(model, cache, &streams)?;
        read(model, cache, &mut streams, |wanted, logits| {
            let rows: Vec<&[f32]> = logits.rows()?.collect();
            let of = |stream: usize| now[stream];
            // Token t of the stream is followed by token t + 1 of the response.
            let tokens: Vec<u32> = wanted
                .iter()
                .map(|place| {
                    let (group, response) = of(place.stream);
                    groups[group].responses[response][place.token + 1]
                })
                .collect();
            for (place, scored) in wanted.iter().zip(score_rows(samplers, &rows, &tokens)?) {
                let (group, response) = of(place.stream);
                scores[group][response].push(scored);
            }
            Ok(())
        })?;
        for stream in &mut streams {
            cache.give_back(&mut stream.blocks, 0);
        }
    }
    for blocks in &mut prompt_blocks {
        cache.give_back(blocks, 0);
    }
    Ok(scores)
}

/// Promises the streams what they need, of a cache that may grow.
fn promise(model: &EngineModel, cache: &mut KvCache, streams: &[Stream<'_>]) -> Result<()> {
    let needed = streams.iter().map(|stream| blocks_of(stream.len())).sum();
    if !cache.promise(needed) {
        let missing = needed - cache.num_available();
        cache.grow(&model.config().text, cache.num_blocks() + missing)?;
        cache.promise(needed);
    }
    Ok(())
}
