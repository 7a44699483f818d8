//! The top share of a list of scores: partial selection, with an exact cut through ties.

use shared::config::TorTies;

use crate::numbers::{low_half, whole};

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

    /// The same rule with another permutation, so that a token that is lucky in one set is not so in the other.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Shuffle { seed } => Self::Shuffle { seed: !seed },
            Self::LowerIndex | Self::Threshold => self,
        }
    }
}

/// Membership of the `ceil(rho * N)` highest of `scores` [N]; `first_index` is the flat index of the first one.
pub(super) fn top_share(scores: &[f32], rho: f64, ties: Ties, first_index: usize) -> Vec<bool> {
    let num_top = share_of(rho, scores.len());
    if num_top == 0 {
        return vec![false; scores.len()];
    }
    if num_top == scores.len() {
        return vec![true; scores.len()];
    }
    let keys: Vec<u64> = scores
        .iter()
        .zip(first_index..)
        .map(|(&score, index)| key(score, index, ties))
        .collect();
    // A partial selection, linear in N: the sets don't care about the order within.
    let mut ordered = keys.clone();
    let (_, &mut last_key, _) = ordered.select_nth_unstable(num_top - 1);
    let last_key = if ties == Ties::Threshold {
        last_key | u64::from(u32::MAX)
    } else {
        last_key
    };
    keys.into_iter().map(|key| key <= last_key).collect()
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
pub(super) fn ascending_bits(score: f32) -> u32 {
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
pub(super) fn share_of(rho: f64, count: usize) -> usize {
    let exact = rho.clamp(0.0, 1.0) * count as f64;
    let nearest = exact.round();
    let top = if (exact - nearest).abs() <= 1e-9 * nearest.max(1.0) {
        nearest
    } else {
        exact.ceil()
    };
    whole(top).min(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    proptest! {
        #[test]
        fn sets_have_exactly_their_size_and_no_outsider_scores_higher(
            scores in prop::collection::vec(prop_oneof![Just(0.0_f32), -3.0_f32..3.0], 1..300),
            rho in 0.0_f64..=1.0,
            seed: u64,
        ) {
            let members = top_share(&scores, rho, Ties::Shuffle { seed }, 0);
            prop_assert_eq!(count(&members), share_of(rho, scores.len()));
            let lowest = scores.iter().zip(&members).filter(|(_, member)| **member).fold(f32::INFINITY, |low, (score, _)| low.min(*score));
            for (&score, &member) in scores.iter().zip(&members) {
                prop_assert!(member || score <= lowest);
            }
        }
    }
}
