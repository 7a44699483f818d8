//! `tor.PagedAttention`: rotary embedding and causal attention of new tokens over a cache in blocks.
//!
//! `// T new tokens of B sequences, H heads, K kv heads, D head dim, L layers, N blocks`
//!
//! | input | type | |
//! |---|---|---|
//! | `qkv` | f32 `[T, (H + 2K) * D]` | as the projections gave it |
//! | `cos`, `sin` | f32 `[.., T, D/2]` | of the new tokens |
//! | `cache` | f32 `[N, L, 2, K, block]` | **written in place**: the new keys and values; see `KvCache` |
//! | `sequences` | i32 `[B, 4]` | first new token, new tokens, tokens of the prefix, own tokens in the cache |
//! | `block_table` | i32 `[B, M]` | blocks of the prefix (the last may be partly filled), then the sequence's own |
//!
//! Output: f32 `[T, H * D]`. A sequence is its prefix, which it shares with others and never writes to, and then its own
//! tokens. New tokens see the prefix, their own earlier tokens and themselves. Sequences that stand side by side
//! with the same prefix and one new token each go through the prefix together, so that its keys are read once.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use pulp::NullaryFnOnce;

use super::lanes::Lanes;
use super::parallel::Parallel;
use super::tile::{Block, Tile};
use crate::engine::cache::{BLOCK, CacheLayout, Kind};

/// Queries of one tile: enough to use a block well while it is in the nearest cache.
const TILE_QUERIES: usize = 48;

/// Numbers per sequence in `sequences`.
pub(in crate::engine) const SEQUENCE_FIELDS: usize = 4;

/// What one layer's attention reads.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Inputs<'a> {
    pub(in crate::engine) layer: usize,
    pub(in crate::engine) num_heads: usize,
    pub(in crate::engine) qkv: &'a [f32],
    pub(in crate::engine) cos: &'a [f32],
    pub(in crate::engine) sin: &'a [f32],
    pub(in crate::engine) sequences: &'a [i32],
    pub(in crate::engine) block_table: &'a [i32],
}

/// Attention of one layer with its buffers.
#[derive(Debug)]
pub(in crate::engine) struct PagedAttention {
    workers: Vec<Mutex<Tile>>,
}

/// A sequence of the pass.
#[derive(Debug, Clone, Copy)]
struct Sequence<'a> {
    first: usize,
    num_new: usize,
    prefix: usize,
    own: usize,
    prefix_blocks: &'a [i32],
    own_blocks: &'a [i32],
}

impl<'a> Sequence<'a> {
    /// Its own blocks with its tokens before the new token `end`.
    fn blocks_before(&self, end: usize) -> &'a [i32] {
        &self.own_blocks[..(self.own + end).div_ceil(BLOCK)]
    }
}

/// New tokens that are worked on together: some of one sequence, or one each of several that share a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    sequences: Range<usize>,
    /// Within the sequence.
    tokens: Range<usize>,
}

impl PagedAttention {
    /// For at most `threads` threads.
    pub(in crate::engine) fn new(threads: usize) -> Self {
        Self {
            workers: (0..threads.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    /// Stores the new keys and values in the cache, and attends; `out` [T, H * D].
    ///
    /// The indices in `inputs` have been checked against the cache by whoever made them; a wrong one panics.
    pub(in crate::engine) fn run(
        &self,
        layout: &CacheLayout,
        inputs: &Inputs<'_>,
        cache: &mut [Lanes],
        out: &mut [f32],
        parallel: &Parallel<'_>,
    ) {
        let sequences = sequences(inputs);
        for sequence in &sequences {
            store(layout, inputs, sequence, cache);
        }
        let parts = parts(
            &sequences,
            inputs.num_heads / layout.num_kv_heads,
            self.workers.len(),
        );
        let width = inputs.num_heads * layout.head_dim;
        let mut rest = out;
        let mut jobs = Vec::with_capacity(parts.len());
        for part in parts {
            let rows = part.sequences.len() * part.tokens.len();
            let (rows, after) = rest.split_at_mut(rows * width);
            rest = after;
            jobs.push((part, Mutex::new(rows)));
        }
        // Long ones last in a prompt, so they are handed out one by one rather than in equal shares.
        let next = AtomicUsize::new(0);
        let cache = &*cache;
        parallel(self.workers.len().min(jobs.len()), &|worker| {
            // A panic here ends the process (C code is in between), so no lock is ever found poisoned.
            let tile = &mut *self.workers[worker]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            while let Some((part, rows)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                pulp::Arch::new().dispatch(Attend {
                    layout,
                    inputs,
                    sequences: &sequences[part.sequences.clone()],
                    tokens: part.tokens.clone(),
                    cache,
                    tile,
                    out: &mut rows,
                });
            }
        });
    }
}

fn sequences<'a>(inputs: &Inputs<'a>) -> Vec<Sequence<'a>> {
    let num = inputs.sequences.len() / SEQUENCE_FIELDS;
    let width = inputs.block_table.len() / num.max(1);
    let size = |n: i32| usize::try_from(n).unwrap_or(0);
    let rows = inputs.sequences.chunks_exact(SEQUENCE_FIELDS);
    rows.zip(inputs.block_table.chunks(width.max(1)))
        .map(|(fields, table)| {
            let prefix = size(fields[2]);
            let (prefix_blocks, own_blocks) = table.split_at(prefix.div_ceil(BLOCK));
            Sequence {
                first: size(fields[0]),
                num_new: size(fields[1]),
                prefix,
                own: size(fields[3]),
                prefix_blocks,
                own_blocks,
            }
        })
        .collect()
}

/// Cuts the pass into parts. What is cut where has no influence on the results.
fn parts(sequences: &[Sequence<'_>], queries_per_token: usize, threads: usize) -> Vec<Part> {
    let most = (TILE_QUERIES / queries_per_token.max(1)).max(1);
    // Several parts per thread where there are enough sequences.
    let cluster = most.min(sequences.len().div_ceil(4 * threads)).max(1);
    let mut parts = Vec::new();
    let mut index = 0;
    while index < sequences.len() {
        let sequence = &sequences[index];
        let mut end = index + 1;
        if sequence.num_new == 1 {
            let shares = |other: &Sequence<'_>| {
                other.num_new == 1
                    && sequence.prefix > 0
                    && (other.prefix, other.prefix_blocks)
                        == (sequence.prefix, sequence.prefix_blocks)
            };
            while end < sequences.len() && end - index < cluster && shares(&sequences[end]) {
                end += 1;
            }
        }
        let mut token = 0;
        while token < sequence.num_new {
            let tokens = token..(token + most).min(sequence.num_new);
            token = tokens.end;
            parts.push(Part {
                sequences: index..end,
                tokens,
            });
        }
        index = end;
    }
    parts
}

/// Writes the new keys, rotated, and values of a sequence into its own blocks.
fn store(layout: &CacheLayout, inputs: &Inputs<'_>, sequence: &Sequence<'_>, cache: &mut [Lanes]) {
    let (dim, kv_heads) = (layout.head_dim, layout.num_kv_heads);
    let mut key = vec![0.0; dim];
    for new in 0..sequence.num_new {
        let token = sequence.first + new;
        let row = &inputs.qkv[token * (inputs.num_heads + 2 * kv_heads) * dim..];
        let (block, slot) = ((sequence.own + new) / BLOCK, (sequence.own + new) % BLOCK);
        let block = usize::try_from(sequence.own_blocks[block]).unwrap_or(usize::MAX);
        for head in 0..kv_heads {
            let at = |kind| layout.at(block, inputs.layer, kind, head);
            rotate(
                inputs,
                token,
                &row[(inputs.num_heads + head) * dim..][..dim],
                1.0,
                &mut key,
            );
            let to: &mut [f32] = bytemuck::cast_slice_mut(&mut cache[at(Kind::Keys)]);
            for (d, &x) in key.iter().enumerate() {
                to[d * BLOCK + slot] = x;
            }
            let value = &row[(inputs.num_heads + kv_heads + head) * dim..][..dim];
            let to: &mut [f32] = bytemuck::cast_slice_mut(&mut cache[at(Kind::Values)]);
            let stride = to.len() / BLOCK;
            to[slot * stride..][..dim].copy_from_slice(value);
        }
    }
}

/// Turns the halves of `x` [D] by the token's angles, times `scale`.
#[inline(always)]
fn rotate(inputs: &Inputs<'_>, token: usize, x: &[f32], scale: f32, out: &mut [f32]) {
    let half = x.len() / 2;
    let cos = &inputs.cos[token * half..(token + 1) * half];
    let sin = &inputs.sin[token * half..(token + 1) * half];
    let (low, high) = x.split_at(half);
    let (out_low, out_high) = out.split_at_mut(half);
    for d in 0..half {
        out_low[d] = (low[d] * cos[d] - high[d] * sin[d]) * scale;
        out_high[d] = (high[d] * cos[d] + low[d] * sin[d]) * scale;
    }
}

/// Attention of one part.
struct Attend<'a> {
    layout: &'a CacheLayout,
    inputs: &'a Inputs<'a>,
    sequences: &'a [Sequence<'a>],
    /// Of each of them.
    tokens: Range<usize>,
    cache: &'a [Lanes],
    tile: &'a mut Tile,
    /// [tokens of the part, H * D].
    out: &'a mut [f32],
}

impl NullaryFnOnce for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            layout,
            inputs,
            sequences,
            tokens,
            cache,
            tile,
            out,
        } = self;
        let (dim, kv_heads) = (layout.head_dim, layout.num_kv_heads);
        let per_head = inputs.num_heads / kv_heads; // query heads of a kv head
        let per_sequence = tokens.len() * per_head;
        let num_queries = sequences.len() * per_sequence;
        let row_width = (inputs.num_heads + 2 * kv_heads) * dim;
        let scale = 1.0 / (dim as f32).sqrt();
        let block = |id: i32, head| {
            let id = usize::try_from(id).unwrap_or(usize::MAX);
            let part = |kind| &cache[layout.at(id, inputs.layer, kind, head)];
            Block {
                keys: part(Kind::Keys),
                values: part(Kind::Values),
            }
        };
        let mut visible = [0; TILE_QUERIES];
        let mut wide;
        let visible: &mut [usize] = if num_queries <= TILE_QUERIES {
            &mut visible[..num_queries]
        } else {
            wide = vec![0; num_queries]; // one token with more query heads than a tile has room for
            &mut wide
        };
        for head in 0..kv_heads {
            tile.start(num_queries, dim);
            let new_tokens = sequences.iter().flat_map(|sequence| {
                let first = sequence.first;
                tokens.clone().map(move |token| first + token)
            });
            for (index, token) in new_tokens.enumerate() {
                for query in 0..per_head {
                    let from = token * row_width + (head * per_head + query) * dim;
                    let at = (index * per_head + query) * dim;
                    let out = &mut tile.queries[at..at + dim];
                    rotate(inputs, token, &inputs.qkv[from..from + dim], scale, out);
                }
            }
            // The prefix: all queries see all of it.
            let (prefix, prefix_blocks) = sequences.first().map_or((0, &[][..]), |sequence| {
                (sequence.prefix, sequence.prefix_blocks)
            });
            // All blocks in the order in which they are read, each asked for while the one before it is worked on.
            let ids = prefix_blocks.iter().chain(
                sequences
                    .iter()
                    .flat_map(|sequence| sequence.blocks_before(tokens.end)),
            );
            let mut blocks = ids.map(|&id| block(id, head)).peekable();
            for index in 0..prefix_blocks.len() {
                visible.fill((prefix - index * BLOCK).min(BLOCK));
                let Some(now) = blocks.next() else { break };
                tile.absorb(0, visible, now, blocks.peek().copied());
            }
            // Each sequence's own tokens, up to the query's.
            for (index, sequence) in sequences.iter().enumerate() {
                let first = index * per_sequence;
                let visible = &mut visible[..per_sequence];
                for number in 0..sequence.blocks_before(tokens.end).len() {
                    for (token, visible) in tokens.clone().zip(visible.chunks_mut(per_head)) {
                        visible.fill(
                            (sequence.own + token + 1)
                                .saturating_sub(number * BLOCK)
                                .min(BLOCK),
                        );
                    }
                    let Some(now) = blocks.next() else { break };
                    tile.absorb(first, visible, now, blocks.peek().copied());
                }
            }
            for token in 0..sequences.len() * tokens.len() {
                for query in 0..per_head {
                    let at = (token * inputs.num_heads + head * per_head + query) * dim;
                    tile.finish(token * per_head + query, &mut out[at..at + dim]);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
