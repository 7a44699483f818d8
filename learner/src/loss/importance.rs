//! Corrections for a rollout engine whose probabilities are not the learner's.
//!
//! Quantised or otherwise coarser engines sample from pi_rollout while the gradient is that of pi_old, the learner's own
//! policy before the step's first update. Each token's policy-gradient term is therefore multiplied by a factor without a
//! gradient of its own, q_t = pi_old(o_t) / pi_rollout(o_t):
//!
//! ```text
//! token          min(q_t, C)                                       truncated importance sampling
//! sequence       min(prod_t q_t, C)                                the same, one factor for the whole response
//! sequence-mask  1 if low <= exp(mean_t log q_t) <= high, else 0   the response is dropped
//! icepop         q_t if low <= q_t <= high, else 0                 the token is dropped
//! ```
//!
//! and the importance ratio that is clipped is pi_theta / pi_old in place of pi_theta / pi_rollout. What is dropped still
//! counts in every divisor. Sources: Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training"
//! (2025, fengyao.notion.site/off-policy-rl); IcePop: 2510.18855. Where groups may be stale, pi_old is still the policy at
//! the step's start, so that the factor also makes up for the versions between.

use super::MAX_LOG_RATIO;

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
pub enum Importance {
    /// The ratio, at most the cap C.
    Truncated {
        /// Over what.
        scope: Scope,
        /// C: a factor is at most this.
        cap: f64,
    },
    /// 1 or 0 for the whole response, by the geometric mean of its ratios.
    SequenceMask {
        /// Lowest mean that is kept.
        low: f64,
        /// Highest mean that is kept.
        high: f64,
    },
    /// Each token's ratio, or 0 outside of the band.
    IcePop {
        /// Lowest ratio that is kept.
        low: f64,
        /// Highest ratio that is kept.
        high: f64,
    },
}

impl Importance {
    /// The factor of each token of a response, and whether it was capped or dropped; [L].
    #[must_use]
    pub fn factors(&self, old_logprobs: &[f32], rollout_logprobs: &[f32]) -> Vec<(f64, bool)> {
        let log_ratios = old_logprobs
            .iter()
            .zip(rollout_logprobs)
            .map(|(&old, &rollout)| f64::from(old) - f64::from(rollout));
        let len = old_logprobs.len();
        match *self {
            Self::Truncated { scope, cap } => {
                let factor = |log_ratio: f64| {
                    let ratio = exp(log_ratio);
                    (ratio.min(cap), ratio > cap)
                };
                match scope {
                    Scope::Token => log_ratios.map(factor).collect(),
                    Scope::Sequence => vec![factor(log_ratios.sum()); len],
                }
            }
            Self::SequenceMask { low, high } => {
                let mean = exp(log_ratios.sum::<f64>() / len.max(1) as f64);
                let is_kept = (low..=high).contains(&mean);
                vec![(f64::from(u8::from(is_kept)), !is_kept); len]
            }
            Self::IcePop { low, high } => log_ratios
                .map(exp)
                .map(|ratio| match (low..=high).contains(&ratio) {
                    true => (ratio, false),
                    false => (0.0, true),
                })
                .collect(),
        }
    }
}

fn exp(log_ratio: f64) -> f64 {
    log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_capped_and_a_sequence_has_one() {
        let (old, rollout) = ([-1.0, -1.0, -1.0], [-1.0, -3.0, 99.0]);
        let cap = 2.0;
        let token = Importance::Truncated {
            scope: Scope::Token,
            cap,
        };
        let factors = token.factors(&old, &rollout);
        assert_eq!(factors[..2], [(1.0, false), (2.0, true)]);
        assert!(factors[2].0 > 0.0 && factors[2].0 < 1e-8 && !factors[2].1);
        let sequence = Importance::Truncated {
            scope: Scope::Sequence,
            cap,
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

    #[test]
    fn masks_drop_what_is_outside_of_the_band() {
        let (low, high) = (0.5, 2.0);
        let (double, half) = (2.5_f32.ln(), 0.4_f32.ln());
        let icepop = Importance::IcePop { low, high };
        let factors = icepop.factors(&[double, 0.0, half], &[0.0; 3]);
        assert_eq!(factors, [(0.0, true), (1.0, false), (0.0, true)]);
        // 2.5 x 1 x 0.4 = 1: the mean is inside though two tokens are not.
        let mask = Importance::SequenceMask { low, high };
        assert_eq!(
            mask.factors(&[double, 0.0, half], &[0.0; 3]),
            [(1.0, false); 3]
        );
        assert_eq!(mask.factors(&[double; 2], &[0.0; 2]), [(0.0, true); 2]);
        assert_eq!(mask.factors(&[half; 2], &[0.0; 2]), [(0.0, true); 2]);
    }
}
