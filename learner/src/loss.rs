//! The policy loss: clipped surrogate (equations 2 and 4), weighted per token (10 and 11), and the KL to the reference.
//!
//! It is plain arithmetic on per-token numbers, outside of the network: it gives the loss and its derivative by each
//! policy logprob, and the network carries that derivative on. What divides each term is fixed for a whole mini-batch
//! by [`Normaliser`], so the result does not depend on how the mini-batch is cut into micro-batches.

use std::ops::Range;

use shared::config::{Aggregation, KlEstimator, TorNormaliser};

use crate::numbers::narrow;

/// Log-ratios are clamped to this before they are exponentiated.
const MAX_LOG_RATIO: f64 = 20.0;
/// k3 is clamped to this.
const MAX_K3: f64 = 10.0;

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
        let policy = factors(settings.aggregation, settings.normaliser, weights, responses);
        let kl = match settings.kl_weighted {
            true => policy.clone(),
            false => factors(settings.aggregation, TorNormaliser::ResponseTokens, weights, responses),
        };
        Self { policy, kl }
    }
}

fn factors(aggregation: Aggregation, normaliser: TorNormaliser, weights: &[f32], responses: &[Range<usize>]) -> Vec<f64> {
    let sums = responses.iter().map(|response| match normaliser {
        TorNormaliser::ResponseTokens => response.len() as f64,
        TorNormaliser::Weights => weights[response.clone()].iter().map(|&w| f64::from(w)).sum(),
        TorNormaliser::Selected => weights[response.clone()].iter().filter(|w| **w != 0.0).count() as f64,
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
    /// log pi_old: the rollout engine's, at sampling.
    pub rollout_logprobs: &'a [f32],
    /// log pi_ref; empty when there is no KL term.
    pub reference_logprobs: &'a [f32],
    /// w of equations 10 and 11.
    pub weights: &'a [f32],
    /// A_i, the same for the whole response.
    pub advantage: f32,
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
    for (index, gradient) in gradient.iter_mut().enumerate() {
        let policy_logprob = f64::from(tokens.policy_logprobs[index]);
        let rollout_logprob = f64::from(tokens.rollout_logprobs[index]);
        let weight = f64::from(tokens.weights[index]);

        let surrogate = surrogate(settings, policy_logprob - rollout_logprob, advantage);
        sums.policy_loss += policy_factor * weight * surrogate.loss;
        sums.num_tokens += 1;
        sums.num_clipped_high += usize::from(surrogate.cut == Cut::High);
        sums.num_clipped_low += usize::from(surrogate.cut == Cut::Low);
        sums.num_dual_clipped += usize::from(surrogate.cut == Cut::Dual);
        sums.ppo_kl += rollout_logprob - policy_logprob;
        let mut derivative = policy_factor * weight * surrogate.derivative;

        if settings.has_kl() {
            let kl = reference_kl(settings.kl_estimator, policy_logprob, f64::from(tokens.reference_logprobs[index]));
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
    (weight != 0.0 && advantage != 0.0) || (settings.has_kl() && (!settings.kl_weighted || weight != 0.0))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    None,
    High,
    Low,
    Dual,
}

struct Surrogate {
    loss: f64,
    derivative: f64,
    cut: Cut,
}

/// `-min(r A, clip(r) A)` of one token and its derivative by the policy logprob (equation 12 for r).
fn surrogate(settings: &LossSettings, log_ratio: f64, advantage: f64) -> Surrogate {
    let ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp();
    let clipped_ratio = ratio.clamp(1.0 - settings.clip_low, 1.0 + settings.clip_high);
    if let Some(limit) = settings.dual_clip
        && advantage < 0.0
        && ratio.max(clipped_ratio) > limit
    {
        return Surrogate { loss: -limit * advantage, derivative: 0.0, cut: Cut::Dual };
    }
    if clipped_ratio * advantage < ratio * advantage {
        let cut = if ratio > clipped_ratio { Cut::High } else { Cut::Low };
        return Surrogate { loss: -clipped_ratio * advantage, derivative: 0.0, cut };
    }
    let is_clamped = log_ratio.abs() > MAX_LOG_RATIO;
    let derivative = if is_clamped { 0.0 } else { -ratio * advantage };
    Surrogate { loss: -ratio * advantage, derivative, cut: Cut::None }
}

struct Kl {
    value: f64,
    derivative: f64,
}

/// An estimate of KL(policy, reference) from one sampled token, and its derivative by the policy logprob.
fn reference_kl(estimator: KlEstimator, policy_logprob: f64, reference_logprob: f64) -> Kl {
    let difference = policy_logprob - reference_logprob;
    match estimator {
        KlEstimator::Off => Kl { value: 0.0, derivative: 0.0 },
        KlEstimator::K1 => Kl { value: difference, derivative: 1.0 },
        KlEstimator::K2 => Kl { value: 0.5 * difference * difference, derivative: difference },
        KlEstimator::Abs => {
            let sign = if difference == 0.0 { 0.0 } else { difference.signum() };
            Kl { value: difference.abs(), derivative: sign }
        }
        KlEstimator::K3 => {
            let log_ratio = (-difference).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
            let value = log_ratio.exp() - log_ratio - 1.0;
            let is_clamped = value > MAX_K3 || difference.abs() > MAX_LOG_RATIO;
            let derivative = if is_clamped { 0.0 } else { 1.0 - log_ratio.exp() };
            Kl { value: value.min(MAX_K3), derivative }
        }
    }
}

/// k3 of a log-ratio: `exp(x) - x - 1`, with both clamps; never negative.
#[must_use]
pub fn k3(log_ratio: f32) -> f32 {
    narrow(reference_kl(KlEstimator::K3, 0.0, f64::from(log_ratio)).value)
}
