//! Kullback-Leibler terms of one sampled token, each with its derivative by the policy logprob.

use shared::config::KlEstimator;

use super::MAX_LOG_RATIO;
use crate::numbers::narrow;

/// k3 is clamped to this.
const MAX_K3: f64 = 10.0;

/// A value and its derivative by the policy logprob.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Kl {
    pub(super) value: f64,
    pub(super) derivative: f64,
}

/// An estimate of KL(policy, reference) from one sampled token. `full` is no estimate from a token: 0.
pub(super) fn reference_kl(
    estimator: KlEstimator,
    policy_logprob: f64,
    reference_logprob: f64,
) -> Kl {
    let difference = policy_logprob - reference_logprob;
    match estimator {
        KlEstimator::Off | KlEstimator::Full => Kl::default(),
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

/// The sampled token's estimate alone, in nats; `full` is estimated by k3.
#[must_use]
pub fn sampled_kl(estimator: KlEstimator, policy_logprob: f32, reference_logprob: f32) -> f64 {
    let estimator = match estimator {
        KlEstimator::Full => KlEstimator::K3,
        sampled => sampled,
    };
    reference_kl(
        estimator,
        f64::from(policy_logprob),
        f64::from(reference_logprob),
    )
    .value
}

/// PAPO's estimate of KL(policy, policy without the image) from one sampled token (2507.06448):
/// `exp(x) - x - 1` with x = logprob with the image - logprob without, the latter a constant; both clamps of k3.
pub(super) fn perception_kl(policy_logprob: f64, blank_logprob: f64) -> Kl {
    let k3 = reference_kl(KlEstimator::K3, blank_logprob, policy_logprob);
    Kl {
        value: k3.value,
        derivative: -k3.derivative,
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
        fn derivatives_match_finite_differences(difference in -1.5_f64..1.5, estimator in estimators()) {
            let step = 1e-5;
            // Not at a kink, where there is no derivative.
            prop_assume!(difference.abs() > 2.0 * step);
            let numeric = |of: &dyn Fn(f64) -> Kl| (of(difference + step).value - of(difference - step).value) / (2.0 * step);
            let reference = |x: f64| reference_kl(estimator, x, 0.0);
            prop_assert!((numeric(&reference) - reference(difference).derivative).abs() < 1e-6);
            let perception = |x: f64| perception_kl(x, 0.0);
            prop_assert!((perception(difference).value - (difference.exp() - difference - 1.0)).abs() < 1e-12);
            prop_assert!((numeric(&perception) - perception(difference).derivative).abs() < 1e-6);
        }
    }

    #[test]
    fn k3_is_clamped() {
        assert_eq!(k3(5.0), 10.0);
        assert_eq!(perception_kl(30.0, 0.0).derivative, 0.0);
    }
}
