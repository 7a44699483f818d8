//! Randomness by position: nothing is drawn in sequence, so nothing depends on what else ran.
//!
//! A stream is the ChaCha8 key stream whose 256-bit key is (run seed, number, index, purpose), four little-endian u64.
//! The response `index` of ticket `number` takes word pair t of its stream for its token t.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream is for: equal numbers in two uses must not meet the same bits.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Response = 1,
    Epoch = 2,
}

/// A uniform number in [0, 1), 53 bits, for token `token_index` of response `response_index` of `ticket`.
#[must_use]
pub fn uniform(run_seed: u64, ticket: u64, response_index: u64, token_index: u64) -> f64 {
    let mut stream = stream(run_seed, ticket, response_index, Purpose::Response);
    stream.set_word_pos(2 * u128::from(token_index));
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    let bits = (stream.next_u64() >> 11) as f64;
    bits / 9_007_199_254_740_992.0 // 2^53
}

/// The order in which epoch `epoch` visits `len` samples: a Fisher-Yates shuffle keyed by the run seed.
#[must_use]
pub fn permutation(run_seed: u64, epoch: u64, len: usize) -> Vec<usize> {
    let mut stream = stream(run_seed, epoch, 0, Purpose::Epoch);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, below(&mut stream, last + 1));
    }
    order
}

/// Uniform in 0..bound, by the high half of a 128-bit product; the bias is below 2^-40 for any real data set.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the result is below `bound`, a usize"
)]
fn below(stream: &mut ChaCha8Rng, bound: usize) -> usize {
    ((u128::from(stream.next_u64()) * bound as u128) >> 64) as usize
}

fn stream(run_seed: u64, number: u64, index: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key
        .chunks_exact_mut(8)
        .zip([run_seed, number, index, purpose as u64])
    {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{permutation, uniform};

    #[test]
    fn every_coordinate_changes_the_number() {
        let mut seen = HashSet::new();
        for seed in 0..3 {
            for ticket in 0..5 {
                for response in 0..5 {
                    for token in 0..40 {
                        let number = uniform(seed, ticket, response, token);
                        assert!((0.0..1.0).contains(&number));
                        assert!(
                            seen.insert(number.to_bits()),
                            "{seed} {ticket} {response} {token}"
                        );
                    }
                }
            }
        }
        let mean = seen.iter().map(|&bits| f64::from_bits(bits)).sum::<f64>() / 3000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }

    #[test]
    fn an_epoch_visits_every_sample_once() {
        for len in [0, 1, 2, 17, 1000] {
            let mut order = permutation(7, 3, len);
            order.sort_unstable();
            assert_eq!(order, (0..len).collect::<Vec<_>>());
        }
        assert_ne!(permutation(7, 0, 50), permutation(7, 1, 50));
        assert_ne!(permutation(7, 0, 50), permutation(8, 0, 50));
        assert_eq!(permutation(7, 0, 50), permutation(7, 0, 50));
    }
}
