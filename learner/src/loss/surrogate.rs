//! Surrogates of a single token. r = exp(log ratio), A the advantage; the loss is minus what is maximised.

use shared::config::Surrogate;

use super::{LossSettings, MAX_LOG_RATIO};

/// Where a token was cut by a clip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cut {
    #[default]
    None,
    High,
    Low,
    Dual,
}

/// A loss, its derivative by the policy logprob, and whether a clip had a part in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Term {
    pub(super) loss: f64,
    pub(super) derivative: f64,
    pub(super) cut: Cut,
}

impl Term {
    pub(super) fn times(self, factor: f64) -> Self {
        Self {
            loss: factor * self.loss,
            derivative: factor * self.derivative,
            cut: self.cut,
        }
    }
}

/// exp of a clamped log-ratio, and its derivative: 0 where it is clamped.
pub(super) fn ratio(log_ratio: f64) -> (f64, f64) {
    let ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp();
    let is_clamped = log_ratio.abs() > MAX_LOG_RATIO;
    (ratio, if is_clamped { 0.0 } else { ratio })
}

/// The unweighted term of one token. `sequence_log_ratio` is the mean of the response's log-ratios (gspo-token).
pub(super) fn token_term(
    settings: &LossSettings,
    policy_logprob: f64,
    log_ratio: f64,
    sequence_log_ratio: f64,
    advantage: f64,
) -> Term {
    match settings.surrogate {
        Surrogate::Cispo => cispo(settings, policy_logprob, log_ratio, advantage),
        Surrogate::Sapo => sapo(settings, log_ratio, advantage),
        // s of the response held fixed, times pi / pi held fixed: the value is s, and so is the derivative by the logprob.
        Surrogate::GspoToken => clipped(settings, sequence_log_ratio, advantage),
        Surrogate::Clip | Surrogate::Gspo | Surrogate::Gmpo => {
            clipped(settings, log_ratio, advantage)
        }
    }
}

/// `-min(r A, clip(r) A)` (equations 2, 4 and 12); where A < 0 at most `-dual_clip A`.
pub(super) fn clipped(settings: &LossSettings, log_ratio: f64, advantage: f64) -> Term {
    let (ratio, slope) = ratio(log_ratio);
    let clipped_ratio = ratio.clamp(1.0 - settings.clip_low, 1.0 + settings.clip_high);
    if let Some(limit) = settings.dual_clip
        && advantage < 0.0
        && ratio.max(clipped_ratio) > limit
    {
        return Term {
            loss: -limit * advantage,
            derivative: 0.0,
            cut: Cut::Dual,
        };
    }
    if clipped_ratio * advantage < ratio * advantage {
        let cut = if ratio > clipped_ratio {
            Cut::High
        } else {
            Cut::Low
        };
        return Term {
            loss: -clipped_ratio * advantage,
            derivative: 0.0,
            cut,
        };
    }
    Term {
        loss: -ratio * advantage,
        derivative: -slope * advantage,
        cut: Cut::None,
    }
}

/// `-sg(clip(r)) A log pi`: the ratio is a weight without a gradient, and a clipped token keeps its own.
fn cispo(settings: &LossSettings, policy_logprob: f64, log_ratio: f64, advantage: f64) -> Term {
    let (ratio, _) = ratio(log_ratio);
    let weight = ratio.clamp(1.0 - settings.clip_low, 1.0 + settings.clip_high);
    let cut = match ratio - weight {
        above if above > 0.0 => Cut::High,
        below if below < 0.0 => Cut::Low,
        _ => Cut::None,
    };
    Term {
        loss: -weight * advantage * policy_logprob,
        derivative: -weight * advantage,
        cut,
    }
}

/// `-A 4 / tau sigmoid(tau (r - 1))`: the gradient is that of `-A r` times `4 p (1 - p)`, p the sigmoid, which is 1 at r = 1.
fn sapo(settings: &LossSettings, log_ratio: f64, advantage: f64) -> Term {
    let (ratio, slope) = ratio(log_ratio);
    let tau = if advantage > 0.0 {
        settings.sapo_tau_positive
    } else {
        settings.sapo_tau_negative
    };
    let gate = 1.0 / (1.0 + (-tau * (ratio - 1.0)).exp());
    Term {
        loss: -advantage * 4.0 / tau * gate,
        derivative: -advantage * 4.0 * gate * (1.0 - gate) * slope,
        cut: Cut::None,
    }
}
