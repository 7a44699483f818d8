//! `--advantage` and `--algo`.

use std::ops::Range;

use clap::ValueEnum;
use learner::advantage::advantages;
use shared::config::{Advantage, Algo};

use super::{Numbers, config};

/// Rewards of a batch, flat; its groups, and the tokens of each response.
struct Batch {
    rewards: Vec<f32>,
    groups: Vec<Range<usize>>,
    lens: Vec<usize>,
    greedy: Vec<f32>,
}

fn batch(seed: u64, is_binary: bool) -> Batch {
    let mut numbers = Numbers(seed);
    let mut batch = Batch {
        rewards: Vec::new(),
        groups: Vec::new(),
        lens: Vec::new(),
        greedy: Vec::new(),
    };
    for group in 0..5 {
        let start = batch.rewards.len();
        // The last group is all alike.
        let alike = numbers.small();
        for _ in 0..5 {
            batch.rewards.push(match (group, is_binary) {
                (4, _) => alike,
                (_, true) => numbers.small().round(),
                (_, false) => 3.0 * numbers.small() - 1.0,
            });
            batch.lens.push(numbers.count(9));
        }
        batch.groups.push(start..batch.rewards.len());
        batch.greedy.push(numbers.small());
    }
    batch
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The variance with N - 1.
fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    squares / (values.len() as f64 - 1.0)
}

/// Value i over the list in which it stands as often as response i has tokens.
fn whitened(values: &[f64], lens: &[usize]) -> Vec<f64> {
    let each = values.iter().zip(lens);
    let tokens: Vec<f64> = each
        .flat_map(|(&value, &len)| std::iter::repeat_n(value, len))
        .collect();
    let (mean, scale) = (mean(&tokens), (variance(&tokens) + 1e-8).sqrt());
    values.iter().map(|value| (value - mean) / scale).collect()
}

/// Mean best reward of the subsets of `k` with response `own`, against those of all.
fn pass_at_k(rewards: &[f64], own: usize, k: u32) -> f64 {
    let (mut with, mut all) = (Vec::new(), Vec::new());
    for subset in 0_u32..1 << rewards.len() {
        if subset.count_ones() != k {
            continue;
        }
        let members = (0..rewards.len()).filter(|i| subset >> i & 1 == 1);
        let best = members.map(|i| rewards[i]).fold(f64::MIN, f64::max);
        all.push(best);
        if subset >> own & 1 == 1 {
            with.push(best);
        }
    }
    let spread = all.iter().map(|best| (best - mean(&all)).powi(2));
    let spread = mean(&spread.collect::<Vec<_>>()).sqrt();
    (mean(&with) - mean(&all)) / (spread + 1e-6)
}

fn plain(kind: Advantage, batch: &Batch, k: usize) -> Vec<f64> {
    let mut values = Vec::new();
    for (group, &greedy) in batch.groups.iter().zip(&batch.greedy) {
        let rewards: Vec<f64> = batch.rewards[group.clone()]
            .iter()
            .map(|&reward| f64::from(reward))
            .collect();
        for (own, reward) in rewards.iter().enumerate() {
            let others: Vec<f64> = (0..rewards.len())
                .filter(|&other| other != own)
                .map(|other| rewards[other])
                .collect();
            values.push(match kind {
                Advantage::Grpo => (reward - mean(&rewards)) / (variance(&rewards).sqrt() + 1e-6),
                Advantage::DrGrpo | Advantage::ReinforcePlusPlusBaseline => reward - mean(&rewards),
                Advantage::Rloo => reward - mean(&others),
                Advantage::ReinforcePlusPlus => *reward,
                Advantage::PassAtK => pass_at_k(&rewards, own, u32::try_from(k).unwrap()),
                Advantage::Remax => reward - f64::from(greedy),
            });
        }
    }
    match kind {
        Advantage::ReinforcePlusPlus | Advantage::ReinforcePlusPlusBaseline => {
            whitened(&values, &batch.lens)
        }
        _ => values,
    }
}

fn assert_equal(kind: Advantage, k: usize, seed: u64) {
    for is_binary in [false, true] {
        let batch = batch(seed, is_binary);
        let got = advantages(
            kind,
            &batch.rewards,
            &batch.groups,
            &batch.lens,
            k,
            &batch.greedy,
        );
        let expected = plain(kind, &batch, k);
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            let difference = (f64::from(*got) - expected).abs();
            assert!(
                difference < 1e-5 * expected.abs().max(1.0),
                "{kind:?}, k {k}: {got}, not {expected}"
            );
        }
    }
}

#[test]
fn every_advantage_is_its_formula() {
    for kind in Advantage::value_variants() {
        let name = kind.to_possible_value().unwrap().get_name().to_owned();
        let resolved = config(&["--advantage", &name]).resolved();
        assert_eq!(resolved.advantage, *kind);
        for seed in 0..20 {
            assert_equal(*kind, resolved.pass_k, seed);
        }
    }
    for k in ["1", "2", "3"] {
        let resolved = config(&["--advantage", "pass-at-k", "--pass-k", k]).resolved();
        for seed in 0..20 {
            assert_equal(Advantage::PassAtK, resolved.pass_k, seed);
        }
    }
    let without = config(&["--algo", "grpo", "--advantage-std=false"]).resolved();
    assert_eq!(without.advantage, Advantage::DrGrpo);
}

#[test]
fn every_algo_has_the_advantage_of_its_paper() {
    use Advantage::{DrGrpo, Grpo, ReinforcePlusPlus, ReinforcePlusPlusBaseline, Rloo};
    for algo in Algo::value_variants() {
        let expected = match algo {
            Algo::Dapo | Algo::Grpo | Algo::Gspo | Algo::Cispo | Algo::Sapo | Algo::Gmpo => Grpo,
            Algo::DrGrpo => DrGrpo,
            Algo::Rloo => Rloo,
            Algo::ReinforcePlusPlus => ReinforcePlusPlus,
            Algo::ReinforcePlusPlusBaseline => ReinforcePlusPlusBaseline,
        };
        let name = algo.to_possible_value().unwrap().get_name().to_owned();
        assert_eq!(config(&["--algo", &name]).resolved().advantage, expected);
    }
}
