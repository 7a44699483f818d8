//! Chooses the next token of a row, and says how likely it was.

mod candidates;
mod error;
mod exponential;
mod random;
mod row;
mod selection;
mod statistics;

pub use candidates::{Draw, RowHead};
pub use error::{Error, Result};
pub use random::{permutation, uniform};
pub use statistics::{Distribution, EntropyKind, Nucleus};

use row::{BLOCK, CHUNK, Candidate, sum_of};
use selection::{mass, select_mass};

/// How tokens are drawn and measured; the same for every row of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it, for the draw and for the statistics. 0 = greedy (evaluation only): the statistics are then
    /// those of temperature 1.
    pub temperature: f32,
    /// Draw from the nucleus of this mass; 1 = from everything.
    pub top_p: f32,
    /// Draw from the k most likely tokens, before `top_p`; 0 = from everything.
    pub top_k: usize,
    /// Which entropy is reported.
    pub entropy: EntropyKind,
    /// Mass of the nucleus of the reported entropy.
    pub nucleus_p: f32,
    /// Ids that may not be drawn: every vision token.
    pub banned: Vec<u32>,
    /// Ids from here on are padding of the embedding table and may not be drawn (the tokenizer's size).
    pub num_tokens: usize,
}

impl Sampling {
    /// The temperature of what is reported: 1 where the likeliest token is taken.
    #[must_use]
    pub fn measured_temperature(&self) -> f32 {
        match self.temperature {
            0.0 => 1.0,
            temperature => temperature,
        }
    }
}

/// One token and its statistics under softmax(logits / temperature) over the whole vocabulary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: u32,
    /// Its log-probability, in nats.
    pub logprob: f32,
    /// The entropy of the distribution it came from, in nats.
    pub entropy: f32,
}

/// Share of the largest weight below which what may be drawn is weighed anew.
const LEAST_ALLOWED: f64 = 1e-12;

/// Mass of a nucleus from which on a token of the whole row is tried first.
const LIKELY: f64 = 0.5;

/// Draws and scores tokens. Holds buffers: one per thread.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    distribution: Distribution,
    tops_scratch: Vec<f32>,
}

impl Sampler {
    /// A sampler for these settings.
    #[must_use]
    pub fn new(mut sampling: Sampling) -> Self {
        sampling.banned.sort_unstable();
        Self {
            sampling,
            distribution: Distribution::new(),
            tops_scratch: Vec::new(),
        }
    }

    /// The settings.
    #[must_use]
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Draws the token for the row `logits` [V] with the random number `uniform` in [0, 1).
    ///
    /// # Errors
    /// Logits that are not finite, or none that may be drawn.
    pub fn sample(&mut self, logits: &[f32], uniform: f64) -> Result<Scored> {
        if self.sampling.temperature == 0.0 {
            return self.likeliest(logits);
        }
        let (logprob_of, entropy) = self.measure(logits)?;
        let token = self.draw(logits, uniform)?;
        Ok(scored(token, logprob_of.of(logits, token)?, entropy))
    }

    /// Takes the most likely token of the row `logits` [V] that may be drawn, whatever the temperature; the lower id of equals.
    ///
    /// # Errors
    /// As for [`Self::sample`].
    pub fn likeliest(&mut self, logits: &[f32]) -> Result<Scored> {
        let (logprob_of, entropy) = self.measure(logits)?;
        let token = self.greedy(logits)?;
        Ok(scored(token, logprob_of.of(logits, token)?, entropy))
    }

    /// Scores a given token (teacher forcing) under the row `logits` [V].
    ///
    /// # Errors
    /// Logits that are not finite, or a token outside the vocabulary.
    pub fn score(&mut self, logits: &[f32], token: u32) -> Result<Scored> {
        let (logprob_of, entropy) = self.measure(logits)?;
        Ok(scored(token, logprob_of.of(logits, token)?, entropy))
    }

    /// Loads the row and takes what must be known before bans change the weights.
    fn measure(&mut self, logits: &[f32]) -> Result<(LogNormaliser, f64)> {
        let temperature = f64::from(self.sampling.measured_temperature());
        self.distribution.load(logits, temperature)?;
        let entropy = self.distribution.entropy(
            logits,
            self.sampling.entropy,
            f64::from(self.sampling.nucleus_p),
        );
        // logprob is linear in the logit: log pi = logit / temperature - constant.
        let constant = -self.distribution.logprob(0.0);
        Ok((
            LogNormaliser {
                constant,
                temperature,
            },
            entropy,
        ))
    }

    /// The most likely token that is allowed; the lower id of equals.
    fn greedy(&self, logits: &[f32]) -> Result<u32> {
        let mut best: Option<(u32, f32)> = None;
        let chunks = (0_u32..).step_by(CHUNK).zip(logits.chunks(CHUNK));
        for ((start, chunk), &top) in chunks.zip(&self.distribution.tops) {
            if best.is_some_and(|(_, logit)| top <= logit) {
                continue;
            }
            for (id, &logit) in (start..).zip(chunk) {
                if best.is_none_or(|(_, top)| logit > top) && self.is_allowed(id) {
                    best = Some((id, logit));
                }
            }
        }
        best.map(|(id, _)| id).ok_or(Error::NothingAllowed)
    }

    fn is_allowed(&self, id: u32) -> bool {
        (id as usize) < self.sampling.num_tokens && self.sampling.banned.binary_search(&id).is_err()
    }

    fn draw(&mut self, logits: &[f32], uniform: f64) -> Result<u32> {
        let mut total = self.ban();
        if total < LEAST_ALLOWED {
            // What is banned outweighs the rest by so much that f32 weights lose it: weigh again, by the likeliest of the rest.
            let likeliest = self.greedy(logits)?;
            self.distribution.weigh(logits, logits[likeliest as usize]);
            total = self.ban();
        }
        let (top_k, top_p) = (self.sampling.top_k, f64::from(self.sampling.top_p));
        if top_k == 0 && top_p >= 1.0 {
            return Ok(self.walk_row(uniform * total)?.token);
        }
        let mut candidates = std::mem::take(&mut self.distribution.candidates);
        let drawn = if top_k == 0 {
            self.draw_nucleus(logits, uniform, total, &mut candidates)
        } else {
            // Top-k first; the nucleus is then taken of what is left.
            let padding = logits.len().saturating_sub(self.sampling.num_tokens);
            let bans = self.sampling.banned.len() + padding.div_ceil(CHUNK) + 1;
            self.distribution.row(logits).select_count(
                top_k,
                bans,
                &mut candidates,
                &mut self.tops_scratch,
            );
            if top_p < 1.0 {
                let target = top_p * mass(&candidates);
                let size = select_mass(&mut candidates, target);
                candidates.truncate(size);
            }
            draw_listed(&mut candidates, uniform)
        };
        self.distribution.candidates = candidates;
        drawn
    }

    /// Draws from the nucleus of mass `top_p`; `total` is the weight of what may be drawn.
    fn draw_nucleus(
        &mut self,
        logits: &[f32],
        mut uniform: f64,
        total: f64,
        candidates: &mut Vec<Candidate>,
    ) -> Result<u32> {
        let top_p = f64::from(self.sampling.top_p);
        let target = top_p * total;
        let row = self.distribution.row(logits);
        if let Some(size) = row.select_sharp(target, candidates) {
            candidates.truncate(size);
            return draw_listed(candidates, uniform);
        }
        if top_p >= LIKELY {
            // A wide nucleus takes several passes to find, a token's place one: whatever is drawn of the whole row mostly
            // lies within, and if it does not, where the number fell within that token's share is as good as a new number.
            let drawn = self.walk_row(uniform * total)?;
            if row.is_selected(drawn.token, target, candidates) {
                return Ok(drawn.token);
            }
            uniform = drawn.rest;
        }
        let selection = row.select_wide(target, total, candidates);
        candidates.truncate(selection.size);
        if selection.above.size == 0 {
            return draw_listed(candidates, uniform);
        }
        // Too many to be listed: the rest of the row is banned like any other token.
        self.distribution
            .keep(logits, selection.above.logit, candidates);
        let kept: f64 = self.distribution.block_sums.iter().sum();
        Ok(self.walk_row(uniform * kept)?.token)
    }

    /// Sets the weights of tokens that may not be drawn to 0 and returns the sum of the others.
    fn ban(&mut self) -> f64 {
        let Distribution {
            weights,
            block_sums,
            ..
        } = &mut self.distribution;
        let end = self.sampling.num_tokens.min(weights.len());
        weights[end..].fill(0.0);
        for &id in &self.sampling.banned {
            if let Some(weight) = weights.get_mut(id as usize) {
                *weight = 0.0;
            }
        }
        // Summed again rather than subtracted: a banned token may hold nearly all of its block.
        let mut summed = usize::MAX;
        let banned = self.sampling.banned.iter().map(|&id| id as usize / BLOCK);
        for block in banned.chain(end / BLOCK..block_sums.len()) {
            if block != summed && block < block_sums.len() {
                let end = weights.len().min((block + 1) * BLOCK);
                block_sums[block] = sum_of(&weights[block * BLOCK..end]);
                summed = block;
            }
        }
        block_sums.iter().sum()
    }

    /// Inverts the cumulative sum of the weights: the first token at which it exceeds `target`.
    fn walk_row(&self, target: f64) -> Result<Drawn> {
        let (weights, block_sums) = (&self.distribution.weights, &self.distribution.block_sums);
        let mut before = 0.0;
        let mut block = None;
        for (start, &sum) in (0_u32..).step_by(BLOCK).zip(block_sums) {
            if sum > 0.0 {
                block = Some((start, before));
                if before + sum > target {
                    break;
                }
            }
            before += sum;
        }
        let (start, before) = block.ok_or(Error::NothingAllowed)?;
        let weights = weights[start as usize..].iter();
        let ids = (start..).zip(weights.map(|&weight| f64::from(weight)));
        walk(ids.take(BLOCK), target - before).ok_or(Error::NothingAllowed)
    }
}

/// log pi(token) = logit / temperature - constant.
struct LogNormaliser {
    constant: f64,
    temperature: f64,
}

impl LogNormaliser {
    fn of(&self, logits: &[f32], token: u32) -> Result<f64> {
        let logit = logits.get(token as usize).ok_or(Error::TokenRange {
            token,
            vocab_size: logits.len(),
        })?;
        Ok((f64::from(*logit) / self.temperature - self.constant).min(0.0))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "records carry f32")]
fn scored(token: u32, logprob: f64, entropy: f64) -> Scored {
    Scored {
        token,
        logprob: logprob as f32,
        entropy: entropy as f32,
    }
}

/// A token, and where in its share of the mass the random number fell: uniform in [0, 1] as well.
struct Drawn {
    token: u32,
    rest: f64,
}

/// Draws one of the candidates.
fn draw_listed(candidates: &mut [Candidate], uniform: f64) -> Result<u32> {
    candidates.sort_unstable_by_key(|candidate| candidate.id);
    let items = candidates
        .iter()
        .map(|candidate| (candidate.id, f64::from(candidate.weight)));
    let drawn = walk(items, uniform * mass(candidates));
    Ok(drawn.ok_or(Error::NothingAllowed)?.token)
}

/// The first item at which the running sum exceeds `target`; the last one of any weight when rounding left it short.
fn walk(items: impl Iterator<Item = (u32, f64)>, target: f64) -> Option<Drawn> {
    let (mut before, mut last) = (0.0, None);
    for (token, weight) in items {
        if weight > 0.0 {
            last = Some((token, before, weight));
            if before + weight > target {
                break;
            }
        }
        before += weight;
    }
    last.map(|(token, before, weight)| Drawn {
        token,
        rest: ((target - before) / weight).clamp(0.0, 1.0),
    })
}

#[cfg(test)]
mod tests;
