//! KL to the reference over a rollout batch: how large it is, its penalty in the reward, its adaptive coefficient.

use shared::config::KlEstimator;

use crate::batch::Batch;
use crate::loss::sampled_kl;
use crate::numbers::narrow;

/// Largest relative error that the controller acts on.
const MAX_ERROR: f64 = 0.2;
/// A coefficient changes by no more than this factor at a time.
const MAX_FACTOR: f64 = 2.0;

/// Sum over each response's tokens of the estimate of KL(rollout policy, reference), [responses]; nats.
#[must_use]
pub fn response_kls(batch: &Batch, reference_logprobs: &[f32], estimator: KlEstimator) -> Vec<f64> {
    let of_response = |tokens: std::ops::Range<usize>| -> f64 {
        batch.rollout_logprobs[tokens.clone()]
            .iter()
            .zip(&reference_logprobs[tokens])
            .map(|(&rollout, &reference)| sampled_kl(estimator, rollout, reference))
            .sum()
    };
    batch
        .responses
        .iter()
        .map(|response| of_response(response.tokens.clone()))
        .collect()
}

/// Mean over the responses of the mean over their tokens; 0 without any.
#[must_use]
pub fn mean_kl(batch: &Batch, response_kls: &[f64]) -> f64 {
    let means = batch
        .responses
        .iter()
        .zip(response_kls)
        .map(|(response, kl)| kl / response.tokens.len().max(1) as f64);
    means.sum::<f64>() / response_kls.len().max(1) as f64
}

/// R_i - coefficient x KL_i: rewards with the penalty, which stands for a KL term in the loss.
#[must_use]
pub fn penalised(rewards: &[f32], response_kls: &[f64], coefficient: f64) -> Vec<f32> {
    rewards
        .iter()
        .zip(response_kls)
        .map(|(&reward, kl)| narrow(f64::from(reward) - coefficient * kl))
        .collect()
}

/// The coefficient of the KL term, fixed or adaptive (Ziegler et al., 1909.08593).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlController {
    coefficient: f64,
    /// Where the mean KL per token is wanted, and over how many responses; `None` is a fixed coefficient.
    goal: Option<(f64, usize)>,
}

impl KlController {
    /// A fixed coefficient, or an adaptive one that starts there. The state is the coefficient alone.
    #[must_use]
    pub fn new(coefficient: f64, goal: Option<(f64, usize)>) -> Self {
        // An adaptive one is kept as an f32 holds it, so that it comes back from JSON as it was.
        let coefficient = match goal {
            Some(_) => f64::from(narrow(coefficient)),
            None => coefficient,
        };
        Self { coefficient, goal }
    }

    /// The coefficient now.
    #[must_use]
    pub fn coefficient(&self) -> f64 {
        self.coefficient
    }

    /// Whether it changes, and so is part of a checkpoint.
    #[must_use]
    pub fn is_adaptive(&self) -> bool {
        self.goal.is_some()
    }

    /// After a batch of `num_responses` with that mean KL per token:
    /// `coefficient *= 1 + clip(kl / target - 1, -0.2, 0.2) * num_responses / horizon`, the factor between 0.5 and 2.
    /// A KL that is not finite changes nothing.
    pub fn update(&mut self, kl: f64, num_responses: usize) {
        let Some((target, horizon)) = self.goal.filter(|_| kl.is_finite()) else {
            return;
        };
        let error = (kl / target - 1.0).clamp(-MAX_ERROR, MAX_ERROR);
        let factor = 1.0 + error * num_responses as f64 / horizon as f64;
        let factor = factor.clamp(MAX_FACTOR.recip(), MAX_FACTOR);
        self.coefficient = f64::from(narrow(self.coefficient * factor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::{group, response};

    #[test]
    fn penalties_are_sums_and_the_measure_a_mean() {
        let batch = Batch::new(vec![group(0, vec![response(2), response(1)])]);
        let kls = response_kls(&batch, &[-1.5, -2.0, -1.0], KlEstimator::K1);
        assert_eq!(kls, [1.5, 0.0]);
        assert_eq!(mean_kl(&batch, &kls), 0.375);
        assert_eq!(penalised(&[1.0, 1.0], &kls, 0.5), [0.25, 1.0]);
        // The sum over the vocabulary is not in a record: k3 stands for it.
        let full = response_kls(&batch, &[-1.5, -2.0, -1.0], KlEstimator::Full);
        assert_eq!(
            full,
            response_kls(&batch, &[-1.5, -2.0, -1.0], KlEstimator::K3)
        );
    }

    #[test]
    fn the_coefficient_follows_its_goal() {
        let mut fixed = KlController::new(0.1, None);
        fixed.update(100.0, 1000);
        assert_eq!(fixed.coefficient(), 0.1);

        let mut adaptive = KlController::new(0.5, Some((0.1, 1000)));
        adaptive.update(0.11, 100); // + 10 % x 0.1
        assert!((adaptive.coefficient() - 0.505).abs() < 1e-7);
        adaptive.update(9.0, 100); // at most + 20 % x 0.1
        assert!((adaptive.coefficient() - 0.505 * 1.02).abs() < 1e-7);
        adaptive.update(0.0, 1_000_000);
        assert!((adaptive.coefficient() - 0.505 * 1.02 / 2.0).abs() < 1e-7);
        let before = adaptive;
        adaptive.update(f64::NAN, 100);
        assert_eq!(adaptive, before);
        // What is written as JSON comes back as the same controller.
        let text = serde_json::to_string(&before.coefficient()).unwrap();
        let read: f64 = serde_json::from_str(&text).unwrap();
        assert_eq!(KlController::new(read, Some((0.1, 1000))), before);
    }
}
