//! The sampler over many rows of logits, on as many threads as the work is worth.

use rayon::prelude::*;

use crate::error::Result;
use crate::sampler::{Sampler, Sampling, Scored};

/// Logits below which one thread is faster than waking others.
const SERIAL_LOGITS: usize = 1 << 17;

/// One sampler per thread of the pool.
pub(super) fn samplers(sampling: &Sampling) -> Vec<Sampler> {
    (0..rayon::current_num_threads().max(1))
        .map(|_| Sampler::new(sampling.clone()))
        .collect()
}

/// Draws the next token of each row with its own random number; where there is none, takes the most likely one.
pub(super) fn draw_rows(
    samplers: &mut [Sampler],
    rows: &[&[f32]],
    uniforms: &[Option<f64>],
) -> Result<Vec<Scored>> {
    each_row(samplers, rows, uniforms, |sampler, row, &uniform| {
        Ok(match uniform {
            Some(uniform) => sampler.sample(row, uniform)?,
            None => sampler.likeliest(row)?,
        })
    })
}

/// Scores the given token of each row.
pub(super) fn score_rows(
    samplers: &mut [Sampler],
    rows: &[&[f32]],
    tokens: &[u32],
) -> Result<Vec<Scored>> {
    each_row(samplers, rows, tokens, |sampler, row, &token| {
        Ok(sampler.score(row, token)?)
    })
}

fn each_row<T: Sync>(
    samplers: &mut [Sampler],
    rows: &[&[f32]],
    items: &[T],
    verb: impl Fn(&mut Sampler, &[f32], &T) -> Result<Scored> + Sync,
) -> Result<Vec<Scored>> {
    let run = |(sampler, (rows, items)): (&mut Sampler, (&[&[f32]], &[T]))| -> Result<Vec<Scored>> {
        rows.iter()
            .zip(items)
            .map(|(row, item)| verb(sampler, row, item))
            .collect()
    };
    let num_logits: usize = rows.iter().map(|row| row.len()).sum();
    if num_logits < SERIAL_LOGITS || samplers.len() == 1 {
        return samplers
            .first_mut()
            .map_or(Ok(Vec::new()), |sampler| run((sampler, (rows, items))));
    }
    let share = rows.len().div_ceil(samplers.len()).max(1);
    let parts: Vec<_> = samplers
        .iter_mut()
        .zip(rows.chunks(share).zip(items.chunks(share)))
        .collect();
    let scored: Vec<Vec<Scored>> = parts.into_par_iter().map(run).collect::<Result<_>>()?;
    Ok(scored.concat())
}
