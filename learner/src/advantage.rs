//! Advantages: how much better a response did than others. One number per response, the same for all its tokens.
//!
//! R_i reward of response i, G responses in its group, L_i its tokens. A group is the responses of one prompt.
//!
//! | `--advantage` | A_i | source |
//! |---|---|---|
//! | `grpo` | (R_i - mean R) / (std R + 1e-6), mean and sample std (N - 1) over the group | eq. 3; 2402.03300 |
//! | `dr-grpo` | R_i - mean R | 2503.20783 |
//! | `rloo` | R_i - mean of the group's other G - 1 rewards = G / (G - 1) (R_i - mean R) | 2402.14740 |
//! | `reinforce-plus-plus` | (R_i - m) / sqrt(v + 1e-8), m and sample variance v over all response tokens of the batch: response i counts L_i times | 2501.03262 |
//! | `reinforce-plus-plus-baseline` | the same of R_i - mean R | 2501.03262 |
//! | `pass-at-k` | see [`pass_at_k`] | 2508.10751 |
//! | `remax` | R_i - reward of a greedy response to the same prompt, which is not trained on | 2310.10505 |

use std::ops::Range;

use shared::config::Advantage;

use crate::numbers::narrow;

/// Added to a standard deviation, so that a group of equal rewards divides by something.
const STD_EPSILON: f64 = 1e-6;
/// Added to the variance that a batch is whitened by.
const VARIANCE_EPSILON: f64 = 1e-8;

/// One advantage per response.
///
/// `rewards` [responses] is flat over the batch, `groups` gives each group's span in it, `lens` [responses] the response
/// tokens; `pass_k` is read by pass@k alone, `greedy` [groups], the greedy responses' rewards, by ReMax alone. Where the
/// baseline is the group's mean, a group of one or of equal rewards has advantages of exactly zero (before whitening).
#[must_use]
pub fn advantages(
    kind: Advantage,
    rewards: &[f32],
    groups: &[Range<usize>],
    lens: &[usize],
    pass_k: usize,
    greedy: &[f32],
) -> Vec<f32> {
    let each = |of_group: &dyn Fn(&[f64]) -> Vec<f64>| by_group(rewards, groups, of_group);
    let values = match kind {
        Advantage::Grpo => each(&|rewards| {
            let scale = sample_std(rewards) + STD_EPSILON;
            centred(rewards).into_iter().map(|d| d / scale).collect()
        }),
        Advantage::DrGrpo => each(&centred),
        Advantage::Rloo => each(&|rewards| {
            let count = rewards.len() as f64;
            let scale = count / (count - 1.0);
            centred(rewards).into_iter().map(|d| d * scale).collect()
        }),
        Advantage::PassAtK => each(&|rewards| pass_at_k(rewards, pass_k)),
        Advantage::ReinforcePlusPlus => {
            let rewards: Vec<f64> = rewards.iter().map(|&reward| f64::from(reward)).collect();
            whitened(&rewards, lens)
        }
        Advantage::ReinforcePlusPlusBaseline => whitened(&each(&centred), lens),
        Advantage::Remax => above(rewards, groups, greedy),
    };
    values.into_iter().map(narrow).collect()
}

/// Applies `of_group` to each group; one whose rewards are all equal gets exact zeros.
fn by_group(
    rewards: &[f32],
    groups: &[Range<usize>],
    of_group: &dyn Fn(&[f64]) -> Vec<f64>,
) -> Vec<f64> {
    let mut values = vec![0.0; rewards.len()];
    for group in groups {
        let Some(rewards) = rewards.get(group.clone()) else {
            continue;
        };
        if rewards.windows(2).all(|pair| pair[0] == pair[1]) {
            continue;
        }
        let rewards: Vec<f64> = rewards.iter().map(|&reward| f64::from(reward)).collect();
        values[group.clone()].copy_from_slice(&of_group(&rewards));
    }
    values
}

/// Each reward less its group's baseline.
fn above(rewards: &[f32], groups: &[Range<usize>], baselines: &[f32]) -> Vec<f64> {
    let mut values = vec![0.0; rewards.len()];
    for (group, &baseline) in groups.iter().zip(baselines) {
        for index in group.clone() {
            values[index] = f64::from(rewards[index]) - f64::from(baseline);
        }
    }
    values
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn centred(values: &[f64]) -> Vec<f64> {
    let mean = mean(values);
    values.iter().map(|value| value - mean).collect()
}

fn sample_std(values: &[f64]) -> f64 {
    let squares: f64 = centred(values).iter().map(|d| d * d).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

/// Mean 0 and variance 1 over the tokens: value i counts `lens[i]` times.
fn whitened(values: &[f64], lens: &[usize]) -> Vec<f64> {
    let count: usize = lens.iter().sum();
    if count < 2 {
        return vec![0.0; values.len()];
    }
    let count = count as f64;
    let sum = |of: &dyn Fn(f64) -> f64| -> f64 {
        let terms = values
            .iter()
            .zip(lens)
            .map(|(&value, &len)| len as f64 * of(value));
        terms.sum()
    };
    let mean = sum(&|value| value) / count;
    let variance = sum(&|value| (value - mean).powi(2)) / (count - 1.0);
    let scale = (variance + VARIANCE_EPSILON).sqrt();
    values.iter().map(|value| (value - mean) / scale).collect()
}

/// Pass@k Training's analytical advantages (2508.10751), for any rewards:
///
/// ```text
/// R(S)  = the best reward in a subset S of k of the group's G responses
/// m, v  = mean and variance of R(S) over all C(G, k) subsets
/// A_i   = (mean of R(S) over the C(G-1, k-1) subsets with response i  -  m) / (sqrt(v) + 1e-6)
/// ```
///
/// With rewards 0 and 1 these are the paper's: m = 1 - C(G0, k) / C(G, k), sqrt(v) = sqrt(m (1 - m)), (1 - m) / sqrt(v)
/// for a right response, (1 - m - C(G0-1, k-1) / C(G-1, k-1)) / sqrt(v) for one of the G0 wrong ones. k is at most G.
fn pass_at_k(rewards: &[f64], k: usize) -> Vec<f64> {
    let count = rewards.len();
    let k = k.clamp(1, count);
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| rewards[a].total_cmp(&rewards[b]));
    let sorted: Vec<f64> = order.iter().map(|&index| rewards[index]).collect();

    // With `below` responses sorted before it, a response is the last of so many subsets.
    let share_of_best = |below: usize| choose(below, k - 1) / choose(count, k);
    let moment = |power: i32| -> f64 {
        let terms = sorted.iter().enumerate();
        terms
            .map(|(below, reward)| share_of_best(below) * reward.powi(power))
            .sum()
    };
    let mean = moment(1);
    let variance = (moment(2) - mean * mean).max(0.0);

    let others = choose(count - 1, k - 1);
    let mut advantages = vec![0.0; count];
    for (rank, &index) in order.iter().enumerate() {
        // Response `index` is the best of its subset, or one sorted after it is.
        let own = choose(rank, k - 1) * sorted[rank];
        let better: f64 = (rank + 1..count)
            .filter(|_| k > 1)
            .map(|best| choose(best - 1, k - 2) * sorted[best])
            .sum();
        advantages[index] = ((own + better) / others - mean) / (variance.sqrt() + STD_EPSILON);
    }
    advantages
}

/// n over k, as a float: subsets of k of n.
fn choose(n: usize, k: usize) -> f64 {
    if k > n {
        return 0.0;
    }
    (0..k)
        .map(|i| (n - i) as f64 / (k - i) as f64)
        .product::<f64>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(kind: Advantage, rewards: &[f32]) -> Vec<f32> {
        one_group(kind, rewards, &vec![1; rewards.len()], 2)
    }

    fn one_group(kind: Advantage, rewards: &[f32], lens: &[usize], k: usize) -> Vec<f32> {
        let whole = 0..rewards.len();
        advantages(kind, rewards, &[whole], lens, k, &[])
    }

    #[test]
    fn grpo_matches_the_formula_by_hand() {
        // torch: r = tensor([1., 0., 0., 1., 0.]); (r - r.mean()) / (r.std() + 1e-6)
        let rewards = [9.0, 1.0, 0.0, 0.0, 1.0, 0.0];
        let got = advantages(Advantage::Grpo, &rewards, &[0..1, 1..6], &[1; 6], 1, &[]);
        let expected = [
            0.0, 1.0954426, -0.7302951, -0.7302951, 1.0954426, -0.7302951,
        ];
        for (advantage, expected) in got.iter().zip(expected) {
            assert!((advantage - expected).abs() < 1e-6, "{got:?}");
        }
    }

    #[test]
    fn equal_rewards_give_exact_zeros() {
        for kind in [
            Advantage::Grpo,
            Advantage::DrGrpo,
            Advantage::Rloo,
            Advantage::PassAtK,
        ] {
            let got = advantages(kind, &[0.1; 7], &[0..3, 3..7], &[1; 7], 2, &[]);
            assert_eq!(got, vec![0.0; 7]);
        }
        assert_eq!(group(Advantage::ReinforcePlusPlus, &[1.0]), [0.0]);
    }

    #[test]
    fn baselines_by_hand() {
        assert_eq!(group(Advantage::DrGrpo, &[3.0, 1.0]), [1.0, -1.0]);
        assert_eq!(group(Advantage::Rloo, &[3.0, 0.0, 0.0]), [3.0, -1.5, -1.5]);
    }

    #[test]
    fn remax_takes_the_greedy_reward_off_even_where_all_are_alike() {
        let rewards = [1.0, 0.0, 1.0, 1.0, 0.0];
        let got = advantages(
            Advantage::Remax,
            &rewards,
            &[0..2, 2..4, 4..5],
            &[3, 1, 2, 2, 9],
            1,
            &[1.0, 0.0, 0.5],
        );
        assert_eq!(got, [0.0, -1.0, 1.0, 1.0, -0.5]);
    }

    #[test]
    fn whitening_counts_tokens() {
        // torch: x = tensor([1.] * 2 + [0.] * 6 + [3.] * 2); (x - x.mean()) * (x.var() + 1e-8).rsqrt()
        let got = one_group(
            Advantage::ReinforcePlusPlus,
            &[1.0, 0.0, 3.0],
            &[2, 6, 2],
            1,
        );
        for (value, expected) in got.iter().zip([0.162_697_84, -0.650_791_4, 1.789_676_3]) {
            assert!((value - expected).abs() < 1e-6, "{got:?}");
        }
        let got = advantages(
            Advantage::ReinforcePlusPlusBaseline,
            &[1.0, 0.0, 8.0, 7.0],
            &[0..2, 2..4],
            &[1, 1, 1, 1],
            1,
            &[],
        );
        // The groups' levels are gone: +-0.5 each, over a sample std of 0.5774.
        for (value, sign) in got.iter().zip([1.0, -1.0, 1.0, -1.0]) {
            assert!((value - sign * 0.866_025_4).abs() < 1e-6, "{got:?}");
        }
    }

    #[test]
    fn pass_at_k_is_the_papers_for_right_and_wrong() {
        // 2 of 5 right, k = 3: m = 1 - C(3,3)/C(5,3) = 0.9, std = 0.3; wrong: 0.1 - C(2,2)/C(4,2) = -0.0667.
        let got = one_group(Advantage::PassAtK, &[0.0, 1.0, 0.0, 1.0, 0.0], &[1; 5], 3);
        for (value, expected) in got
            .iter()
            .zip([-0.222_222, 0.333_333, -0.222_222, 0.333_333, -0.222_222])
        {
            assert!((value - expected).abs() < 1e-5, "{got:?}");
        }
        // Every subset has a right one: nothing to gain.
        let got = one_group(Advantage::PassAtK, &[0.0, 1.0, 1.0], &[1; 3], 2);
        assert!(got.iter().all(|value| value.abs() < 1e-6), "{got:?}");
    }

    /// All subsets of `k` of `0..n`.
    fn subsets(n: usize, k: usize) -> Vec<Vec<usize>> {
        (0..1_usize << n)
            .map(|bits| (0..n).filter(|i| bits >> i & 1 == 1).collect::<Vec<_>>())
            .filter(|subset| subset.len() == k)
            .collect()
    }

    proptest! {
        #[test]
        fn pass_at_k_is_what_enumerating_all_subsets_gives(
            rewards in prop::collection::vec(prop_oneof![Just(0.0_f64), Just(1.0), -1.0_f64..2.0], 2..8),
            k in 1_usize..8,
        ) {
            let k = k.min(rewards.len());
            let best = |subset: &Vec<usize>| subset.iter().map(|&i| rewards[i]).fold(f64::NEG_INFINITY, f64::max);
            let all: Vec<f64> = subsets(rewards.len(), k).iter().map(best).collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let variance = all.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / all.len() as f64;
            for (index, got) in pass_at_k(&rewards, k).into_iter().enumerate() {
                let own: Vec<f64> = subsets(rewards.len(), k).iter().filter(|s| s.contains(&index)).map(best).collect();
                let expected = (own.iter().sum::<f64>() / own.len() as f64 - mean) / (variance.sqrt() + 1e-6);
                prop_assert!((got - expected).abs() < 1e-6, "{got} and {expected}");
            }
        }

        #[test]
        fn remax_is_the_plain_difference_in_f64(
            groups in prop::collection::vec((prop::collection::vec(-2.0_f32..2.0, 1..6), -2.0_f32..2.0), 1..6),
        ) {
            let rewards: Vec<f32> = groups.iter().flat_map(|(rewards, _)| rewards.clone()).collect();
            let greedy: Vec<f32> = groups.iter().map(|(_, greedy)| *greedy).collect();
            let mut spans = Vec::new();
            let mut expected = Vec::new();
            for (rewards, greedy) in &groups {
                spans.push(expected.len()..expected.len() + rewards.len());
                expected.extend(rewards.iter().map(|&reward| f64::from(reward) - f64::from(*greedy)));
            }
            let lens = vec![1; rewards.len()];
            let got = advantages(Advantage::Remax, &rewards, &spans, &lens, 1, &greedy);
            for (got, expected) in got.iter().zip(&expected) {
                prop_assert!((f64::from(*got) - expected).abs() < 1e-6, "{got} and {expected}");
            }
        }

        #[test]
        fn group_baselines_sum_to_zero(rewards in prop::collection::vec(-1.0_f32..2.0, 2..12)) {
            for kind in [Advantage::Grpo, Advantage::DrGrpo, Advantage::Rloo, Advantage::PassAtK] {
                let sum: f32 = group(kind, &rewards).iter().sum();
                prop_assert!(sum.abs() < 1e-4, "{kind:?}: {sum}");
            }
        }
    }
}
