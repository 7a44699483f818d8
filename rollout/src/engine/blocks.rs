//! The model with a cache in blocks that sequences share.

use std::thread::JoinHandle;
use std::time::Instant;

use super::backend::{NextToken, PromptPlace, ResponsePlace};
use super::cache::{KvCache, blocks_of};
use super::inputs::PromptInputs;
use super::score::{self, Given, GroupScores};
use super::session::EngineModel;
use super::spent::Spent;
use super::stream::{self, Stream};
use super::{decode, sample};
use crate::error::{Error, Result};
use crate::sampler::{Sampler, Scored};

/// A model and its blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    model: EngineModel,
    /// Of prompts and responses under way.
    cache: KvCache,
    /// Of passes whose keys and values are thrown away.
    score_cache: KvCache,
    /// The weights before these, until a step with these is done.
    replaced: Option<EngineModel>,
    /// Frees those before.
    retiring: Option<JoinHandle<()>>,
}

impl Drop for Blocks {
    /// The library's memory must not be in use when the process ends.
    fn drop(&mut self) {
        self.finish_retiring();
    }
}

impl Blocks {
    /// All blocks free.
    pub(super) fn new(model: EngineModel, num_blocks: usize) -> Result<Self> {
        let text = &model.config().text;
        Ok(Self {
            cache: KvCache::new(text, num_blocks)?,
            score_cache: KvCache::new(text, 0)?,
            model,
            replaced: None,
            retiring: None,
        })
    }

    pub(super) fn check(&self, prompt_tokens: usize, response_tokens: usize) -> Result<()> {
        let needed = blocks_of(prompt_tokens) + blocks_of(response_tokens);
        if needed > self.cache.num_blocks() {
            return Err(Error::Cache {
                reason: format!(
                    "a prompt of {prompt_tokens} tokens and one response of up to {response_tokens} need {needed} blocks, there \
                     are {}: raise --kv-cache-mib or lower --max-response-tokens",
                    self.cache.num_blocks()
                ),
            });
        }
        Ok(())
    }

    pub(super) fn promise(&mut self, prompt_tokens: Option<usize>, response_tokens: usize) -> bool {
        let prompt = prompt_tokens.map_or(0, blocks_of);
        self.cache.promise(blocks_of(response_tokens) + prompt)
    }

    /// Several prompts go through a pass together.
    pub(super) fn prefill(
        &mut self,
        prompts: &[&PromptInputs],
        spent: &mut Spent,
    ) -> Result<Vec<(PromptPlace, Vec<f32>)>> {
        let start = Instant::now();
        let embeds = stream::embed_images(&mut self.model, prompts)?;
        spent.vision += start.elapsed();
        let start = Instant::now();
        let mut streams: Vec<_> = prompts
            .iter()
            .zip(&embeds)
            .map(|(prompt, embeds)| Stream::prompt(prompt, embeds))
            .collect();
        let mut logits_of = vec![Vec::new(); prompts.len()];
        stream::read(
            &mut self.model,
            &mut self.cache,
            &mut streams,
            |wanted, logits| {
                for (place, row) in wanted.iter().zip(logits.rows()?) {
                    logits_of[place.stream] = row.to_vec();
                }
                Ok(())
            },
        )?;
        let places = streams
            .into_iter()
            .map(|stream| PromptPlace::Blocks(stream.blocks));
        let read = places.zip(logits_of).collect();
        spent.prefill += start.elapsed();
        Ok(read)
    }

    pub(super) fn extend(&mut self, blocks: &mut Vec<u32>, tokens: usize) -> Result<()> {
        self.cache.extend(blocks, tokens)
    }

    pub(super) fn step(
        &mut self,
        samplers: &mut [Sampler],
        tokens: &[NextToken<'_>],
        spent: &mut Spent,
    ) -> Result<Vec<Scored>> {
        let start = Instant::now();
        let read = tokens.iter().map(read_token);
        let logits = decode::decode(&mut self.model, &mut self.cache, read)?;
        spent.decode += start.elapsed();
        let start = Instant::now();
        let uniforms: Vec<Option<f64>> = tokens.iter().map(|token| token.uniform).collect();
        let rows = logits.rows()?.collect::<Vec<_>>();
        let drawn = sample::draw_rows(samplers, &rows, &uniforms)?;
        spent.sampling += start.elapsed();
        Ok(drawn)
    }

    pub(super) fn give_back(&mut self, mut blocks: Vec<u32>, promised_tokens: usize) {
        self.cache
            .give_back(&mut blocks, blocks_of(promised_tokens));
    }

    pub(super) fn score(
        &mut self,
        samplers: &mut [Sampler],
        groups: &[Given<'_>],
    ) -> Result<Vec<GroupScores>> {
        score::score(&mut self.model, &mut self.score_cache, samplers, groups)
    }

    /// Goes on with other weights.
    pub(super) fn set_model(&mut self, model: EngineModel) {
        self.retire_replaced();
        self.replaced = Some(std::mem::replace(&mut self.model, model));
    }

    /// Frees what was replaced. Not before the first step with new weights, which asks for much memory: it would wait for
    /// every piece that is given back meanwhile.
    pub(super) fn retire_replaced(&mut self) {
        if let Some(old) = self.replaced.take() {
            self.finish_retiring(); // of the weights before those: one at a time
            self.retiring = old.retire();
        }
    }

    fn finish_retiring(&mut self) {
        if let Some(thread) = self.retiring.take() {
            // A panic there has been reported by itself.
            let _ = thread.join();
        }
    }
}

fn read_token<'a>(token: &NextToken<'a>) -> Result<decode::NextToken<'a>> {
    let (Some(PromptPlace::Blocks(prompt)), ResponsePlace::Blocks(blocks)) =
        (token.prompt, token.response)
    else {
        return Err(Error::OtherEngine);
    };
    Ok(decode::NextToken {
        token_id: token.token_id,
        position: token.position,
        prompt_blocks: prompt,
        prompt_tokens: token.prompt_tokens,
        blocks,
        cached: token.cached,
    })
}
