//! The loss: a surrogate (equations 2 and 4 and others), weighted per token (10 and 11), KL to the reference, entropy.
//!
//! It is plain arithmetic on per-token numbers, outside of the network: it gives the loss and its derivative by each
//! policy logprob, and the network carries that derivative on. What divides each term is fixed for a whole mini-batch
//! by [`Normaliser`], so the result does not depend on how the mini-batch is cut into micro-batches.
//!
//! Per response, with r_t = pi / pi_old, w_t token weight, c_t importance correction, A advantage, L tokens, f the
//! normaliser's factor, sg(x) = x without a gradient:
//!
//! | `--surrogate` | its part of the loss | what w does | source |
//! |---|---|---|---|
//! | `clip` | -f sum_t w_t c_t min(r_t A, clip(r_t, 1 - low, 1 + high) A) | weighs each token's term | 1707.06347, dual clip 1912.09729 |
//! | `gspo` | -f (sum_t w_t c_t) min(s A, clip(s) A), log s = sum_t w_t log r_t / sum_t w_t | weighs the tokens in s, and so each one's share of the gradient | 2507.18071 |
//! | `gspo-token` | -f sum_t w_t c_t min(s_t A, clip(s_t) A), s_t = sg(s / pi_t) pi_t, log s = mean_t log r_t | weighs each token's term; s is of all tokens | 2507.18071 |
//! | `cispo` | -f sum_t w_t c_t sg(clip(r_t)) A log pi_t | weighs each token's term | 2506.13585 |
//! | `sapo` | -f sum_t w_t c_t A 4 / tau sigmoid(tau (r_t - 1)), tau by the sign of A | weighs each token's term | 2511.20347 |
//! | `gmpo` | -f (sum_t w_t c_t) A exp(sum_t w_t x_t / sum_t w_t), x_t = log r_t, at most high where A > 0, at least -low where A < 0 | as gspo | 2507.20673 |
//!
//! The other terms: + kl_coef f sum_t kl_t (times w_t with `--kl-weighted`), - perception_kl_coef f sum_t exp(d_t) - d_t - 1
//! with d_t = log pi_t - the recorded logprob without the image (PAPO, 2507.06448, with the masked branch held fixed),
//! - entropy_coef f sum_t H_t.

use shared::config::{Aggregation, KlEstimator, Surrogate, TorNormaliser};

use crate::numbers::narrow;
use kl::{perception_kl, reference_kl};
use sequence::sequence_terms;
use surrogate::{Cut, Term, token_term};

mod importance;
mod kl;
mod normaliser;
mod sequence;
mod surrogate;

pub use importance::{Importance, Scope};
pub use kl::{k3, sampled_kl};
pub use normaliser::{Factors, Normaliser};

/// Log-ratios are clamped to this before they are exponentiated.
const MAX_LOG_RATIO: f64 = 20.0;

/// The shape of the loss. The default is DAPO's.
#[derive(Clone, Copy, Debug)]
pub struct LossSettings {
    /// What is maximised.
    pub surrogate: Surrogate,
    /// eps_low: the importance ratio is clipped below at `1 - clip_low`, with gmpo at `exp(-clip_low)`.
    pub clip_low: f64,
    /// eps_high: the importance ratio is clipped above at `1 + clip_high`, with gmpo at `exp(clip_high)`.
    pub clip_high: f64,
    /// Where the advantage is negative, the surrogate loss is at most `-dual_clip * advantage`; with `clip` alone.
    pub dual_clip: Option<f64>,
    /// tau of sapo where the advantage is positive.
    pub sapo_tau_positive: f64,
    /// tau of sapo elsewhere.
    pub sapo_tau_negative: f64,
    /// Factor of the KL term; 0 is no such term.
    pub kl_coef: f64,
    /// How KL(policy, reference) is estimated from one token.
    pub kl_estimator: KlEstimator,
    /// Whether the KL term has the token weights and their normaliser too.
    pub kl_weighted: bool,
    /// Factor of the reward for KL(policy, policy without the image).
    pub perception_kl_coef: f64,
    /// Factor of the reward for entropy.
    pub entropy_coef: f64,
    /// Mean over all tokens (4), over responses of the mean over their tokens (2), or over responses and a length.
    pub aggregation: Aggregation,
    /// That length.
    pub aggregation_length: usize,
    /// What the weighted sum of a mean is divided by.
    pub normaliser: TorNormaliser,
}

impl Default for LossSettings {
    fn default() -> Self {
        Self {
            surrogate: Surrogate::Clip,
            clip_low: 0.2,
            clip_high: 0.28,
            dual_clip: None,
            sapo_tau_positive: 1.0,
            sapo_tau_negative: 1.05,
            kl_coef: 0.0,
            kl_estimator: KlEstimator::K3,
            kl_weighted: false,
            perception_kl_coef: 0.0,
            entropy_coef: 0.0,
            aggregation: Aggregation::TokenMean,
            aggregation_length: 1,
            normaliser: TorNormaliser::ResponseTokens,
        }
    }
}

impl LossSettings {
    /// Whether there is a KL term, and so a need for the reference.
    #[must_use]
    pub fn has_kl(&self) -> bool {
        self.kl_coef != 0.0 && self.kl_estimator != KlEstimator::Off
    }

    /// Whether the KL term is the sum over the vocabulary, which the network computes.
    #[must_use]
    pub fn has_full_kl(&self) -> bool {
        self.has_kl() && self.kl_estimator == KlEstimator::Full
    }

    /// d loss / d KL of a token: what its KL is multiplied by.
    #[must_use]
    pub fn kl_scale(&self, factors: Factors, weight: f32) -> f64 {
        self.kl_coef
            * match self.kl_weighted {
                true => factors.weighted * f64::from(weight),
                false => factors.plain,
            }
    }

    /// d loss / d entropy of a token.
    #[must_use]
    pub fn entropy_scale(&self, factors: Factors) -> f64 {
        -self.entropy_coef * factors.plain
    }

    /// Whether a token can have a gradient: where not, the network need not be differentiated at it.
    #[must_use]
    pub fn needs_gradient(&self, weight: f32, advantage: f32) -> bool {
        (weight != 0.0 && advantage != 0.0)
            || (self.has_kl() && (!self.kl_weighted || weight != 0.0))
            || self.perception_kl_coef != 0.0
            || self.entropy_coef != 0.0
    }
}

/// One response's tokens, each array [L].
#[derive(Clone, Copy, Debug)]
pub struct ResponseTokens<'a> {
    /// log pi_theta, now.
    pub policy_logprobs: &'a [f32],
    /// Entropy of the policy over the vocabulary, now; empty counts as 0.
    pub entropies: &'a [f32],
    /// KL(policy, reference) over the vocabulary, now; read only with the estimator `full`.
    pub full_kls: &'a [f32],
    /// The learner's own before the step's first update; read only with an importance correction.
    pub old_logprobs: &'a [f32],
    /// The rollout engine's, at sampling; without an importance correction it is pi_old of equation 12.
    pub rollout_logprobs: &'a [f32],
    /// The same without the image; read only with a reward for perception.
    pub blank_logprobs: &'a [f32],
    /// log pi_ref; empty when there is no KL term.
    pub reference_logprobs: &'a [f32],
    /// w of equations 10 and 11.
    pub weights: &'a [f32],
    /// A_i, the same for the whole response.
    pub advantage: f32,
    /// How the rollout's probabilities are corrected for, if at all.
    pub importance: Option<Importance>,
}

/// Sums over the tokens of a mini-batch; add those of its micro-batches with [`LossSums::add`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// The surrogate part of the loss, normalised.
    pub policy_loss: f64,
    /// The KL part of the loss, normalised, without its coefficient.
    pub kl_loss: f64,
    /// KL(policy, policy without the image), normalised, without its coefficient.
    pub perception_kl: f64,
    /// Entropy, normalised, without its coefficient.
    pub entropy_mean: f64,
    /// Tokens seen.
    pub num_tokens: usize,
    /// Tokens whose ratio was cut at `1 + clip_high`.
    pub num_clipped_high: usize,
    /// Tokens whose ratio was cut at `1 - clip_low`.
    pub num_clipped_low: usize,
    /// Tokens cut by the dual clip.
    pub num_dual_clipped: usize,
    /// Sum of the importance correction's factors; without a correction each is 1.
    pub importance_sum: f64,
    /// Tokens whose factor was cut at the cap, or that were dropped.
    pub num_capped: usize,
    /// Sum of `rollout_logprob - policy_logprob`, the k1 estimate of KL(rollout, policy).
    pub ppo_kl: f64,
    /// Sum of the entropies.
    pub entropy_sum: f64,
}

impl LossSums {
    /// Adds what another micro-batch gave.
    pub fn add(&mut self, other: &Self) {
        self.policy_loss += other.policy_loss;
        self.kl_loss += other.kl_loss;
        self.perception_kl += other.perception_kl;
        self.entropy_mean += other.entropy_mean;
        self.num_tokens += other.num_tokens;
        self.num_clipped_high += other.num_clipped_high;
        self.num_clipped_low += other.num_clipped_low;
        self.num_dual_clipped += other.num_dual_clipped;
        self.importance_sum += other.importance_sum;
        self.num_capped += other.num_capped;
        self.ppo_kl += other.ppo_kl;
        self.entropy_sum += other.entropy_sum;
    }

    /// The loss: all terms with their coefficients.
    #[must_use]
    pub fn loss(&self, settings: &LossSettings) -> f64 {
        self.policy_loss + settings.kl_coef * self.kl_loss
            - settings.perception_kl_coef * self.perception_kl
            - settings.entropy_coef * self.entropy_mean
    }

    fn count(&mut self, cut: Cut) {
        match cut {
            Cut::None => {}
            Cut::High => self.num_clipped_high += 1,
            Cut::Low => self.num_clipped_low += 1,
            Cut::Dual => self.num_dual_clipped += 1,
        }
    }
}

/// Adds one response's part to `sums` and writes d loss / d policy_logprob into `gradient` [L].
///
/// `factors` are the response's entries of the mini-batch's [`Normaliser`]. The derivatives by entropy and full KL are
/// [`LossSettings::entropy_scale`] and [`LossSettings::kl_scale`].
pub fn response_loss(
    settings: &LossSettings,
    tokens: &ResponseTokens<'_>,
    factors: Factors,
    sums: &mut LossSums,
    gradient: &mut [f32],
) {
    let corrections: Vec<(f64, bool)> = match tokens.importance {
        Some(importance) => importance.factors(tokens.old_logprobs, tokens.rollout_logprobs),
        None => vec![(1.0, false); gradient.len()],
    };
    let terms = surrogate_terms(settings, tokens, &corrections);
    for (index, (gradient, term)) in gradient.iter_mut().zip(terms).enumerate() {
        let policy_logprob = f64::from(tokens.policy_logprobs[index]);
        let (correction, is_capped) = corrections[index];
        let entropy = tokens.entropies.get(index).map_or(0.0, |&h| f64::from(h));
        sums.policy_loss += factors.weighted * term.loss;
        sums.num_tokens += 1;
        sums.count(term.cut);
        sums.importance_sum += correction;
        sums.num_capped += usize::from(is_capped);
        sums.ppo_kl += f64::from(tokens.rollout_logprobs[index]) - policy_logprob;
        sums.entropy_sum += entropy;
        sums.entropy_mean += factors.plain * entropy;
        let mut derivative = factors.weighted * term.derivative;

        if settings.has_kl() {
            let scale = settings.kl_scale(factors, tokens.weights[index]);
            let value = if settings.has_full_kl() {
                f64::from(tokens.full_kls[index])
            } else {
                let reference = f64::from(tokens.reference_logprobs[index]);
                let kl = reference_kl(settings.kl_estimator, policy_logprob, reference);
                derivative += scale * kl.derivative;
                kl.value
            };
            sums.kl_loss += scale / settings.kl_coef * value;
        }
        if settings.perception_kl_coef != 0.0 {
            let kl = perception_kl(policy_logprob, f64::from(tokens.blank_logprobs[index]));
            sums.perception_kl += factors.plain * kl.value;
            derivative -= settings.perception_kl_coef * factors.plain * kl.derivative;
        }
        *gradient = narrow(derivative);
    }
}

/// The surrogate of each token, weighted and corrected, without the normaliser's factor.
fn surrogate_terms(
    settings: &LossSettings,
    tokens: &ResponseTokens<'_>,
    corrections: &[(f64, bool)],
) -> Vec<Term> {
    let old_logprobs = match tokens.importance {
        Some(_) => tokens.old_logprobs,
        None => tokens.rollout_logprobs,
    };
    let difference = |(&now, &old): (&f32, &f32)| f64::from(now) - f64::from(old);
    let log_ratios: Vec<f64> = tokens
        .policy_logprobs
        .iter()
        .zip(old_logprobs)
        .map(difference)
        .collect();
    let weights: Vec<f64> = tokens.weights.iter().map(|&w| f64::from(w)).collect();
    let corrections: Vec<f64> = corrections.iter().map(|(factor, _)| *factor).collect();
    let advantage = f64::from(tokens.advantage);
    if matches!(settings.surrogate, Surrogate::Gspo | Surrogate::Gmpo) {
        return sequence_terms(settings, &log_ratios, &weights, &corrections, advantage);
    }
    let mean = log_ratios.iter().sum::<f64>() / log_ratios.len().max(1) as f64;
    let term = |(index, &log_ratio): (usize, &f64)| {
        let policy_logprob = f64::from(tokens.policy_logprobs[index]);
        token_term(settings, policy_logprob, log_ratio, mean, advantage)
            .times(weights[index] * corrections[index])
    };
    log_ratios.iter().enumerate().map(term).collect()
}

#[cfg(test)]
mod tests;
