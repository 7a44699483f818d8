//! Chooses the next token of a row, and says how likely it was.

mod error;
mod random;
mod statistics;

pub use error::{Error, Result};
pub use random::{permutation, uniform};
pub use statistics::{Distribution, EntropyKind, Nucleus};

use statistics::{BLOCK, gather, heavier, select_mass};

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

/// Draws and scores tokens. Holds buffers: one per thread.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    distribution: Distribution,
}

impl Sampler {
    /// A sampler for these settings.
    #[must_use]
    pub fn new(mut sampling: Sampling) -> Self {
        sampling.banned.sort_unstable();
        Self {
            sampling,
            distribution: Distribution::new(),
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
        let (logprob_of, entropy) = self.measure(logits)?;
        let token = if self.sampling.temperature == 0.0 {
            self.greedy(logits)?
        } else {
            self.draw(logits, uniform)?
        };
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
        let temperature = match self.sampling.temperature {
            0.0 => 1.0,
            temperature => f64::from(temperature),
        };
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
        for (id, &logit) in (0_u32..).zip(logits).take(self.sampling.num_tokens) {
            if best.is_none_or(|(_, top)| logit > top)
                && self.sampling.banned.binary_search(&id).is_err()
            {
                best = Some((id, logit));
            }
        }
        best.map(|(id, _)| id).ok_or(Error::NothingAllowed)
    }

    fn draw(&mut self, logits: &[f32], uniform: f64) -> Result<u32> {
        let total = self.ban();
        if total <= 0.0 {
            // What is banned outweighs the rest beyond f64; the likeliest of the rest is as good a draw as any.
            return self.greedy(logits);
        }
        let (top_k, top_p) = (self.sampling.top_k, f64::from(self.sampling.top_p));
        let Distribution {
            weights,
            block_sums,
            candidates,
            ..
        } = &mut self.distribution;
        if top_k == 0 && top_p >= 1.0 {
            return walk_blocks(weights, block_sums, uniform * total);
        }
        // Top-k first; the nucleus is then taken of what is left.
        let mut kept = total;
        if top_k > 0 {
            gather(weights, total, 1.0, candidates);
            if top_k < candidates.len() {
                candidates.select_nth_unstable_by(top_k, heavier);
                candidates.truncate(top_k);
            }
            kept = candidates.iter().map(|candidate| candidate.weight).sum();
        } else {
            gather(weights, total, top_p, candidates);
        }
        if top_p < 1.0 {
            let size = select_mass(candidates, top_p * kept);
            candidates.truncate(size);
        }
        candidates.sort_unstable_by_key(|candidate| candidate.id);
        let kept: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        walk(
            candidates
                .iter()
                .map(|candidate| (candidate.id, candidate.weight)),
            uniform * kept,
        )
        .ok_or(Error::NothingAllowed)
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
        let mut touched: Vec<usize> = (end / BLOCK..block_sums.len()).collect();
        for &id in &self.sampling.banned {
            if let Some(weight) = weights.get_mut(id as usize) {
                *weight = 0.0;
                touched.push(id as usize / BLOCK);
            }
        }
        // Summed again rather than subtracted: a banned token may hold nearly all of its block.
        for block in touched {
            let end = weights.len().min((block + 1) * BLOCK);
            block_sums[block] = weights[block * BLOCK..end].iter().sum();
        }
        block_sums.iter().sum()
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

/// Inverts the cumulative sum: the first token at which it exceeds `target`.
fn walk_blocks(weights: &[f64], block_sums: &[f64], target: f64) -> Result<u32> {
    let mut before = 0.0;
    let mut block = None;
    for (index, &sum) in block_sums.iter().enumerate() {
        if sum > 0.0 {
            block = Some((index, before));
            if before + sum > target {
                break;
            }
        }
        before += sum;
    }
    let (block, before) = block.ok_or(Error::NothingAllowed)?;
    let start = block * BLOCK;
    let end = weights.len().min(start + BLOCK);
    let ids = (0_u32..)
        .zip(weights)
        .skip(start)
        .take(end - start)
        .map(|(id, &weight)| (id, weight));
    walk(ids, target - before).ok_or(Error::NothingAllowed)
}

/// The first item at which the running sum exceeds `target`; the last one of any weight when rounding left it short.
fn walk(items: impl Iterator<Item = (u32, f64)>, target: f64) -> Option<u32> {
    let mut sum = 0.0;
    let mut last = None;
    for (id, weight) in items {
        sum += weight;
        if weight > 0.0 {
            last = Some(id);
            if sum > target {
                break;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests;
