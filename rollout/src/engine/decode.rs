//! One decoding step: every row takes its last token and gives the logits of the next.

use super::cache::KvCache;
use super::pass::{Pass, Piece};
use super::session::{EngineModel, Logits};
use crate::error::Result;

/// What a row brings to a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextToken<'a> {
    /// The token drawn last; not in the cache yet.
    pub(super) token_id: u32,
    /// Its position, the same on all three axes: it is text.
    pub(super) position: i64,
    /// Blocks of the prompt, shared by the group.
    pub(super) prompt_blocks: &'a [u32],
    /// Tokens of the prompt.
    pub(super) prompt_tokens: usize,
    /// Blocks of the response, with room for the token.
    pub(super) blocks: &'a [u32],
    /// Tokens of the response in the cache.
    pub(super) cached: usize,
}

/// Runs the new tokens of all rows; logits [rows, V]. The first token that is none ends it.
pub(super) fn decode<'a>(
    model: &mut EngineModel,
    cache: &mut KvCache,
    tokens: impl Iterator<Item = Result<NextToken<'a>>>,
) -> Result<Logits> {
    let mut pass = Pass::default();
    for token in tokens {
        let token = token?;
        let position = [token.position];
        let first = pass.push(&Piece {
            token_ids: &[token.token_id],
            positions: [&position; 3],
            prefix_blocks: token.prompt_blocks,
            prefix: token.prompt_tokens,
            own_blocks: token.blocks,
            own: token.cached,
        })?;
        pass.want(first);
    }
    model.forward(cache, pass)
}
