//! Draws from what a device's head says of a row, so that the row itself stays where it is.
//!
//! As exact as the head's sums, which are of f32 (about 1e-6): of the candidates each is drawn with its own probability, and whatever the head does not settle is drawn from the
//! row itself, with a number that is as good as new. For the same random number the token may be another than that of a
//! draw from the whole row, whose order is that of the ids.

use super::row::BLOCK;
use super::row::sum_of;
use super::{EntropyKind, Error, Result, Sampler, Scored, scored, walk};

/// Share of what may be drawn below which a sum in f32 says nothing of it.
const LEAST_TRUSTED: f64 = 1e-3;

/// What the head says of one row: of softmax(logits / temperature) over the whole vocabulary, before bans.
#[derive(Debug, Clone, Copy)]
pub struct RowHead<'a> {
    /// ln of the sum of `exp((logit - largest) / temperature)`.
    pub log_total: f32,
    /// Log-probability of the chosen token, in nats.
    pub chosen_logprob: f32,
    /// Entropy of the whole distribution, in nats.
    pub entropy: f32,
    /// Probability of what is banned.
    pub banned_mass: f32,
    /// Probability of the candidates; where it is below the nucleus's, nothing else is said of the nucleus.
    pub candidate_mass: f32,
    /// Entropy of the nucleus, its probabilities as they are, in nats.
    pub nucleus_entropy: f32,
    /// The same, its probabilities divided by their sum.
    pub renormalised_entropy: f32,
    /// The likeliest tokens, likeliest first.
    pub candidate_ids: &'a [i32],
    /// Their logits.
    pub candidate_logits: &'a [f32],
}

/// What a draw from a head comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Draw {
    /// A token.
    Token(Scored),
    /// The row is needed: draw from it with the same random number.
    Row,
    /// The row is needed: draw of what are no candidates, with this random number.
    Beyond(f64),
}

impl Sampler {
    /// Draws a token with the random number `uniform` in [0, 1), or takes the likeliest.
    #[must_use]
    pub fn draw_candidates(&self, head: &RowHead<'_>, uniform: Option<f64>) -> Draw {
        let Some(entropy) = self.entropy_of(head) else {
            return Draw::Row;
        };
        let allowed: Vec<(u32, f32, f64)> = self.allowed_candidates(head).collect();
        let token = |(id, logit, _): (u32, f32, f64)| {
            Draw::Token(scored(id, self.logprob_of(head, logit), entropy))
        };
        let uniform = uniform.filter(|_| self.sampling.temperature > 0.0);
        let Some(uniform) = uniform else {
            return allowed
                .first()
                .map_or(Draw::Row, |&likeliest| token(likeliest));
        };
        let total = 1.0 - f64::from(head.banned_mass);
        if total < LEAST_TRUSTED {
            return Draw::Row;
        }
        let (top_k, top_p) = (self.sampling.top_k, f64::from(self.sampling.top_p));
        let mut listed = allowed;
        if top_k > 0 || top_p < 1.0 {
            let mut target = top_p * total;
            if top_k > 0 {
                if listed.len() < top_k {
                    return Draw::Row;
                }
                listed.truncate(top_k);
                target = top_p * mass(&listed);
            }
            if top_p < 1.0 {
                let mut before = 0.0;
                let is_crossed = listed.iter().position(|&(.., share)| {
                    before += share;
                    before >= target
                });
                match is_crossed {
                    Some(last) => listed.truncate(last + 1),
                    None if top_k > 0 => {}
                    None => return Draw::Row,
                }
            }
            return pick(listed, |listed| uniform * mass(listed)).map_or(Draw::Row, token);
        }
        let listed_mass = mass(&listed);
        let target = uniform * total;
        if target >= listed_mass {
            let rest = (target - listed_mass) / (total - listed_mass);
            return Draw::Beyond(rest.clamp(0.0, 1.0 - f64::EPSILON));
        }
        pick(listed, |_| target).map_or(Draw::Row, token)
    }

    /// Scores the chosen token; none where the row itself is needed.
    #[must_use]
    pub fn score_candidates(&self, head: &RowHead<'_>, token: u32) -> Option<Scored> {
        let logprob = f64::from(head.chosen_logprob).min(0.0);
        Some(scored(token, logprob, self.entropy_of(head)?))
    }

    /// Draws of the tokens of the row `logits` [V] that are no candidates.
    ///
    /// # Errors
    /// As for [`Self::sample`].
    pub fn sample_beyond(
        &mut self,
        logits: &[f32],
        candidates: &[i32],
        uniform: f64,
    ) -> Result<Scored> {
        let (logprob_of, entropy) = self.measure(logits)?;
        self.ban();
        let (weights, sums) = (
            &mut self.distribution.weights,
            &mut self.distribution.block_sums,
        );
        for &id in candidates {
            let weight = usize::try_from(id).ok().and_then(|id| weights.get_mut(id));
            *weight.ok_or(Error::NothingAllowed)? = 0.0;
        }
        for (sum, block) in sums.iter_mut().zip(weights.chunks(BLOCK)) {
            *sum = sum_of(block);
        }
        let total: f64 = sums.iter().sum();
        let token = if total > 0.0 {
            self.walk_row(uniform * total)?.token
        } else {
            self.greedy(logits)? // the head's sums left a rest that the row does not have
        };
        Ok(scored(token, logprob_of.of(logits, token)?, entropy))
    }

    /// The entropy that is reported; none where the head cannot say.
    fn entropy_of(&self, head: &RowHead<'_>) -> Option<f64> {
        let entropy = match self.sampling.entropy {
            EntropyKind::Full => head.entropy,
            _ if head.candidate_mass < self.sampling.nucleus_p => return None,
            EntropyKind::Raw => head.nucleus_entropy,
            EntropyKind::Renormalised => head.renormalised_entropy,
        };
        // The whole one as well: that of a nucleus may be finite where the row is not.
        let is_finite = [entropy, head.entropy, head.log_total].map(f32::is_finite);
        (is_finite == [true; 3]).then_some(f64::from(entropy))
    }

    fn logprob_of(&self, head: &RowHead<'_>, logit: f32) -> f64 {
        let largest = head.candidate_logits.first().copied().unwrap_or(logit);
        let temperature = f64::from(self.sampling.measured_temperature());
        let depth = (f64::from(logit) - f64::from(largest)) / temperature;
        (depth - f64::from(head.log_total)).min(0.0)
    }

    /// Id, logit and probability of the candidates that may be drawn, likeliest first.
    fn allowed_candidates<'a>(
        &'a self,
        head: &'a RowHead<'_>,
    ) -> impl Iterator<Item = (u32, f32, f64)> + 'a {
        let candidates = head.candidate_ids.iter().zip(head.candidate_logits);
        candidates.filter_map(|(&id, &logit)| {
            let id = u32::try_from(id).ok().filter(|&id| self.is_allowed(id))?;
            Some((id, logit, self.logprob_of(head, logit).exp()))
        })
    }
}

fn mass(listed: &[(u32, f32, f64)]) -> f64 {
    listed.iter().map(|&(.., share)| share).sum()
}

/// The one, in the order of their ids, at which the running sum exceeds the target.
fn pick(
    mut listed: Vec<(u32, f32, f64)>,
    target: impl FnOnce(&[(u32, f32, f64)]) -> f64,
) -> Option<(u32, f32, f64)> {
    listed.sort_unstable_by_key(|&(id, ..)| id);
    let target = target(&listed);
    let drawn = walk(listed.iter().map(|&(id, _, share)| (id, share)), target)?;
    listed.into_iter().find(|&(id, ..)| id == drawn.token)
}

#[cfg(test)]
#[path = "candidates_tests.rs"]
mod tests;
