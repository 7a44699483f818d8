//! Token weights of ToR: which response tokens reason, which perceive, and what each counts in the loss
//! (equations 6, 7, 9, 10 and 11).

use std::ops::Range;

use rayon::prelude::*;
use shared::config::{PerceptionSignal, TorScope, TorTies};

use crate::batch::Batch;
use crate::numbers::{low_half, narrow, whole};

/// What decides the sets and the weights.
#[derive(Clone, Copy, Debug)]
pub struct TorSettings {
    /// Weight of a reasoning token, the overlap included (1.0 in the paper).
    pub alpha: f64,
    /// Weight of a token that is in the perception set only (0.5 in the paper).
    pub beta: f64,
    /// Share of the tokens that the reasoning set takes, 0 to 1.
    pub rho_reasoning: f64,
    /// Share of the tokens that the perception set takes, 0 to 1.
    pub rho_perception: f64,
    /// What is compared between the passes with and without the image.
    pub signal: PerceptionSignal,
    /// Whether the cut is made over the batch or in each response.
    pub scope: TorScope,
    /// What happens at the cut.
    pub ties: Ties,
}

/// What happens when several tokens have the score at the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ties {
    /// Exactly `ceil(rho * N)` tokens; a permutation drawn from the seed decides.
    Shuffle {
        /// Fixes the permutation.
        seed: u64,
    },
    /// Exactly `ceil(rho * N)` tokens; the lower flat index wins.
    LowerIndex,
    /// Every token that reaches the score at the cut: possibly more than `ceil(rho * N)`.
    Threshold,
}

impl Ties {
    /// The rule that the configuration names.
    #[must_use]
    pub fn new(rule: TorTies, seed: u64) -> Self {
        match rule {
            TorTies::Shuffle => Self::Shuffle { seed },
            TorTies::Threshold => Self::Threshold,
        }
    }
}

/// The sets and weights of one rollout batch; every array is [N], N response tokens.
#[derive(Clone, Debug, Default)]
pub struct TokenWeights {
    /// w of equations 10 and 11.
    pub weights: Vec<f32>,
    /// T_r (equations 6 and 7).
    pub is_reasoning: Vec<bool>,
    /// T_p (equation 9).
    pub is_perception: Vec<bool>,
    /// What to show of them; `None` where every weight is 1 (`--no-tor`).
    pub shares: Option<Shares>,
}

/// How the sets lie in the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Part of the tokens in T_r.
    pub reasoning: f64,
    /// Part of the tokens in T_p.
    pub perception: f64,
    /// Part of the tokens in both.
    pub overlap: f64,
    /// The lowest entropy that is in T_r.
    pub entropy_threshold: f64,
    /// The lowest sensitivity that is in T_p.
    pub sensitivity_threshold: f64,
    /// Spearman's rank correlation of entropy and sensitivity over the batch, -1 to 1; 0 when either is constant.
    pub rank_correlation: f64,
}

impl TokenWeights {
    /// The sets and weights of a batch.
    #[must_use]
    pub fn new(batch: &Batch, settings: &TorSettings) -> Self {
        let sensitivities = sensitivities(batch, settings.signal);
        let spans: Vec<Range<usize>> = batch
            .responses
            .iter()
            .map(|response| response.tokens.clone())
            .collect();
        Self::from_scores(&batch.entropies, &sensitivities, &spans, settings)
    }

    /// The same from the two scores [N]; `spans` are the responses' tokens in them.
    #[must_use]
    pub fn from_scores(
        entropies: &[f32],
        sensitivities: &[f32],
        spans: &[Range<usize>],
        settings: &TorSettings,
    ) -> Self {
        let is_reasoning = top_tokens(entropies, spans, settings.rho_reasoning, settings);
        let is_perception = top_tokens(sensitivities, spans, settings.rho_perception, settings);
        let weights = is_reasoning
            .iter()
            .zip(&is_perception)
            .map(|(&reasoning, &perception)| match (reasoning, perception) {
                (true, _) => narrow(settings.alpha),
                (false, true) => narrow(settings.beta),
                (false, false) => 0.0,
            })
            .collect();
        let shares = Some(Shares::new(
            entropies,
            sensitivities,
            &is_reasoning,
            &is_perception,
        ));
        Self {
            weights,
            is_reasoning,
            is_perception,
            shares,
        }
    }

    /// Weight 1 for each of `num_tokens` tokens: the plain algorithm.
    #[must_use]
    pub fn ones(num_tokens: usize) -> Self {
        Self {
            weights: vec![1.0; num_tokens],
            is_reasoning: vec![false; num_tokens],
            is_perception: vec![false; num_tokens],
            shares: None,
        }
    }
}

impl Shares {
    fn new(
        entropies: &[f32],
        sensitivities: &[f32],
        is_reasoning: &[bool],
        is_perception: &[bool],
    ) -> Self {
        let count = is_reasoning.len().max(1) as f64;
        let share = |member: &dyn Fn(usize) -> bool| {
            (0..is_reasoning.len()).filter(|&i| member(i)).count() as f64 / count
        };
        Self {
            reasoning: share(&|i| is_reasoning[i]),
            perception: share(&|i| is_perception[i]),
            overlap: share(&|i| is_reasoning[i] && is_perception[i]),
            entropy_threshold: lowest_member(entropies, is_reasoning),
            sensitivity_threshold: lowest_member(sensitivities, is_perception),
            rank_correlation: rank_correlation(entropies, sensitivities),
        }
    }
}

/// How much each response token depends on the image (equation 8 and its proxies), [N].
#[must_use]
pub fn sensitivities(batch: &Batch, signal: PerceptionSignal) -> Vec<f32> {
    let logprobs = batch.rollout_logprobs.par_iter().zip(&batch.blank_logprobs);
    match signal {
        PerceptionSignal::LogpDiff => logprobs
            .map(|(image, blank)| (image - blank).abs())
            .collect(),
        PerceptionSignal::ProbDiff => logprobs
            .map(|(image, blank)| (image.exp() - blank.exp()).abs())
            .collect(),
        PerceptionSignal::Signed => logprobs.map(|(image, blank)| image - blank).collect(),
        PerceptionSignal::K3 => logprobs
            .map(|(image, blank)| crate::loss::k3(blank - image))
            .collect(),
        PerceptionSignal::EntropyDiff => {
            let entropies = batch.entropies.par_iter().zip(&batch.blank_entropies);
            entropies
                .map(|(image, blank)| (image - blank).abs())
                .collect()
        }
    }
}

/// Membership [N] of the tokens with the highest scores, over the batch or in each response.
fn top_tokens(
    scores: &[f32],
    spans: &[Range<usize>],
    rho: f64,
    settings: &TorSettings,
) -> Vec<bool> {
    match settings.scope {
        TorScope::Batch => top_share(scores, rho, settings.ties, 0),
        TorScope::Response => {
            let mut members = vec![false; scores.len()];
            for span in spans {
                let top = top_share(&scores[span.clone()], rho, settings.ties, span.start);
                members[span.clone()].copy_from_slice(&top);
            }
            members
        }
    }
}

/// Membership of the `ceil(rho * N)` highest of `scores` [N]; `first_index` is the flat index of the first one.
fn top_share(scores: &[f32], rho: f64, ties: Ties, first_index: usize) -> Vec<bool> {
    let num_top = share_of(rho, scores.len());
    if num_top == 0 {
        return vec![false; scores.len()];
    }
    if num_top == scores.len() {
        return vec![true; scores.len()];
    }
    let keys = |mask: u64| {
        move |(index, &score): (usize, &f32)| key(score, first_index + index, ties) & mask
    };
    // A partial selection, linear in N: the sets don't care about the order within.
    let mut ordered: Vec<u64> = scores.par_iter().enumerate().map(keys(u64::MAX)).collect();
    let (_, &mut last_key, _) = ordered.select_nth_unstable(num_top - 1);
    let mask = if ties == Ties::Threshold {
        u64::MAX << 32
    } else {
        u64::MAX
    };
    scores
        .par_iter()
        .enumerate()
        .map(keys(mask))
        .map(|key| key <= last_key & mask)
        .collect()
}

/// Orders a token: the score in the upper half (higher scores first), the tie rank in the lower half. The rank is a
/// bijection of the index, so that no two keys of a batch are equal and the cut is exact.
fn key(score: f32, index: usize, ties: Ties) -> u64 {
    let rank = match ties {
        Ties::Shuffle { seed } => shuffled(low_half(index as u64), seed),
        Ties::LowerIndex | Ties::Threshold => low_half(index as u64),
    };
    (u64::from(!ascending_bits(score)) << 32) | u64::from(rank)
}

/// Bits that compare as the scores do; -0 counts as 0.
fn ascending_bits(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | (1 << 31)
    }
}

/// A seeded permutation of the 32-bit numbers: rounds of steps that each can be undone (add, odd factor, xor-shift).
fn shuffled(index: u32, seed: u64) -> u32 {
    let mut value = index;
    for round in 0..4 {
        // Spread the seed, so that neighbouring seeds share no round key.
        let round_key = low_half((seed ^ round).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 29);
        value = value.wrapping_add(round_key);
        value ^= value >> 16;
        value = value.wrapping_mul(0x7FEB_352D);
        value ^= value >> 15;
        value = value.wrapping_mul(0x846C_A68B);
        value ^= value >> 16;
    }
    value
}

/// `ceil(rho * count)`, where a product within rounding of a whole number is that number (0.07 * 100 is 7, not 8).
fn share_of(rho: f64, count: usize) -> usize {
    let exact = rho.clamp(0.0, 1.0) * count as f64;
    let nearest = exact.round();
    let top = if (exact - nearest).abs() <= 1e-9 * nearest.max(1.0) {
        nearest
    } else {
        exact.ceil()
    };
    whole(top).min(count)
}

/// The lowest score among the members, 0 without any.
fn lowest_member(scores: &[f32], is_member: &[bool]) -> f64 {
    let members = scores.iter().zip(is_member).filter(|(_, member)| **member);
    members
        .map(|(&score, _)| f64::from(score))
        .reduce(f64::min)
        .unwrap_or(0.0)
}

/// Spearman's rank correlation: Pearson's of the ranks, ties at their mean rank.
fn rank_correlation(first: &[f32], second: &[f32]) -> f64 {
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
    use proptest::prelude::*;

    use super::*;

    fn settings(rho: f64, scope: TorScope, ties: Ties) -> TorSettings {
        let signal = PerceptionSignal::LogpDiff;
        TorSettings {
            alpha: 1.0,
            beta: 0.5,
            rho_reasoning: rho,
            rho_perception: rho,
            signal,
            scope,
            ties,
        }
    }

    fn count(members: &[bool]) -> usize {
        members.iter().filter(|member| **member).count()
    }

    #[test]
    fn shares_round_up_but_not_on_rounding_noise() {
        assert_eq!(share_of(0.3, 297), 90);
        assert_eq!(share_of(0.07, 100), 7);
        assert_eq!(share_of(0.3, 1_000_000), 300_000);
        assert_eq!(share_of(0.0, 10), 0);
        assert_eq!(share_of(1.0, 10), 10);
        assert_eq!(share_of(0.001, 10), 1);
    }

    #[test]
    fn ties_are_cut_exactly_or_all_taken() {
        let scores = [0.0, 1.0, 0.0, -0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0];
        let exact = top_share(&scores, 0.5, Ties::LowerIndex, 0);
        assert_eq!(
            exact,
            [
                true, true, true, true, false, false, true, false, false, false
            ]
        );
        let shuffled = top_share(&scores, 0.5, Ties::Shuffle { seed: 3 }, 0);
        assert_eq!(count(&shuffled), 5);
        assert!(shuffled[1] && shuffled[6]);
        assert_ne!(
            shuffled,
            top_share(&scores, 0.5, Ties::Shuffle { seed: 4 }, 0)
        );
        assert_eq!(count(&top_share(&scores, 0.5, Ties::Threshold, 0)), 10);
        assert_eq!(count(&top_share(&scores, 0.2, Ties::Threshold, 0)), 2);
    }

    #[test]
    fn shuffled_ties_are_spread_evenly() {
        let members = top_share(&vec![0.0; 10_000], 0.3, Ties::Shuffle { seed: 11 }, 0);
        for part in members.chunks(2_500) {
            assert!((650..850).contains(&count(part)), "{}", count(part));
        }
    }

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

    proptest! {
        #[test]
        fn sets_have_exactly_their_size_and_no_outsider_scores_higher(
            scores in prop::collection::vec(prop_oneof![Just(0.0_f32), -3.0_f32..3.0], 1..300),
            rho in 0.0_f64..=1.0,
            seed: u64,
        ) {
            let members = top_share(&scores, rho, Ties::Shuffle { seed }, 0);
            prop_assert_eq!(count(&members), share_of(rho, scores.len()));
            let lowest = lowest_member(&scores, &members);
            for (&score, &member) in scores.iter().zip(&members) {
                prop_assert!(member || f64::from(score) <= lowest || count(&members) == 0);
            }
        }

        #[test]
        fn weights_sum_to_alpha_and_beta_times_the_sets(
            scores in prop::collection::vec((0.0_f32..2.0, 0.0_f32..2.0), 2..200),
            rho in 0.01_f64..0.9,
            cut in 1_usize..199,
        ) {
            let (entropies, sensitivities): (Vec<f32>, Vec<f32>) = scores.into_iter().unzip();
            let cut = cut.min(entropies.len() - 1);
            let spans = [0..cut, cut..entropies.len()];
            for scope in [TorScope::Batch, TorScope::Response] {
                let settings = settings(rho, scope, Ties::LowerIndex);
                let tor = TokenWeights::from_scores(&entropies, &sensitivities, &spans, &settings);
                let overlap = tor.is_reasoning.iter().zip(&tor.is_perception).filter(|(a, b)| **a && **b).count();
                let expected = count(&tor.is_reasoning) as f64 + 0.5 * (count(&tor.is_perception) - overlap) as f64;
                let sum: f64 = tor.weights.iter().map(|&w| f64::from(w)).sum();
                prop_assert!((sum - expected).abs() < 1e-9);
                if scope == TorScope::Response {
                    prop_assert_eq!(count(&tor.is_reasoning[..cut]), share_of(rho, cut));
                }
            }
        }
    }
}
