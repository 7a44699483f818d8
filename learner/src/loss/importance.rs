//! Truncated importance sampling: the correction for a rollout engine whose probabilities are not the learner's.
//!
//! Quantised or otherwise coarser engines sample from pi_rollout while the gradient is that of pi_old, the learner's own
//! policy before the step's first update. Each token's policy-gradient term is therefore multiplied by
//!
//! ```text
//! w_t = min(pi_old(o_t) / pi_rollout(o_t), C)            per token
//! w   = min(prod_t pi_old(o_t) / pi_rollout(o_t), C)     per sequence: one factor for the whole response
//! ```
//!
//! without a gradient of its own, and the importance ratio that is clipped is pi_theta / pi_old in place of
//! pi_theta / pi_rollout. Source: Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training"
//! (2025, fengyao.notion.site/off-policy-rl). Where groups may be stale, pi_old is still the policy at the step's start, so
//! that the factor also makes up for the versions between.

use super::terms::MAX_LOG_RATIO;

/// Over what the ratio of probabilities is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each token by itself.
    Token,
    /// The product over the response.
    Sequence,
}

/// How the rollout's probabilities are corrected for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Importance {
    /// Over what.
    pub scope: Scope,
    /// C: a factor is at most this.
    pub cap: f64,
}

impl Importance {
    /// The factor of each token of a response, and whether it was capped; [L].
    #[must_use]
    pub fn factors(&self, old_logprobs: &[f32], rollout_logprobs: &[f32]) -> Vec<(f64, bool)> {
        let log_ratios = old_logprobs
            .iter()
            .zip(rollout_logprobs)
            .map(|(&old, &rollout)| f64::from(old) - f64::from(rollout));
        let factor = |log_ratio: f64| {
            let ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp();
            (ratio.min(self.cap), ratio > self.cap)
        };
        match self.scope {
            Scope::Token => log_ratios.map(factor).collect(),
            Scope::Sequence => vec![factor(log_ratios.sum()); old_logprobs.len()],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::loss::{LossSettings, LossSums, ResponseTokens, response_loss};

    /// One token: logprob now, before the step, at sampling; token weight.
    type Token = (f64, f64, f64, f64);

    /// The loss written down once more, in f64 and without shortcuts.
    fn plain_loss(tokens: &[Token], advantage: f64, importance: Importance, factor: f64) -> f64 {
        let product: f64 = tokens.iter().map(|t| (t.1 - t.2).exp()).product();
        let of_token = |&(now, old, rollout, weight): &Token| {
            let ratio = (now - old).exp();
            let surrogate = (ratio * advantage).min(ratio.clamp(0.8, 1.28) * advantage);
            let correction = match importance.scope {
                Scope::Token => (old - rollout).exp(),
                Scope::Sequence => product,
            };
            -factor * weight * correction.min(importance.cap) * surrogate
        };
        tokens.iter().map(of_token).sum()
    }

    #[expect(clippy::cast_possible_truncation, reason = "logprobs of the test")]
    fn f32s(tokens: &[Token], of: impl Fn(&Token) -> f64) -> Vec<f32> {
        tokens.iter().map(|token| of(token) as f32).collect()
    }

    proptest! {
        #[test]
        fn loss_and_gradient_are_those_of_the_plain_formula(
            differences in prop::collection::vec((-0.6_f64..0.6, -1.5_f64..1.5, 0.0_f64..1.0), 1..8),
            advantage in -2.0_f64..2.0,
            cap in 0.5_f64..3.0,
            scope in prop_oneof![Just(Scope::Token), Just(Scope::Sequence)],
        ) {
            let (importance, factor) = (Importance { scope, cap }, 0.25);
            // As the arrays of f32 hold them.
            let mut tokens: Vec<Token> = differences
                .iter()
                .map(|&(now, old, weight)| (now - 3.0, -3.0, old - 3.0, weight))
                .collect();
            for token in &mut tokens {
                for value in [&mut token.0, &mut token.1, &mut token.2, &mut token.3] {
                    *value = f64::from(f32s(&[(*value, 0.0, 0.0, 0.0)], |t| t.0)[0]);
                }
            }
            // Not at a kink, where there is no derivative.
            let kinks = [0.8_f64.ln(), 1.28_f64.ln()];
            prop_assume!(tokens.iter().all(|t| kinks.iter().all(|kink| (t.0 - t.1 - kink).abs() > 1e-4)));

            let advantage = f64::from(f32s(&[(advantage, 0.0, 0.0, 0.0)], |t| t.0)[0]);
            let settings = LossSettings::dapo();
            let (mut sums, mut gradient) = (LossSums::default(), vec![f32::NAN; tokens.len()]);
            let streams = ResponseTokens {
                policy_logprobs: &f32s(&tokens, |t| t.0),
                old_logprobs: &f32s(&tokens, |t| t.1),
                rollout_logprobs: &f32s(&tokens, |t| t.2),
                reference_logprobs: &[],
                weights: &f32s(&tokens, |t| t.3),
                advantage: f32s(&[(advantage, 0.0, 0.0, 0.0)], |t| t.0)[0],
                importance: Some(importance),
            };
            response_loss(&settings, &streams, (factor, factor), &mut sums, &mut gradient);
            let expected = plain_loss(&tokens, advantage, importance, factor);
            prop_assert!((sums.policy_loss - expected).abs() < 1e-9, "{} and {expected}", sums.policy_loss);
            let step = 1e-6;
            for (index, &gradient) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut tokens = tokens.clone();
                    tokens[index].0 += by;
                    plain_loss(&tokens, advantage, importance, factor)
                };
                let numeric = (moved(step) - moved(-step)) / (2.0 * step);
                prop_assert!((numeric - f64::from(gradient)).abs() < 1e-5, "{numeric} and {gradient}");
            }
        }
    }

    #[test]
    fn factors_are_capped_and_a_sequence_has_one() {
        let (old, rollout) = ([-1.0, -1.0, -1.0], [-1.0, -3.0, 99.0]);
        let token = Importance {
            scope: Scope::Token,
            cap: 2.0,
        };
        let factors = token.factors(&old, &rollout);
        assert_eq!(factors[..2], [(1.0, false), (2.0, true)]);
        assert!(factors[2].0 > 0.0 && factors[2].0 < 1e-8 && !factors[2].1);
        let sequence = Importance {
            scope: Scope::Sequence,
            cap: 2.0,
        };
        let half = 0.5_f32.ln();
        let factors = sequence.factors(&[half, half], &[0.0, 0.0]);
        assert_eq!(factors.len(), 2);
        assert!(
            factors
                .iter()
                .all(|factor| (factor.0 - 0.25).abs() < 1e-7 && !factor.1)
        );
    }
}
