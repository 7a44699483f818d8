//! Queries that go through blocks of the cache together, each with its running softmax.
//!
//! `// Q queries, D head dim, Dl = ceil(D / 16) lanes`
//!
//! A block's scores, weights and sums are worked out before the next block is looked at: m is the largest score so far,
//! s the sum of exp(score - m), acc the sum of exp(score - m) * value; all are scaled down when a larger score comes.

use super::lanes::{LANES, Lanes, exp};
use crate::engine::cache::BLOCK;

/// Lanes of a block's tokens.
const HALVES: usize = BLOCK / LANES;

/// Queries whose partial sums are kept in registers together.
const REGISTER_QUERIES: usize = 6;
/// Lanes of a value that are kept in registers together.
const REGISTER_LANES: usize = 4;

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
    /// [Q].
    largest: Vec<f32>,
    /// [Q].
    totals: Vec<f32>,
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
        self.largest.clear();
        self.largest.resize(num_queries, f32::NEG_INFINITY);
        self.totals.clear();
        self.totals.resize(num_queries, 0.0);
        self.corrections.resize(num_queries, 1.0);
    }

    /// Takes the queries `first..first + visible.len()` through a block: query i sees its first `visible[i]` tokens.
    /// `keys` are [D, BLOCK], `values` [BLOCK, Dl].
    #[inline(always)]
    pub(super) fn absorb(
        &mut self,
        first: usize,
        visible: &[usize],
        keys: &[Lanes],
        values: &[Lanes],
    ) {
        let longest = visible.iter().copied().max().unwrap_or(0);
        if longest == 0 {
            return;
        }
        let mut done = 0;
        while done < visible.len() {
            let (query, now) = (first + done, (visible.len() - done).min(REGISTER_QUERIES));
            let visible = &visible[done..done + now];
            match now {
                1 => self.step::<1>(query, visible, keys, values, longest),
                2 => self.step::<2>(query, visible, keys, values, longest),
                3 => self.step::<3>(query, visible, keys, values, longest),
                4 => self.step::<4>(query, visible, keys, values, longest),
                5 => self.step::<5>(query, visible, keys, values, longest),
                _ => self.step::<REGISTER_QUERIES>(query, visible, keys, values, longest),
            }
            done += now;
        }
    }

    #[inline(always)]
    fn step<const Q: usize>(
        &mut self,
        first: usize,
        visible: &[usize],
        keys: &[Lanes],
        values: &[Lanes],
        longest: usize,
    ) {
        self.score::<Q>(first, keys);
        for (query, &visible) in (first..).zip(visible) {
            self.soften(query, visible);
        }
        let dim_lanes = self.head_dim.div_ceil(LANES);
        let mut lane = 0;
        while lane + REGISTER_LANES <= dim_lanes {
            self.accumulate::<Q, REGISTER_LANES>(first, lane, values, longest);
            lane += REGISTER_LANES;
        }
        while lane < dim_lanes {
            self.accumulate::<Q, 1>(first, lane, values, longest);
            lane += 1;
        }
    }

    /// Scores of all tokens of the block, visible or not.
    #[inline(always)]
    fn score<const Q: usize>(&mut self, first: usize, keys: &[Lanes]) {
        let dim = self.head_dim;
        let queries = &self.queries[first * dim..(first + Q) * dim];
        let mut scores = [[Lanes::ZERO; HALVES]; Q];
        for (d, key) in keys.chunks_exact(HALVES).take(dim).enumerate() {
            for (query, scores) in scores.iter_mut().enumerate() {
                let factor = queries[query * dim + d];
                for (score, &key) in scores.iter_mut().zip(key) {
                    *score = score.mul_add(factor, key);
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
        let before = self.largest[query];
        let largest = weights
            .iter()
            .fold(before, |largest, half| half.max().max(largest));
        let correction = exp(before - largest);
        let mut total = Lanes::ZERO;
        for half in weights {
            let mut shifted = *half;
            for x in &mut shifted.0 {
                *x -= largest;
            }
            *half = shifted.exp();
            for (total, &weight) in total.0.iter_mut().zip(&half.0) {
                *total += weight;
            }
        }
        self.totals[query] = self.totals[query].mul_add(correction, total.sum());
        self.largest[query] = largest;
        self.corrections[query] = correction;
    }

    /// Adds the weighted values of the block's first `longest` tokens, lanes `lane..lane + W` of them.
    #[inline(always)]
    fn accumulate<const Q: usize, const W: usize>(
        &mut self,
        first: usize,
        lane: usize,
        values: &[Lanes],
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
        for (token, value) in values.chunks_exact(dim_lanes).take(longest).enumerate() {
            let value = &value[lane..lane + W];
            for (query, sums) in sums.iter_mut().enumerate() {
                let weight = self.weights[first + query][token / LANES].0[token % LANES];
                for (sum, &value) in sums.iter_mut().zip(value) {
                    *sum = sum.mul_add(weight, value);
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
        let scale = 1.0 / self.totals[query];
        let sums = &self.sums[query * dim_lanes..(query + 1) * dim_lanes];
        for (out, sum) in out.chunks_mut(LANES).zip(sums) {
            for (out, sum) in out.iter_mut().zip(sum.0) {
                *out = sum * scale;
            }
        }
    }
}
