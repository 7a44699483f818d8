//! Spearman's rank correlation.

use rayon::prelude::*;

use super::selection::ascending_bits;
use crate::numbers::low_half;

/// Spearman's rank correlation: Pearson's of the ranks, ties at their mean rank.
pub(super) fn rank_correlation(first: &[f32], second: &[f32]) -> f64 {
    let (first, second) = rayon::join(|| ranks(first), || ranks(second));
    let mean = (first.len() as f64 - 1.0) / 2.0;
    let (mut covariance, mut first_variance, mut second_variance) = (0.0, 0.0, 0.0);
    for (a, b) in first.iter().zip(&second) {
        covariance += (a - mean) * (b - mean);
        first_variance += (a - mean).powi(2);
        second_variance += (b - mean).powi(2);
    }
    let scale = (first_variance * second_variance).sqrt();
    if scale > 0.0 { covariance / scale } else { 0.0 }
}

/// The rank of each score from 0, equal scores sharing their mean rank.
fn ranks(scores: &[f32]) -> Vec<f64> {
    let mut ordered: Vec<u64> = scores
        .iter()
        .enumerate()
        .map(|(index, &score)| {
            (u64::from(ascending_bits(score)) << 32) | u64::from(low_half(index as u64))
        })
        .collect();
    ordered.par_sort_unstable();
    let mut ranks = vec![0.0; scores.len()];
    let mut start = 0;
    for tie in ordered.chunk_by(|a, b| a >> 32 == b >> 32) {
        let mean_rank = start as f64 + (tie.len() as f64 - 1.0) / 2.0;
        for key in tie {
            ranks[low_half(*key) as usize] = mean_rank;
        }
        start += tie.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_correlation_by_hand() {
        // scipy.stats.spearmanr([1, 2, 2, 3], [1, 3, 2, 4]) = 0.9486832980505138
        assert!(
            (rank_correlation(&[1.0, 2.0, 2.0, 3.0], &[1.0, 3.0, 2.0, 4.0])
                - 0.948_683_298_050_513_8)
                .abs()
                < 1e-12
        );
        assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }
}
