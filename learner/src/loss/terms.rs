//! The two terms of one token: clipped surrogate and KL estimate, each with its derivative.

use shared::config::KlEstimator;

use super::LossSettings;
use crate::numbers::narrow;

/// Log-ratios are clamped to this before they are exponentiated.
pub(super) const MAX_LOG_RATIO: f64 = 20.0;
/// k3 is clamped to this.
const MAX_K3: f64 = 10.0;

/// Where a token's surrogate was cut, so that it gives no gradient.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    None,
    High,
    Low,
    Dual,
}

/// One token's surrogate loss, unweighted, and its derivative by the policy logprob.
pub(super) struct Surrogate {
    pub(super) loss: f64,
    pub(super) derivative: f64,
    pub(super) cut: Cut,
}

/// `-min(r A, clip(r) A)` of one token and its derivative by the policy logprob (equation 12 for r).
pub(super) fn surrogate(settings: &LossSettings, log_ratio: f64, advantage: f64) -> Surrogate {
    let ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp();
    let clipped_ratio = ratio.clamp(1.0 - settings.clip_low, 1.0 + settings.clip_high);
    if let Some(limit) = settings.dual_clip
        && advantage < 0.0
        && ratio.max(clipped_ratio) > limit
    {
        return Surrogate {
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
        return Surrogate {
            loss: -clipped_ratio * advantage,
            derivative: 0.0,
            cut,
        };
    }
    let is_clamped = log_ratio.abs() > MAX_LOG_RATIO;
    let derivative = if is_clamped { 0.0 } else { -ratio * advantage };
    Surrogate {
        loss: -ratio * advantage,
        derivative,
        cut: Cut::None,
    }
}

/// One token's KL estimate and its derivative by the policy logprob.
pub(super) struct Kl {
    pub(super) value: f64,
    pub(super) derivative: f64,
}

/// An estimate of KL(policy, reference) from one sampled token, and its derivative by the policy logprob.
pub(super) fn reference_kl(
    estimator: KlEstimator,
    policy_logprob: f64,
    reference_logprob: f64,
) -> Kl {
    let difference = policy_logprob - reference_logprob;
    match estimator {
        KlEstimator::Off => Kl {
            value: 0.0,
            derivative: 0.0,
        },
        KlEstimator::K1 => Kl {
            value: difference,
            derivative: 1.0,
        },
        KlEstimator::K2 => Kl {
            value: 0.5 * difference * difference,
            derivative: difference,
        },
        KlEstimator::Abs => {
            let sign = if difference == 0.0 {
                0.0
            } else {
                difference.signum()
            };
            Kl {
                value: difference.abs(),
                derivative: sign,
            }
        }
        KlEstimator::K3 => {
            let log_ratio = (-difference).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
            let value = log_ratio.exp() - log_ratio - 1.0;
            let is_clamped = value > MAX_K3 || difference.abs() > MAX_LOG_RATIO;
            let derivative = if is_clamped {
                0.0
            } else {
                1.0 - log_ratio.exp()
            };
            Kl {
                value: value.min(MAX_K3),
                derivative,
            }
        }
    }
}

/// k3 of a log-ratio: `exp(x) - x - 1`, with both clamps; never negative.
#[must_use]
pub fn k3(log_ratio: f32) -> f32 {
    narrow(reference_kl(KlEstimator::K3, 0.0, f64::from(log_ratio)).value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn estimators() -> impl Strategy<Value = KlEstimator> {
        prop_oneof![
            Just(KlEstimator::K1),
            Just(KlEstimator::K2),
            Just(KlEstimator::K3),
            Just(KlEstimator::Abs),
            Just(KlEstimator::Off)
        ]
    }

    proptest! {
        #[test]
        fn derivatives_match_finite_differences(
            log_ratio in -1.5_f64..1.5,
            advantage in -2.0_f64..2.0,
            to_reference in -1.5_f64..1.5,
            kl_estimator in estimators(),
            dual in any::<bool>(),
        ) {
            let settings = LossSettings { kl_estimator, dual_clip: dual.then_some(3.0), ..LossSettings::dapo() };
            let step = 1e-5;
            // Not at a kink, where there is no derivative.
            let kinks = [0.8_f64.ln(), 1.28_f64.ln(), 3.0_f64.ln()];
            prop_assume!(kinks.iter().all(|kink| (log_ratio - kink).abs() > 2.0 * step) && to_reference.abs() > 2.0 * step);
            let loss = |x: f64| surrogate(&settings, x, advantage).loss;
            let numeric = (loss(log_ratio + step) - loss(log_ratio - step)) / (2.0 * step);
            prop_assert!((numeric - surrogate(&settings, log_ratio, advantage).derivative).abs() < 1e-6);
            let kl = |x: f64| reference_kl(kl_estimator, x, 0.0).value;
            let numeric = (kl(to_reference + step) - kl(to_reference - step)) / (2.0 * step);
            prop_assert!((numeric - reference_kl(kl_estimator, to_reference, 0.0).derivative).abs() < 1e-6);
        }
    }
}
