//! Group advantages: how much better a response did than the others of its group (equation 3).

use std::ops::Range;

use crate::numbers::narrow;

/// Added to the standard deviation, so that a group of equal rewards divides by something.
const STD_EPSILON: f64 = 1e-6;

/// One advantage per response: `A_i = (R_i - mean(R)) / (std(R) + 1e-6)` over the response's group (equation 3).
///
/// `rewards` [responses] is flat over the batch and `groups` gives each group's span in it. The standard deviation is
/// the sample one (N - 1). With `divide_by_std` false only the mean is taken off. A group of one, or of equal rewards,
/// has advantages of exactly zero.
#[must_use]
pub fn group_advantages(rewards: &[f32], groups: &[Range<usize>], divide_by_std: bool) -> Vec<f32> {
    let mut advantages = vec![0.0; rewards.len()];
    for group in groups {
        let Some(rewards) = rewards.get(group.clone()) else {
            continue;
        };
        for (advantage, value) in advantages[group.clone()]
            .iter_mut()
            .zip(of_group(rewards, divide_by_std))
        {
            *advantage = value;
        }
    }
    advantages
}

fn of_group(rewards: &[f32], divide_by_std: bool) -> Vec<f32> {
    let all_equal = rewards.windows(2).all(|pair| pair[0] == pair[1]);
    if all_equal {
        return vec![0.0; rewards.len()];
    }
    let count = rewards.len() as f64;
    let mean = rewards.iter().map(|&r| f64::from(r)).sum::<f64>() / count;
    let variance = rewards
        .iter()
        .map(|&r| (f64::from(r) - mean).powi(2))
        .sum::<f64>()
        / (count - 1.0);
    let scale = if divide_by_std {
        variance.sqrt() + STD_EPSILON
    } else {
        1.0
    };
    rewards
        .iter()
        .map(|&reward| narrow((f64::from(reward) - mean) / scale))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_formula_by_hand() {
        // torch: r = tensor([1., 0., 0., 1., 0.]); (r - r.mean()) / (r.std() + 1e-6)
        let advantages = group_advantages(&[9.0, 1.0, 0.0, 0.0, 1.0, 0.0], &[0..1, 1..6], true);
        let expected = [
            0.0, 1.0954426, -0.7302951, -0.7302951, 1.0954426, -0.7302951,
        ];
        for (advantage, expected) in advantages.iter().zip(expected) {
            assert!((advantage - expected).abs() < 1e-6, "{advantages:?}");
        }
    }

    #[test]
    fn equal_rewards_give_exact_zeros() {
        let groups = [0..3, 3..7];
        assert_eq!(group_advantages(&[0.1; 7], &groups, true), vec![0.0; 7]);
    }

    #[test]
    fn without_the_deviation_only_the_mean_goes() {
        let groups = [0..2, 2..2];
        assert_eq!(
            group_advantages(&[3.0, 1.0], &groups, false),
            vec![1.0, -1.0]
        );
    }
}
