//! Decoding with a [`RowModel`]: prompts and responses in rows of the cache, tokens drawn from the device's head.
//!
//! The first rows are for responses, those after them for prompts, the last one for what is only scored. A prompt is read once
//! into a row of its own and copied to each response's, whose tokens then follow it there.

use std::collections::BTreeSet;
use std::ops::Range;

use models::graph::Elements;
use shared::record::Precision;

use super::inputs::{PromptInputs, to_i64};
use super::sample::score_rows;
use super::session::{HeadSettings, RowHeads, RowModel, RowPass};
use super::stream::PASS_TOKENS;
use crate::error::{Error, Result};
use crate::sampler::{Draw, Sampler, Sampling, Scored};

/// A prompt in the cache, until it is given back.
#[derive(Debug, PartialEq, Eq)]
pub struct PromptRow(usize);

/// A response's row, until it is given back.
#[derive(Debug, PartialEq, Eq)]
pub struct ResponseRow(usize);

/// What a response brings to a step.
#[derive(Debug, Clone, Copy)]
pub struct RowToken<'a> {
    /// Where the response is.
    pub row: &'a ResponseRow,
    /// The token drawn last; not in the cache yet.
    pub token_id: u32,
    /// Tokens before it, those of the prompt included.
    pub slot: usize,
    /// Its position, the same on all three axes: it is text.
    pub position: i64,
    /// The random number of the token after it; none takes the likeliest.
    pub uniform: Option<f64>,
}

/// A model and its rows.
#[derive(Debug)]
pub struct Rows {
    model: RowModel,
    sampler: Sampler,
    /// Free rows of responses: the first ones are taken first, as a step goes over all up to the last in use.
    free_rows: BTreeSet<usize>,
    free_prompts: BTreeSet<usize>,
    /// Of the free ones, how many are promised: of responses, of prompts.
    promised: [usize; 2],
    /// Rows of logits that were brought to the host.
    num_fetched: u64,
}

/// Known tokens that follow one another in a row.
struct Known<'a> {
    token_ids: &'a [u32],
    positions: [&'a [i64]; 3],
    /// Where the first of them goes.
    slot: usize,
    /// Tokens that an image embedding replaces, and the embeddings [N, E].
    images: (&'a [usize], &'a [f32]),
    /// Most tokens of a pass.
    width: usize,
}

impl Rows {
    /// All rows free. What the model's head measures by is that of `sampling` from here on.
    ///
    /// # Errors
    /// A model that was opened for another number of banned tokens.
    pub fn new(mut model: RowModel, sampling: Sampling) -> Result<Self> {
        model.set_head(head_of(&model, &sampling))?;
        let settings = model.settings();
        let (decoded, scratch) = (settings.decoded_rows, settings.rows.saturating_sub(1));
        Ok(Self {
            free_rows: (0..decoded.min(scratch)).collect(),
            free_prompts: (decoded..scratch).collect(),
            sampler: Sampler::new(sampling),
            model,
            promised: [0; 2],
            num_fetched: 0,
        })
    }

    /// The model.
    pub fn model_mut(&mut self) -> &mut RowModel {
        &mut self.model
    }

    /// What it computes in.
    #[must_use]
    pub fn precision(&self) -> Precision {
        match self.model.settings().elements {
            Elements::F32 => Precision::F32,
            Elements::Bf16 => Precision::Bf16,
        }
    }

    /// Rows of logits that were brought to the host since the start.
    #[must_use]
    pub fn num_fetched(&self) -> u64 {
        self.num_fetched
    }

    /// Whether a row has room for a prompt and a response of so many tokens, the last of which is never read.
    #[must_use]
    pub fn fits(&self, prompt_tokens: usize, response_tokens: usize) -> bool {
        prompt_tokens + response_tokens <= self.model.settings().slots + 1
    }

    /// Refuses a prompt with an image that is too large for the model.
    ///
    /// # Errors
    /// Says what to do.
    pub fn check_images(&self, prompt: &PromptInputs) -> Result<()> {
        self.model.settings().check_images(&prompt.grids)
    }

    /// Draws tokens another way from here on.
    ///
    /// # Errors
    /// As for [`Self::new`]; nothing changes.
    pub fn set_sampling(&mut self, sampling: Sampling) -> Result<()> {
        self.model.set_head(head_of(&self.model, &sampling))?;
        self.sampler = Sampler::new(sampling);
        Ok(())
    }

    /// Promises a response a row, and its prompt one where it has not been read; false, and nothing happens, when there is
    /// none. What was promised is taken before anything else is.
    pub(super) fn promise(&mut self, with_prompt: bool) -> bool {
        let [rows, prompts] = self.promised;
        let is_there =
            rows < self.free_rows.len() && (!with_prompt || prompts < self.free_prompts.len());
        if is_there {
            self.promised = [rows + 1, prompts + usize::from(with_prompt)];
        }
        is_there
    }

    /// Reads a prompt; with it come the logits [V] of the first token. None while no row for prompts is free.
    ///
    /// # Errors
    /// A prompt longer than a row, or ONNX Runtime's.
    pub fn prefill(&mut self, prompt: &PromptInputs) -> Result<Option<(PromptRow, Vec<f32>)>> {
        let Some(row) = self.free_prompts.pop_first() else {
            return Ok(None);
        };
        self.promised[1] = self.promised[1].saturating_sub(1);
        let logits = self.read_prompt(row, prompt)?;
        Ok(Some((PromptRow(row), logits)))
    }

    /// Copies a prompt to a row for one more response. None while none is free.
    ///
    /// # Errors
    /// ONNX Runtime's.
    pub fn seat(&mut self, prompt: &PromptRow) -> Result<Option<ResponseRow>> {
        let Some(row) = self.free_rows.pop_first() else {
            return Ok(None);
        };
        self.promised[0] = self.promised[0].saturating_sub(1);
        self.model.copy_row(prompt.0, row)?;
        Ok(Some(ResponseRow(row)))
    }

    /// Takes a prompt's row back: no more responses to it begin.
    pub fn give_back_prompt(&mut self, prompt: PromptRow) {
        self.free_prompts.insert(prompt.0);
    }

    /// Takes a response's row back.
    pub fn give_back(&mut self, response: ResponseRow) {
        self.free_rows.insert(response.0);
    }

    /// One step: reads the last token of each response and draws the next.
    ///
    /// # Errors
    /// A response longer than its row, one that has a row and no token here or two, weights that give no distribution, or
    /// ONNX Runtime's.
    pub fn decode(&mut self, tokens: &[RowToken<'_>]) -> Result<Vec<Scored>> {
        let Some(last) = tokens.iter().map(|token| token.row.0).max() else {
            return Ok(Vec::new());
        };
        // What is in the first slot of a free row is read by nobody; a response's would be written over.
        let rows = 0..last + 1;
        let stepped: BTreeSet<usize> = tokens.iter().map(|token| token.row.0).collect();
        let is_whole = |row| stepped.contains(&row) != self.free_rows.contains(&row);
        if stepped.len() != tokens.len() || !rows.clone().all(is_whole) {
            return Err(Error::Cache {
                reason: "a step takes one token of each response that has a row".to_owned(),
            });
        }
        let mut pass = RowPass {
            token_ids: vec![0; rows.len()],
            position_ids: [0; 3].map(|_| vec![0; rows.len()]),
            token_slots: vec![0; rows.len()],
            image_rows: vec![-1; rows.len()],
            chosen: vec![0; tokens.len()],
            rows,
            ..RowPass::default()
        };
        for token in tokens {
            let row = token.row.0;
            pass.token_ids[row] = i64::from(token.token_id);
            for axis in &mut pass.position_ids {
                axis[row] = token.position;
            }
            pass.token_slots[row] = to_i64(token.slot);
            pass.logit_positions.push(to_i64(row));
        }
        let heads = &mut self.model.forward(pass)?;
        let (sampler, num_fetched) = (&mut self.sampler, &mut self.num_fetched);
        let mut drawn = Vec::with_capacity(tokens.len());
        for (row, token) in tokens.iter().enumerate() {
            drawn.push(draw(sampler, heads, row, token.uniform, num_fetched)?);
        }
        Ok(drawn)
    }

    /// Scores given responses, none of them empty, after `prompt`, which is read for it.
    ///
    /// # Errors
    /// As for [`Self::decode`].
    pub fn score(
        &mut self,
        prompt: &PromptInputs,
        responses: &[&[u32]],
    ) -> Result<Vec<Vec<Scored>>> {
        let row = self.model.settings().rows - 1;
        let logits = self.read_prompt(row, prompt)?;
        let firsts: Vec<u32> = responses
            .iter()
            .filter_map(|r| r.first().copied())
            .collect();
        let samplers = std::slice::from_mut(&mut self.sampler);
        let firsts = score_rows(samplers, &vec![logits.as_slice(); firsts.len()], &firsts)?;
        let mut scores: Vec<Vec<Scored>> = firsts.into_iter().map(|first| vec![first]).collect();
        for (scores, response) in scores.iter_mut().zip(responses) {
            // Each response overwrites the one before: no token sees a slot after its own.
            self.score_after(row, prompt, response, scores)?;
        }
        Ok(scores)
    }

    /// Scores the tokens of a response but the first, the prompt being in `row`.
    fn score_after(
        &mut self,
        row: usize,
        prompt: &PromptInputs,
        response: &[u32],
        scores: &mut Vec<Scored>,
    ) -> Result<()> {
        let read = &response[..response.len().saturating_sub(1)];
        let position = |index| prompt.position(0, prompt.len() + index);
        let positions: Vec<i64> = (0..read.len()).map(position).collect();
        let known = Known {
            token_ids: read,
            positions: [&positions; 3],
            slot: prompt.len(),
            images: (&[], &[]),
            width: PASS_TOKENS.min(self.model.settings().max_wanted),
        };
        for tokens in known.chunks() {
            let mut pass = known.pass(row, tokens.clone());
            pass.logit_positions = (0..tokens.len()).map(to_i64).collect();
            let next = &response[tokens.start + 1..tokens.end + 1];
            pass.chosen = next.iter().map(|&id| i64::from(id)).collect();
            let mut heads = self.model.forward(pass)?;
            for (index, &token) in next.iter().enumerate() {
                let scored = self.sampler.score_candidates(&heads.row(index), token);
                scores.push(match scored {
                    Some(scored) => scored,
                    None => {
                        self.num_fetched += 1;
                        self.sampler.score(&heads.fetch(index)?, token)?
                    }
                });
            }
        }
        Ok(())
    }

    /// Reads a prompt into a row; gives the logits [V] after it.
    fn read_prompt(&mut self, row: usize, prompt: &PromptInputs) -> Result<Vec<f32>> {
        let embeds = self.model.encode_images(&prompt.patches, &prompt.grids)?;
        let [t, h, w] = &prompt.positions.ids;
        let known = Known {
            token_ids: &prompt.token_ids,
            positions: [t, h, w],
            slot: 0,
            images: (&prompt.image_positions, &embeds),
            width: PASS_TOKENS,
        };
        let mut last = None;
        let count = known.token_ids.len();
        for tokens in known.chunks() {
            let mut pass = known.pass(row, tokens.clone());
            pass.logit_positions = vec![to_i64(tokens.len() - 1)];
            pass.chosen = vec![0];
            let mut heads = self.model.forward(pass)?;
            if tokens.end == count {
                self.num_fetched += 1;
                last = Some(heads.fetch(0)?);
            }
        }
        last.ok_or_else(|| Error::Cache {
            reason: "a prompt without tokens".to_owned(),
        })
    }
}

fn head_of(model: &RowModel, sampling: &Sampling) -> HeadSettings {
    HeadSettings::new(sampling, model.config().text.vocab_size)
}

/// Draws after row `row` of logits, which comes to the host where the head does not settle it.
fn draw(
    sampler: &mut Sampler,
    heads: &mut RowHeads<'_>,
    row: usize,
    uniform: Option<f64>,
    num_fetched: &mut u64,
) -> Result<Scored> {
    let head = heads.row(row);
    let beyond = match sampler.draw_candidates(&head, uniform) {
        Draw::Token(token) => return Ok(token),
        Draw::Row => None,
        Draw::Beyond(uniform) => Some((uniform, head.candidate_ids.to_vec())),
    };
    *num_fetched += 1;
    let logits = heads.fetch(row)?;
    Ok(match (beyond, uniform) {
        (Some((uniform, candidates)), _) => sampler.sample_beyond(&logits, &candidates, uniform)?,
        (None, Some(uniform)) => sampler.sample(&logits, uniform)?,
        (None, None) => sampler.likeliest(&logits)?,
    })
}

impl Known<'_> {
    /// The tokens of each pass.
    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (count, width) = (self.token_ids.len(), self.width.max(1));
        (0..count)
            .step_by(width)
            .map(move |start| start..count.min(start + width))
    }

    /// A pass over `tokens`, which asks for no logits yet.
    fn pass(&self, row: usize, tokens: Range<usize>) -> RowPass {
        let (image_tokens, embeds) = self.images;
        let hidden = embeds.len().checked_div(image_tokens.len()).unwrap_or(0);
        let mut image_rows = vec![-1; tokens.len()];
        let mut image_embeds = Vec::new();
        let of_image = image_tokens.iter().zip(embeds.chunks_exact(hidden.max(1)));
        let within = of_image.filter(|(token, _)| tokens.contains(token));
        for (index, (&token, embed)) in within.enumerate() {
            image_rows[token - tokens.start] = to_i64(index);
            image_embeds.extend_from_slice(embed);
        }
        let slots = self.slot + tokens.start..self.slot + tokens.end;
        RowPass {
            rows: row..row + 1,
            token_ids: self.token_ids[tokens.clone()]
                .iter()
                .map(|&id| i64::from(id))
                .collect(),
            position_ids: self.positions.map(|axis| axis[tokens.clone()].to_vec()),
            token_slots: slots.map(to_i64).collect(),
            image_rows,
            image_embeds,
            ..RowPass::default()
        }
    }
}
