//! The policy loss: clipped surrogate (equations 2 and 4), weighted per token (10 and 11), and the KL to the reference.
//!
//! It is plain arithmetic on per-token numbers, outside of the network: it gives the loss and its derivative by each
//! policy logprob, and the network carries that derivative on. What divides each term is fixed for a whole mini-batch
//! by [`Normaliser`], so the result does not depend on how the mini-batch is cut into micro-batches.

use std::ops::Range;

use shared::config::{Aggregation, KlEstimator, TorNormaliser};

use crate::numbers::narrow;
use terms::{Cut, reference_kl, surrogate};

mod importance;
mod terms;

pub use importance::{Importance, Scope};
pub use terms::k3;

/// The shape of the loss.
#[derive(Clone, Copy, Debug)]
pub struct LossSettings {
    /// eps_low: the importance ratio is clipped below at `1 - clip_low`.
    pub clip_low: f64,
    /// eps_high: the importance ratio is clipped above at `1 + clip_high`.
    pub clip_high: f64,
    /// Where the advantage is negative, the surrogate loss is at most `-dual_clip * advantage`.
    pub dual_clip: Option<f64>,
    /// Factor of the KL term; 0 is no such term.
    pub kl_coef: f64,
    /// How KL(policy, reference) is estimated from one token.
    pub kl_estimator: KlEstimator,
    /// Whether the KL term has the token weights and their normaliser too.
    pub kl_weighted: bool,
    /// Mean over all tokens (4) or over responses of the mean over their tokens (2).
    pub aggregation: Aggregation,
    /// What the weighted sum of a mean is divided by.
    pub normaliser: TorNormaliser,
}

impl LossSettings {
    /// Whether there is a KL term, and so a need for reference logprobs.
    #[must_use]
    pub fn has_kl(&self) -> bool {
        self.kl_coef != 0.0 && self.kl_estimator != KlEstimator::Off
    }
}

/// What the terms of each response are multiplied by: the reciprocals of every normaliser, [responses].
#[derive(Clone, Debug)]
pub struct Normaliser {
    /// Factor of the surrogate's terms.
    pub policy: Vec<f64>,
    /// Factor of the KL terms, without the coefficient.
    pub kl: Vec<f64>,
}

impl Normaliser {
    /// The factors of one mini-batch: `weights` are the token weights, `responses` the mini-batch's spans in them.
    ///
    /// Token-mean divides by the sum over the mini-batch, sequence-mean by each response's own sum and by the number of
    /// responses; a response (or batch) whose sum is 0 contributes 0 and still counts.
    #[must_use]
    pub fn new(settings: &LossSettings, weights: &[f32], responses: &[Range<usize>]) -> Self {
        let policy = factors(
            settings.aggregation,
            settings.normaliser,
            weights,
            responses,
        );
        let kl = match settings.kl_weighted {
            true => policy.clone(),
            false => factors(
                settings.aggregation,
                TorNormaliser::ResponseTokens,
                weights,
                responses,
            ),
        };
        Self { policy, kl }
    }
}

fn factors(
    aggregation: Aggregation,
    normaliser: TorNormaliser,
    weights: &[f32],
    responses: &[Range<usize>],
) -> Vec<f64> {
    let sums = responses.iter().map(|response| match normaliser {
        TorNormaliser::ResponseTokens => response.len() as f64,
        TorNormaliser::Weights => weights[response.clone()]
            .iter()
            .map(|&w| f64::from(w))
            .sum(),
        TorNormaliser::Selected => weights[response.clone()]
            .iter()
            .filter(|w| **w != 0.0)
            .count() as f64,
    });
    match aggregation {
        Aggregation::TokenMean => {
            let total: f64 = sums.sum();
            vec![reciprocal(total); responses.len()]
        }
        Aggregation::SequenceMean => {
            let count = responses.len() as f64;
            sums.map(|sum| reciprocal(sum * count)).collect()
        }
    }
}

fn reciprocal(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value.recip() }
}

/// One response's tokens, each array [L].
#[derive(Clone, Copy, Debug)]
pub struct ResponseTokens<'a> {
    /// log pi_theta, now.
    pub policy_logprobs: &'a [f32],
    /// The learner's own before the step's first update; read only with an importance correction.
    pub old_logprobs: &'a [f32],
    /// The rollout engine's, at sampling; without an importance correction it is pi_old of equation 12.
    pub rollout_logprobs: &'a [f32],
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
    /// Tokens seen.
    pub num_tokens: usize,
    /// Tokens whose ratio was cut at `1 + clip_high`, so that they give no gradient.
    pub num_clipped_high: usize,
    /// Tokens whose ratio was cut at `1 - clip_low`, so that they give no gradient.
    pub num_clipped_low: usize,
    /// Tokens cut by the dual clip.
    pub num_dual_clipped: usize,
    /// Sum of the importance correction's factors; without a correction each is 1.
    pub importance_sum: f64,
    /// Tokens whose factor was cut at the cap.
    pub num_capped: usize,
    /// Sum of `rollout_logprob - policy_logprob`, the k1 estimate of KL(rollout, policy).
    pub ppo_kl: f64,
}

impl LossSums {
    /// Adds what another micro-batch gave.
    pub fn add(&mut self, other: &Self) {
        self.policy_loss += other.policy_loss;
        self.kl_loss += other.kl_loss;
        self.num_tokens += other.num_tokens;
        self.num_clipped_high += other.num_clipped_high;
        self.num_clipped_low += other.num_clipped_low;
        self.num_dual_clipped += other.num_dual_clipped;
        self.importance_sum += other.importance_sum;
        self.num_capped += other.num_capped;
        self.ppo_kl += other.ppo_kl;
    }

    /// The loss: surrogate plus `kl_coef` times KL.
    #[must_use]
    pub fn loss(&self, settings: &LossSettings) -> f64 {
        self.policy_loss + settings.kl_coef * self.kl_loss
    }
}

/// Adds one response's part to `sums` and writes d loss / d policy_logprob into `gradient` [L].
///
/// `policy_factor` and `kl_factor` are the response's entries of the mini-batch's [`Normaliser`].
pub fn response_loss(
    settings: &LossSettings,
    tokens: &ResponseTokens<'_>,
    (policy_factor, kl_factor): (f64, f64),
    sums: &mut LossSums,
    gradient: &mut [f32],
) {
    let advantage = f64::from(tokens.advantage);
    let corrections = tokens
        .importance
        .map(|importance| importance.factors(tokens.old_logprobs, tokens.rollout_logprobs));
    for (index, gradient) in gradient.iter_mut().enumerate() {
        let policy_logprob = f64::from(tokens.policy_logprobs[index]);
        let rollout_logprob = f64::from(tokens.rollout_logprobs[index]);
        let weight = f64::from(tokens.weights[index]);
        let (old_logprob, (correction, is_capped)) = match &corrections {
            Some(corrections) => (f64::from(tokens.old_logprobs[index]), corrections[index]),
            None => (rollout_logprob, (1.0, false)),
        };

        let surrogate = surrogate(settings, policy_logprob - old_logprob, advantage);
        let scale = policy_factor * weight * correction;
        sums.policy_loss += scale * surrogate.loss;
        sums.num_tokens += 1;
        sums.num_clipped_high += usize::from(surrogate.cut == Cut::High);
        sums.num_clipped_low += usize::from(surrogate.cut == Cut::Low);
        sums.num_dual_clipped += usize::from(surrogate.cut == Cut::Dual);
        sums.importance_sum += correction;
        sums.num_capped += usize::from(is_capped);
        sums.ppo_kl += rollout_logprob - policy_logprob;
        let mut derivative = scale * surrogate.derivative;

        if settings.has_kl() {
            let kl = reference_kl(
                settings.kl_estimator,
                policy_logprob,
                f64::from(tokens.reference_logprobs[index]),
            );
            let kl_weight = if settings.kl_weighted { weight } else { 1.0 };
            sums.kl_loss += kl_factor * kl_weight * kl.value;
            derivative += settings.kl_coef * kl_factor * kl_weight * kl.derivative;
        }
        *gradient = narrow(derivative);
    }
}

/// Whether a token can have a gradient: where not, the network need not be differentiated at it.
#[must_use]
pub fn needs_gradient(settings: &LossSettings, weight: f32, advantage: f32) -> bool {
    (weight != 0.0 && advantage != 0.0)
        || (settings.has_kl() && (!settings.kl_weighted || weight != 0.0))
}

#[cfg(test)]
impl LossSettings {
    /// DAPO's, for unit tests.
    fn dapo() -> Self {
        Self {
            clip_low: 0.2,
            clip_high: 0.28,
            dual_clip: None,
            kl_coef: 0.0,
            kl_estimator: KlEstimator::K3,
            kl_weighted: false,
            aggregation: Aggregation::TokenMean,
            normaliser: TorNormaliser::ResponseTokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss and gradient of one token at a log-ratio to the rollout's and to the reference's logprob.
    fn one_token(
        settings: &LossSettings,
        log_ratio: f32,
        advantage: f32,
        to_reference: f32,
    ) -> (f64, f32, LossSums) {
        let tokens = ResponseTokens {
            policy_logprobs: &[log_ratio - 3.0],
            rollout_logprobs: &[-3.0],
            reference_logprobs: &[log_ratio - 3.0 - to_reference],
            weights: &[0.5],
            advantage,
            old_logprobs: &[],
            importance: None,
        };
        let (mut sums, mut gradient) = (LossSums::default(), [f32::NAN]);
        response_loss(settings, &tokens, (1.0, 1.0), &mut sums, &mut gradient);
        (sums.loss(settings), gradient[0], sums)
    }

    #[test]
    fn clips_only_where_the_objective_would_grow() {
        let settings = LossSettings::dapo();
        let cut = |log_ratio, advantage| {
            let (loss, gradient, sums) = one_token(&settings, log_ratio, advantage, 0.0);
            (
                loss,
                gradient != 0.0,
                sums.num_clipped_high,
                sums.num_clipped_low,
            )
        };
        assert_eq!(cut(1.0, 2.0), (-0.5 * 1.28 * 2.0, false, 1, 0));
        assert_eq!(cut(-1.0, -2.0), (0.5 * 0.8 * 2.0, false, 0, 1));
        let (loss, has_gradient, high, low) = cut(1.0, -2.0);
        assert!((loss - 1.0_f64.exp()).abs() < 1e-12 && has_gradient && high == 0 && low == 0);
        assert!(cut(-1.0, 2.0).1);
        // On policy: ratio 1, nothing cut, gradient -w A.
        assert_eq!(one_token(&settings, 0.0, 2.0, 0.0).1, -1.0);
    }

    #[test]
    fn dual_clip_bounds_the_loss_of_bad_tokens() {
        let settings = LossSettings {
            dual_clip: Some(3.0),
            ..LossSettings::dapo()
        };
        let (loss, gradient, sums) = one_token(&settings, 2.0, -1.0, 0.0);
        assert_eq!((loss, gradient, sums.num_dual_clipped), (1.5, 0.0, 1));
        assert_eq!(one_token(&settings, 1.0, -1.0, 0.0).2.num_dual_clipped, 0);
    }

    #[test]
    fn far_off_ratios_stay_finite_and_give_no_gradient() {
        let settings = LossSettings {
            kl_coef: 0.01,
            ..LossSettings::dapo()
        };
        for log_ratio in [-500.0, 500.0] {
            for advantage in [-1.0, 1.0] {
                let (loss, gradient, _) = one_token(&settings, log_ratio, advantage, log_ratio);
                assert!(
                    loss.is_finite() && gradient == 0.0,
                    "{log_ratio} {advantage}: {loss} {gradient}"
                );
            }
        }
        assert_eq!(k3(5.0), 10.0);
    }

    #[test]
    fn a_response_of_zero_weights_counts_in_the_mean_over_responses() {
        let weights = [1.0, 0.5, 0.0, 0.0, 0.0];
        let settings = LossSettings {
            aggregation: Aggregation::SequenceMean,
            normaliser: TorNormaliser::Weights,
            ..LossSettings::dapo()
        };
        let normaliser = Normaliser::new(&settings, &weights, &[0..3, 3..5]);
        assert_eq!(normaliser.policy, [1.0 / 3.0, 0.0]);
        assert_eq!(normaliser.kl, [1.0 / 6.0, 0.25]);
        let settings = LossSettings {
            normaliser: TorNormaliser::Selected,
            aggregation: Aggregation::TokenMean,
            ..settings
        };
        assert_eq!(
            Normaliser::new(&settings, &weights, &[0..3, 3..5]).policy,
            [0.5, 0.5]
        );
    }
}
