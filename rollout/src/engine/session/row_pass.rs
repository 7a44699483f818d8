//! One pass over rows of fixed size.
//!
//! `// B rows, S new tokens of each, N image tokens, R rows of logits, E hidden`

use std::ops::Range;

use super::check;
use super::row_settings::RowSettings;
use crate::engine::stream::PASS_TOKENS;
use crate::error::{Error, Result};

/// Inputs of one pass: S tokens for each of B neighbouring rows.
#[derive(Debug, Clone, Default)]
pub struct RowPass {
    /// The rows, B of them.
    pub rows: Range<usize>,
    /// `[B, S]`.
    pub token_ids: Vec<i64>,
    /// 3 x `[B, S]`.
    pub position_ids: [Vec<i64>; 3],
    /// The slot of each token, consecutive in a row: `[B, S]`.
    pub token_slots: Vec<i64>,
    /// Row of `image_embeds` in place of each token, -1 for none: `[B, S]`.
    pub image_rows: Vec<i64>,
    /// `[N, E]`.
    pub image_embeds: Vec<f32>,
    /// Flat tokens after which logits are wanted: `[R]`.
    pub logit_positions: Vec<i64>,
    /// The token to score at each of them: `[R]`.
    pub chosen: Vec<i64>,
}

impl RowPass {
    /// The slot of each row's last token: i32 `[B]`.
    pub(super) fn last_slots(&self) -> Vec<i32> {
        let width = (self.token_slots.len() / self.rows.len().max(1)).max(1);
        let rows = self.token_slots.chunks_exact(width);
        let last = |slots: &[i64]| slots.last().map_or(0, |&slot| to_i32(slot));
        rows.map(last).collect()
    }

    /// Checks everything that the graph relies on.
    pub(super) fn check(
        &self,
        settings: &RowSettings,
        vocab_size: usize,
        hidden_size: usize,
    ) -> Result<()> {
        let refused = |reason: String| Err(Error::Cache { reason });
        let (tokens, rows) = (self.token_ids.len(), self.rows.len());
        if rows == 0 || tokens == 0 || !tokens.is_multiple_of(rows) {
            return refused(format!("a pass of {tokens} tokens for {rows} rows"));
        }
        let width = tokens / rows;
        let is_decode =
            width == 1 && self.rows.end <= settings.rows && rows <= settings.decoded_rows;
        let is_prefill = rows == 1 && width <= PASS_TOKENS && self.rows.end <= settings.rows;
        if !is_decode && !is_prefill {
            return refused(format!("a pass of {width} tokens for rows {:?}", self.rows));
        }
        for axis in &self.position_ids {
            check("position_ids", tokens, axis.len())?;
        }
        check("token_slots", tokens, self.token_slots.len())?;
        check("image_rows", tokens, self.image_rows.len())?;
        check("chosen", self.logit_positions.len(), self.chosen.len())?;
        let all_below = |values: &[i64], limit: usize| {
            let is_below = |&value| usize::try_from(value).is_ok_and(|value| value < limit);
            values.iter().all(is_below)
        };
        if !all_below(&self.token_ids, vocab_size) || !all_below(&self.chosen, vocab_size) {
            return refused(format!(
                "a token id is outside the vocabulary of {vocab_size}"
            ));
        }
        let mut rows_of_slots = self.token_slots.chunks_exact(width);
        let are_neighbours = |slots: &[i64]| slots.is_sorted_by(|a, b| a + 1 == *b);
        if !all_below(&self.token_slots, settings.slots) || !rows_of_slots.all(are_neighbours) {
            return refused(format!(
                "tokens outside the {} slots of a row",
                settings.slots
            ));
        }
        let num_wanted = self.logit_positions.len();
        // Those of the session that runs it.
        let most = match width {
            1 => settings.decoded_rows,
            _ => settings.max_wanted,
        };
        if num_wanted == 0 || num_wanted > most || !all_below(&self.logit_positions, tokens) {
            return refused(format!("{num_wanted} rows of logits of {tokens} tokens"));
        }
        let images = self.image_embeds.len() / hidden_size;
        check(
            "image_embeds",
            images * hidden_size,
            self.image_embeds.len(),
        )?;
        let is_image = |&row: &i64| row < 0 || usize::try_from(row).is_ok_and(|row| row < images);
        if !self.image_rows.iter().all(is_image) {
            return refused(format!("an image token outside the {images} embedded"));
        }
        Ok(())
    }
}

/// Slots of a row are far fewer.
fn to_i32(slot: i64) -> i32 {
    i32::try_from(slot).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use models::graph::{Elements, Operators};

    use super::*;
    use crate::engine::session::{Provider, RowForm};

    #[test]
    fn a_pass_asks_for_no_more_logits_than_its_session_is_built_for() {
        let settings = RowSettings {
            provider: Provider::Cpu(1),
            elements: Elements::F32,
            form: RowForm::Trt(Operators::Native),
            rows: 6,
            decoded_rows: 4,
            slots: 64,
            candidates: 4,
            max_wanted: 2,
            max_patches: 16,
        };
        // Of one row and many tokens up to 2, of one token per row up to 4.
        for (num_rows, width, wanted, is_taken) in [
            (1, 8, 2, true),
            (1, 8, 3, false),
            (4, 1, 4, true),
            (1, 1, 5, false),
        ] {
            let tokens = num_rows * width;
            let pass = RowPass {
                rows: 0..num_rows,
                token_ids: vec![0; tokens],
                position_ids: [0; 3].map(|_| vec![0; tokens]),
                token_slots: (0..num_rows).flat_map(|_| 0..8).take(tokens).collect(),
                image_rows: vec![-1; tokens],
                logit_positions: vec![0; wanted],
                chosen: vec![0; wanted],
                ..RowPass::default()
            };
            let checked = pass.check(&settings, 10, 2);
            assert_eq!(
                checked.is_ok(),
                is_taken,
                "{wanted} of {width}: {checked:?}"
            );
        }
    }
}
