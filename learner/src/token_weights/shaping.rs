//! VPPO's advantage shaping: responses that depend more on the image count more (2510.09285, eq. 5).

use std::ops::Range;

use crate::numbers::narrow;

/// The range of the factors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shaping {
    /// Factor of the response with the lowest mean sensitivity.
    pub min: f64,
    /// Factor of the one with the highest; `None` is the one that makes the mean factor of the batch 1.
    pub max: Option<f64>,
}

impl Shaping {
    /// What each response's advantage is multiplied by, [responses]:
    ///
    /// ```text
    /// s_i = mean sensitivity of the response's tokens
    /// n_i = (s_i - min s) / (max s - min s), over the rollout batch
    /// a_i = b_min + (b_max - b_min) n_i
    /// ```
    ///
    /// Without a given b_max it is b_min + (1 - b_min) / mean n. Where all s are equal nothing is shaped. An empty
    /// response is at the bottom.
    #[must_use]
    pub fn factors(&self, sensitivities: &[f32], spans: &[Range<usize>]) -> Vec<f32> {
        let means: Vec<f64> = spans
            .iter()
            .map(|span| mean(&sensitivities[span.clone()]))
            .collect();
        let low = means.iter().copied().fold(f64::INFINITY, f64::min);
        let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if means.is_empty() || high <= low {
            return vec![1.0; means.len()];
        }
        let places: Vec<f64> = means.iter().map(|s| (s - low) / (high - low)).collect();
        let mean_place = places.iter().sum::<f64>() / places.len() as f64;
        let range = match self.max {
            Some(max) => max - self.min,
            None => (1.0 - self.min) / mean_place,
        };
        places
            .iter()
            .map(|place| narrow(self.min + range * place))
            .collect()
    }
}

fn mean(values: &[f32]) -> f64 {
    let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
    sum / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_by_hand() {
        // Means 1, 3, 2: places 0, 1, 0.5.
        let sensitivities = [1.0, 1.0, 3.0, 1.0, 3.0];
        let spans = [0..2, 2..3, 3..5];
        let given = Shaping {
            min: 0.8,
            max: Some(1.4),
        };
        for (factor, expected) in given
            .factors(&sensitivities, &spans)
            .iter()
            .zip([0.8, 1.4, 1.1])
        {
            assert!((factor - expected).abs() < 1e-6);
        }
        let open = Shaping {
            min: 0.9,
            max: None,
        };
        let factors = open.factors(&sensitivities, &spans);
        assert!((factors.iter().sum::<f32>() - 3.0).abs() < 1e-6 && factors[0] == 0.9);
        assert_eq!(open.factors(&[2.0; 5], &spans), [1.0; 3]);
    }
}
