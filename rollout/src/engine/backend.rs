//! What runs the model and keeps what it has read: the one place where the engine's loop does not know which.
//!
//! | | cache | a group's prompt | a version of the weights |
//! |---|---|---|---|
//! | [`Blocks`] | blocks that sequences share | read once, shared | a model of its own, made beside the old one |
//! | [`Rows`] | a row per response | read once, copied to each row | written in place |

use std::time::Instant;

use super::blocks::Blocks;
use super::inputs::PromptInputs;
use super::rows::{PromptRow, ResponseRow, RowToken, Rows};
use super::score::{Given, GroupScores};
use super::spent::Spent;
use crate::error::{Error, Result};
use crate::sampler::{Sampler, Scored};

/// Either of both.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "an engine has one, which never moves"
)]
pub(super) enum Backend {
    /// On the CPU.
    Blocks(Blocks),
    /// On a device.
    Rows(Rows),
}

/// Where a prompt that was read lies.
#[derive(Debug)]
pub(super) enum PromptPlace {
    Blocks(Vec<u32>),
    Row(PromptRow),
}

/// Where a response's tokens lie.
#[derive(Debug)]
pub(super) enum ResponsePlace {
    Blocks(Vec<u32>),
    Row(ResponseRow),
}

/// What a response brings to a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextToken<'a> {
    /// The token drawn last; not in the cache yet.
    pub(super) token_id: u32,
    /// Its position, the same on all three axes: it is text.
    pub(super) position: i64,
    /// Where the prompt of the group lies; none where nobody will begin after it any more.
    pub(super) prompt: Option<&'a PromptPlace>,
    /// Tokens of the prompt.
    pub(super) prompt_tokens: usize,
    /// Where the response lies, with room for the token.
    pub(super) response: &'a ResponsePlace,
    /// Tokens of the response in the cache.
    pub(super) cached: usize,
    /// The random number of the token after it; none takes the likeliest.
    pub(super) uniform: Option<f64>,
}

impl Backend {
    /// Refuses a prompt that would never find room beside a response of so many tokens.
    pub(super) fn check(&self, prompt: &PromptInputs, response_tokens: usize) -> Result<()> {
        let prompt_tokens = prompt.len();
        match self {
            Self::Blocks(blocks) => blocks.check(prompt_tokens, response_tokens),
            Self::Rows(rows) if rows.fits(prompt_tokens, response_tokens) => {
                rows.check_images(prompt)
            }
            Self::Rows(_) => Err(Error::Cache {
                reason: format!(
                    "a prompt of {prompt_tokens} tokens and a response of up to {response_tokens} do not fit a row: lower \
                     --max-response-tokens"
                ),
            }),
        }
    }

    /// Promises room for a response, and for its prompt where that has not been read; false, and nothing happens, when
    /// there is none now.
    pub(super) fn promise(&mut self, prompt_tokens: Option<usize>, response_tokens: usize) -> bool {
        match self {
            Self::Blocks(blocks) => blocks.promise(prompt_tokens, response_tokens),
            Self::Rows(rows) => rows.promise(prompt_tokens.is_some()),
        }
    }

    /// Reads prompts that were promised room; with each come the logits [V] of the first token.
    pub(super) fn prefill(
        &mut self,
        prompts: &[&PromptInputs],
        spent: &mut Spent,
    ) -> Result<Vec<(PromptPlace, Vec<f32>)>> {
        match self {
            Self::Blocks(blocks) => blocks.prefill(prompts, spent),
            Self::Rows(rows) => {
                let start = Instant::now();
                let read = |prompt: &&PromptInputs| {
                    let (row, logits) = rows.prefill(prompt)?.ok_or_else(no_row)?;
                    Ok((PromptPlace::Row(row), logits))
                };
                let read = prompts.iter().map(read).collect();
                spent.prefill += start.elapsed();
                read
            }
        }
    }

    /// The place of one more response to a prompt.
    pub(super) fn seat(&mut self, prompt: &PromptPlace) -> Result<ResponsePlace> {
        match (self, prompt) {
            (Self::Rows(rows), PromptPlace::Row(prompt)) => {
                let row = rows.seat(prompt)?.ok_or_else(no_row)?;
                Ok(ResponsePlace::Row(row))
            }
            (Self::Blocks(_), PromptPlace::Blocks(_)) => Ok(ResponsePlace::Blocks(Vec::new())),
            _ => Err(Error::OtherEngine),
        }
    }

    /// Makes room, of what was promised, for a response of so many tokens.
    pub(super) fn extend(&mut self, response: &mut ResponsePlace, tokens: usize) -> Result<()> {
        match (self, response) {
            (Self::Blocks(all), ResponsePlace::Blocks(blocks)) => all.extend(blocks, tokens),
            (Self::Rows(_), ResponsePlace::Row(_)) => Ok(()), // a row has room for all
            _ => Err(Error::OtherEngine),
        }
    }

    /// Reads the last token of each response and draws the next.
    pub(super) fn step(
        &mut self,
        samplers: &mut [Sampler],
        tokens: &[NextToken<'_>],
        spent: &mut Spent,
    ) -> Result<Vec<Scored>> {
        match self {
            Self::Blocks(blocks) => blocks.step(samplers, tokens, spent),
            Self::Rows(rows) => {
                let start = Instant::now();
                let tokens = tokens.iter().map(row_token).collect::<Result<Vec<_>>>()?;
                let drawn = rows.decode(&tokens);
                spent.decode += start.elapsed();
                drawn
            }
        }
    }

    /// Takes back what a response held, and what is left of its promise of so many tokens.
    pub(super) fn give_back(&mut self, response: ResponsePlace, response_tokens: usize) {
        match (self, response) {
            (Self::Blocks(all), ResponsePlace::Blocks(blocks)) => {
                all.give_back(blocks, response_tokens);
            }
            (Self::Rows(rows), ResponsePlace::Row(row)) => rows.give_back(row),
            _ => {}
        }
    }

    /// All responses to a prompt have begun: it may go where they do not share it.
    pub(super) fn all_began(&mut self, prompt: &mut Option<PromptPlace>) {
        if matches!(self, Self::Rows(_)) {
            self.give_back_prompt(prompt.take());
        }
    }

    /// Takes back what a prompt held.
    pub(super) fn give_back_prompt(&mut self, prompt: Option<PromptPlace>) {
        match (self, prompt) {
            (Self::Blocks(all), Some(PromptPlace::Blocks(blocks))) => all.give_back(blocks, 0),
            (Self::Rows(rows), Some(PromptPlace::Row(row))) => rows.give_back_prompt(row),
            _ => {}
        }
    }

    /// Scores given responses after their prompts, which are read for it.
    pub(super) fn score(
        &mut self,
        samplers: &mut [Sampler],
        groups: &[Given<'_>],
    ) -> Result<Vec<GroupScores>> {
        match self {
            Self::Blocks(blocks) => blocks.score(samplers, groups),
            Self::Rows(rows) => {
                let score = |group: &Given<'_>| rows.score(group.prompt, &group.responses);
                groups.iter().map(score).collect()
            }
        }
    }

    /// To be called after each step.
    pub(super) fn retire_replaced(&mut self) {
        if let Self::Blocks(blocks) = self {
            blocks.retire_replaced();
        }
    }
}

fn row_token<'a>(token: &NextToken<'a>) -> Result<RowToken<'a>> {
    let ResponsePlace::Row(row) = token.response else {
        return Err(Error::OtherEngine);
    };
    Ok(RowToken {
        row,
        token_id: token.token_id,
        slot: token.prompt_tokens + token.cached,
        position: token.position,
        uniform: token.uniform,
    })
}

fn no_row() -> Error {
    Error::Cache {
        reason: "a response was let in without a free row".to_owned(),
    }
}
