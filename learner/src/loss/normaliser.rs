//! What the terms of a mini-batch are divided by. Fixed for all of it, so that micro-batches of any size give the same.

use std::ops::Range;

use shared::config::{Aggregation, TorNormaliser};

use super::LossSettings;

/// What the terms of each response are multiplied by: the reciprocals of every normaliser, [responses].
#[derive(Clone, Debug)]
pub struct Normaliser {
    /// Factor of the surrogate's terms, and of the KL terms where they are weighted.
    pub weighted: Vec<f64>,
    /// Factor of the terms without token weights: KL, entropy, perception.
    pub plain: Vec<f64>,
}

/// One response's factors.
#[derive(Clone, Copy, Debug)]
pub struct Factors {
    /// Of its entries in [`Normaliser::weighted`].
    pub weighted: f64,
    /// And in [`Normaliser::plain`].
    pub plain: f64,
}

impl Normaliser {
    /// The factors of one mini-batch: `weights` are the token weights, `responses` the mini-batch's spans in them.
    ///
    /// Token-mean divides by the sum over the mini-batch, sequence-mean by each response's own sum and by the number of
    /// responses, constant by the number of responses times a length; a response (or batch) whose sum is 0 contributes 0
    /// and still counts.
    #[must_use]
    pub fn new(settings: &LossSettings, weights: &[f32], responses: &[Range<usize>]) -> Self {
        Self {
            weighted: factors(settings, settings.normaliser, weights, responses),
            plain: factors(settings, TorNormaliser::ResponseTokens, weights, responses),
        }
    }

    /// The factors of the mini-batch's response of that index.
    #[must_use]
    pub fn factors(&self, index: usize) -> Factors {
        Factors {
            weighted: self.weighted[index],
            plain: self.plain[index],
        }
    }
}

fn factors(
    settings: &LossSettings,
    normaliser: TorNormaliser,
    weights: &[f32],
    responses: &[Range<usize>],
) -> Vec<f64> {
    let count = responses.len() as f64;
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
    match settings.aggregation {
        Aggregation::TokenMean => {
            let total: f64 = sums.sum();
            vec![reciprocal(total); responses.len()]
        }
        Aggregation::SequenceMean => sums.map(|sum| reciprocal(sum * count)).collect(),
        Aggregation::Constant => {
            let length = settings.aggregation_length as f64;
            vec![reciprocal(length * count); responses.len()]
        }
    }
}

fn reciprocal(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value.recip() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_of_zero_weights_counts_in_the_mean_over_responses() {
        let weights = [1.0, 0.5, 0.0, 0.0, 0.0];
        let spans = [0..3, 3..5];
        let settings = LossSettings {
            aggregation: Aggregation::SequenceMean,
            normaliser: TorNormaliser::Weights,
            ..LossSettings::default()
        };
        let normaliser = Normaliser::new(&settings, &weights, &spans);
        assert_eq!(normaliser.weighted, [1.0 / 3.0, 0.0]);
        assert_eq!(normaliser.plain, [1.0 / 6.0, 0.25]);
        let settings = LossSettings {
            normaliser: TorNormaliser::Selected,
            aggregation: Aggregation::TokenMean,
            ..settings
        };
        let normaliser = Normaliser::new(&settings, &weights, &spans);
        assert_eq!(normaliser.weighted, [0.5, 0.5]);
        let settings = LossSettings {
            aggregation: Aggregation::Constant,
            aggregation_length: 8,
            ..settings
        };
        let normaliser = Normaliser::new(&settings, &weights, &spans);
        assert_eq!(normaliser.weighted, [1.0 / 16.0; 2]);
    }
}
