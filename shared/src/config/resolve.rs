//! The defaults that depend on `--algo`: this file is the only place that knows them.
//!
//! | key | dapo (eq. 4) | grpo (eq. 2) |
//! |---|---|---|
//! | clip_low | 0.2 | 0.2 |
//! | clip_high | 0.28 | 0.2 |
//! | aggregation | token-mean | sequence-mean |
//! | group_filter | accuracy | off |
//! | kl_coef | 0 | 0.01 |

use serde::Serialize;

use super::{Aggregation, Algo, GroupFilter, KlEstimator, LearnerArgs};

/// The keys of [`LearnerArgs`] that may be left open, with their values.
#[derive(Serialize, Debug, Clone, Copy, PartialEq)]
pub struct Resolved {
    /// The importance ratio is kept above 1 - clip_low.
    pub clip_low: f64,
    /// And below 1 + clip_high.
    pub clip_high: f64,
    /// How token losses become one number.
    pub aggregation: Aggregation,
    /// Which groups are replaced.
    pub group_filter: GroupFilter,
    /// Weight of the KL term; 0 when the estimator is off.
    pub kl_coef: f64,
    /// Share of the reasoning set, rho of eq. 7.
    pub rho_reasoning: f64,
    /// Share of the perception set, rho of eq. 9.
    pub rho_perception: f64,
    /// Prompts per optimizer step.
    pub mini_batch_prompts: usize,
}

impl LearnerArgs {
    /// Fills what was left open.
    #[must_use]
    pub fn resolved(&self) -> Resolved {
        let (clip_high, aggregation, group_filter, kl_coef) = match self.algo {
            Algo::Dapo => (0.28, Aggregation::TokenMean, GroupFilter::Accuracy, 0.0),
            Algo::Grpo => (0.2, Aggregation::SequenceMean, GroupFilter::Off, 0.01),
        };
        Resolved {
            clip_low: self.clip_low.unwrap_or(0.2),
            clip_high: self.clip_high.unwrap_or(clip_high),
            aggregation: self.aggregation.unwrap_or(aggregation),
            group_filter: self.group_filter.unwrap_or(group_filter),
            kl_coef: if self.kl_estimator == KlEstimator::Off {
                0.0
            } else {
                self.kl_coef.unwrap_or(kl_coef)
            },
            rho_reasoning: self.rho_reasoning.unwrap_or(self.rho),
            rho_perception: self.rho_perception.unwrap_or(self.rho),
            mini_batch_prompts: self.mini_batch_prompts.unwrap_or(self.batch_prompts),
        }
    }
}
