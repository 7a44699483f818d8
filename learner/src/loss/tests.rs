//! The loss by hand, and against the papers' formulas written down once more (`plain.rs`).

use super::*;

mod plain;

/// Loss and gradient of one token at a log-ratio to the rollout's and to the reference's logprob.
fn one_token(
    settings: &LossSettings,
    log_ratio: f32,
    advantage: f32,
    to_reference: f32,
) -> (f64, f32, LossSums) {
    let tokens = ResponseTokens {
        policy_logprobs: &[log_ratio - 3.0],
        entropies: &[],
        full_kls: &[],
        old_logprobs: &[],
        rollout_logprobs: &[-3.0],
        blank_logprobs: &[],
        reference_logprobs: &[log_ratio - 3.0 - to_reference],
        weights: &[0.5],
        advantage,
        importance: None,
    };
    let (mut sums, mut gradient) = (LossSums::default(), [f32::NAN]);
    let factors = Factors {
        weighted: 1.0,
        plain: 1.0,
    };
    response_loss(settings, &tokens, factors, &mut sums, &mut gradient);
    (sums.loss(settings), gradient[0], sums)
}

#[test]
fn clips_only_where_the_objective_would_grow() {
    let settings = LossSettings::default();
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
}

#[test]
fn on_policy_all_surrogates_have_one_gradient() {
    for surrogate in plain::SURROGATES {
        let settings = LossSettings {
            surrogate,
            ..LossSettings::default()
        };
        let (_, gradient, sums) = one_token(&settings, 0.0, 2.0, 0.0);
        assert_eq!(gradient, -1.0, "{surrogate:?}: -w A");
        assert_eq!(sums.num_clipped_high + sums.num_clipped_low, 0);
    }
}

#[test]
fn dual_clip_bounds_the_loss_of_bad_tokens() {
    let settings = LossSettings {
        dual_clip: Some(3.0),
        ..LossSettings::default()
    };
    let (loss, gradient, sums) = one_token(&settings, 2.0, -1.0, 0.0);
    assert_eq!((loss, gradient, sums.num_dual_clipped), (1.5, 0.0, 1));
    assert_eq!(one_token(&settings, 1.0, -1.0, 0.0).2.num_dual_clipped, 0);
}

#[test]
fn cispo_keeps_the_gradient_of_clipped_tokens() {
    let settings = LossSettings {
        surrogate: Surrogate::Cispo,
        ..LossSettings::default()
    };
    let (_, gradient, sums) = one_token(&settings, 1.0, 2.0, 0.0);
    assert!((gradient + 0.5 * 1.28 * 2.0).abs() < 1e-6 && sums.num_clipped_high == 1);
    let (_, gradient, sums) = one_token(&settings, -1.0, 2.0, 0.0);
    assert!((gradient + 0.5 * 0.8 * 2.0).abs() < 1e-6 && sums.num_clipped_low == 1);
}

#[test]
fn far_off_ratios_stay_finite() {
    for surrogate in plain::SURROGATES {
        let settings = LossSettings {
            surrogate,
            kl_coef: 0.01,
            ..LossSettings::default()
        };
        for log_ratio in [-500.0, 500.0] {
            for advantage in [-1.0, 1.0] {
                let (loss, gradient, _) = one_token(&settings, log_ratio, advantage, log_ratio);
                assert!(
                    loss.is_finite() && gradient.is_finite(),
                    "{surrogate:?} {log_ratio} {advantage}: {loss} {gradient}"
                );
                assert!(surrogate == Surrogate::Cispo || gradient == 0.0);
            }
        }
    }
}
