//! Queries that go through blocks of the cache together, each with its running softmax.
//!
//! `// Q queries, D head dim, Dl = ceil(D / 16) lanes`
//!
//! A block's scores, weights and sums are worked out before the next block is looked at: m is a score about as large as
//! the largest so far, s the sum of exp(score - m), acc the sum of exp(score - m) * value. Only when a score is more than
//! [`SLACK`] above m does it become m, and the sums are scaled down: mostly the first block decides.

use super::lanes::{LANES, Lanes, exp};
use super::prefetch;
use crate::engine::cache::BLOCK;

/// Lanes of a block's tokens.
const HALVES: usize = BLOCK / LANES;

/// How far a score may be above m: a weight is at most e^8, so that sums of any length stay far from f32's limit.
const SLACK: f32 = 8.0;

/// Queries whose partial sums are kept in registers together.
const REGISTER_QUERIES: usize = 6;
/// Lanes of a value that are kept in registers together.
const REGISTER_LANES: usize = 4;

/// One head's keys and values of a block's tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// [D, BLOCK].
    pub(super) keys: &'a [Lanes],
    /// [BLOCK, Dl].
    pub(super) values: &'a [Lanes],
}

/// Buffers of one thread, used again for the next tile.
#[derive(Debug, Default)]
pub(super) struct Tile {
    head_dim: usize,
    /// Rotated and scaled, [Q, D].
    pub(super) queries: Vec<f32>,
    /// [Q, Dl].
    sums: Vec<Lanes>,
    /// Weights of the block's tokens, [Q, BLOCK].
    weights: Vec<[Lanes; HALVES]>,
    /// m, [Q].
    peaks: Vec<f32>,
    /// s in partial sums, [Q].
    totals: Vec<Lanes>,
    /// What the sums must be scaled by, [Q].
    corrections: Vec<f32>,
}

impl Tile {
    /// Forgets everything; room for `num_queries`.
    #[inline(always)]
    pub(super) fn start(&mut self, num_queries: usize, head_dim: usize) {
        let dim_lanes = head_dim.div_ceil(LANES);
        self.head_dim = head_dim;
        self.queries.clear();
        self.queries.resize(num_queries * head_dim, 0.0);
        self.sums.clear();
        self.sums.resize(num_queries * dim_lanes, Lanes::ZERO);
        self.weights.resize(num_queries, [Lanes::ZERO; HALVES]);
        self.peaks.clear();
        self.peaks.resize(num_queries, f32::NEG_INFINITY);
        self.totals.clear();
        self.totals.resize(num_queries, Lanes::ZERO);
        self.corrections.resize(num_queries, 1.0);
    }

    /// Takes the queries `first..first + visible.len()` through a block: query i sees its first `visible[i]` tokens.
    /// Of `next`, the block that follows, what is needed first is fetched meanwhile.
    #[inline(always)]
    pub(super) fn absorb(
        &mut self,
        first: usize,
        visible: &[usize],
        block: Block<'_>,
        next: Option<Block<'_>>,
    ) {
        let longest = visible.iter().copied().max().unwrap_or(0);
        if longest == 0 {
            return;
        }
        let mut next = next.map_or(&[][..], |next| next.keys);
        let mut done = 0;
        while done < visible.len() {
            let (query, now) = (first + done, (visible.len() - done).min(REGISTER_QUERIES));
            let visible = &visible[done..done + now];
            match now {
                1 => self.step::<1>(query, visible, block, next, longest),
                2 => self.step::<2>(query, visible, block, next, longest),
                3 => self.step::<3>(query, visible, block, next, longest),
                4 => self.step::<4>(query, visible, block, next, longest),
                5 => self.step::<5>(query, visible, block, next, longest),
                _ => self.step::<REGISTER_QUERIES>(query, visible, block, next, longest),
            }
            next = &[];
            done += now;
        }
    }

    #[inline(always)]
    fn step<const Q: usize>(
        &mut self,
        first: usize,
        visible: &[usize],
        block: Block<'_>,
        next_keys: &[Lanes],
        longest: usize,
    ) {
        self.score::<Q>(first, block);
        for (query, &visible) in (first..).zip(visible) {
            self.soften(query, visible);
        }
        let dim_lanes = self.head_dim.div_ceil(LANES);
        let (mut lane, mut next) = (0, next_keys);
        while lane + REGISTER_LANES <= dim_lanes {
            self.accumulate::<Q, REGISTER_LANES>(first, lane, block.values, next, longest);
            lane += REGISTER_LANES;
            next = &[];
        }
        while lane < dim_lanes {
            self.accumulate::<Q, 1>(first, lane, block.values, next, longest);
            lane += 1;
            next = &[];
        }
    }

    /// Scores of all tokens of the block, visible or not.
    #[inline(always)]
    fn score<const Q: usize>(&mut self, first: usize, block: Block<'_>) {
        let dim = self.head_dim;
        // Rows of a length that the compiler can see: a check at every factor costs as much as the sums.
        let mut rest = &self.queries[first * dim..];
        let mut queries = [&[][..]; Q];
        for query in &mut queries {
            (*query, rest) = rest.split_at(dim);
        }
        let (keys, _) = block.keys.as_chunks::<HALVES>();
        let keys = &keys[..dim];
        let mut scores = [[Lanes::ZERO; HALVES]; Q];
        for d in 0..dim {
            let key = keys[d];
            // As many lines as the keys have.
            for half in 0..HALVES {
                prefetch::line(block.values, HALVES * d + half);
            }
            for (query, scores) in queries.iter().zip(&mut scores) {
                for (score, key) in scores.iter_mut().zip(key) {
                    *score = score.mul_add(query[d], key);
                }
            }
        }
        self.weights[first..first + Q].copy_from_slice(&scores);
    }

    /// Scores to weights, and how far the sums so far must come down.
    #[inline(always)]
    fn soften(&mut self, query: usize, visible: usize) {
        let weights = &mut self.weights[query];
        if visible == 0 {
            // Nothing to see here: the query goes on as if the block were not there.
            *weights = [Lanes::ZERO; HALVES];
            self.corrections[query] = 1.0;
            return;
        }
        if visible < BLOCK {
            for (half, weights) in weights.iter_mut().enumerate() {
                for (lane, weight) in weights.0.iter_mut().enumerate() {
                    if half * LANES + lane >= visible {
                        *weight = f32::NEG_INFINITY;
                    }
                }
            }
        }
        let limit = self.peaks[query] + SLACK;
        let mut is_above = false;
        for half in weights.iter() {
            for &score in &half.0 {
                is_above |= score > limit;
            }
        }
        let mut correction = 1.0;
        if is_above {
            let largest = weights
                .iter()
                .fold(f32::NEG_INFINITY, |largest, half| half.max().max(largest));
            correction = exp(self.peaks[query] - largest);
            self.peaks[query] = largest;
        }
        let peak = self.peaks[query];
        let mut total = self.totals[query].scale(correction);
        for half in weights {
            let mut shifted = *half;
            for x in &mut shifted.0 {
                *x -= peak;
            }
            *half = shifted.exp();
            for (total, &weight) in total.0.iter_mut().zip(&half.0) {
                *total += weight;
            }
        }
        self.totals[query] = total;
        self.corrections[query] = correction;
    }

    /// Adds the weighted values of the block's first `longest` tokens, lanes `lane..lane + W` of them.
    #[inline(always)]
    fn accumulate<const Q: usize, const W: usize>(
        &mut self,
        first: usize,
        lane: usize,
        values: &[Lanes],
        next_keys: &[Lanes],
        longest: usize,
    ) {
        let dim_lanes = self.head_dim.div_ceil(LANES);
        let mut sums = [[Lanes::ZERO; W]; Q];
        for (query, sums) in sums.iter_mut().enumerate() {
            let start = (first + query) * dim_lanes + lane;
            let correction = self.corrections[first + query];
            for (sum, old) in sums.iter_mut().zip(&self.sums[start..start + W]) {
                *sum = old.scale(correction);
            }
        }
        let weights = &self.weights[first..first + Q];
        for (token, value) in values.chunks_exact(dim_lanes).take(longest).enumerate() {
            let Some(value) = value[lane..].first_chunk::<W>() else {
                continue; // a value has at least W lanes from here on
            };
            for line in 0..W {
                prefetch::line(next_keys, token * W + line);
            }
            for (weights, sums) in weights.iter().zip(&mut sums) {
                let weights: &[f32; BLOCK] = bytemuck::cast_ref(weights);
                for (sum, &value) in sums.iter_mut().zip(value) {
                    *sum = sum.mul_add(weights[token % BLOCK], value);
                }
            }
        }
        for (query, sums) in sums.iter().enumerate() {
            let start = (first + query) * dim_lanes + lane;
            self.sums[start..start + W].copy_from_slice(sums);
        }
    }

    /// The attended value of a query, `out` [D].
    #[inline(always)]
    pub(super) fn finish(&self, query: usize, out: &mut [f32]) {
        let dim_lanes = self.head_dim.div_ceil(LANES);
        let scale = 1.0 / self.totals[query].sum();
        let sums = &self.sums[query * dim_lanes..(query + 1) * dim_lanes];
        for (out, sum) in out.chunks_mut(LANES).zip(sums) {
            for (out, sum) in out.iter_mut().zip(sum.0) {
                *out = sum * scale;
            }
        }
    }
}
