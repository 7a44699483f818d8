//! How sure a share is, and what K responses say about pass@k.

use std::collections::HashMap;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Times that the questions are drawn again.
const RESAMPLES: usize = 1000;
/// The same figures give the same interval.
const SEED: u64 = 0;
/// Of the normal distribution, for 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// The middle 95 % of the means of `values` (each in [0, 1]) when their clusters are drawn again with replacement. Questions
/// about one figure are right or wrong together: drawn one by one they would look surer than they are. Where all values are the same,
/// drawing again says nothing, and Wilson's interval for as many independent clusters is given.
#[must_use]
pub fn interval<'a>(values: impl Iterator<Item = (&'a str, f64)>) -> [f64; 2] {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut clusters: Vec<(f64, f64)> = Vec::new();
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for (name, value) in values {
        let place = *places.entry(name).or_insert(clusters.len());
        if place == clusters.len() {
            clusters.push((0.0, 0.0));
        }
        if let Some((sum, count)) = clusters.get_mut(place) {
            *sum += value;
            *count += 1.0;
        }
        (least, most) = (least.min(value), most.max(value));
    }
    if clusters.is_empty() {
        return [0.0, 1.0];
    }
    if (most - least).abs() < f64::EPSILON {
        return wilson(most, to_f64(clusters.len()));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn = (0..clusters.len())
                .filter_map(|_| clusters.get(rng.random_range(0..clusters.len())));
            let (sum, count) = drawn.fold((0.0, 0.0), |(s, c), (sum, count)| (s + sum, c + count));
            sum / count
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |place: usize| means.get(place).copied().unwrap_or_default();
    [at(RESAMPLES / 40), at(RESAMPLES - 1 - RESAMPLES / 40)]
}

/// Wilson's score interval, 95 %.
fn wilson(share: f64, n: f64) -> [f64; 2] {
    let square = Z * Z / n;
    let middle = share + square / 2.0;
    let reach = Z * (share * (1.0 - share) / n + square / (4.0 * n)).sqrt();
    [
        ((middle - reach) / (1.0 + square)).max(0.0),
        ((middle + reach) / (1.0 + square)).min(1.0),
    ]
}

/// The chance that at least one of `k` responses is right, estimated without bias from `num_right` of `n`:
/// 1 - C(n - c, k) / C(n, k).
#[must_use]
pub fn pass_at_k(n: usize, num_right: usize, k: usize) -> f64 {
    let wrong = n - num_right.min(n);
    if k == 0 || n == 0 {
        return 0.0;
    }
    if wrong < k {
        return 1.0;
    }
    // C(n - c, k) / C(n, k) = product over i in n - c + 1 ..= n of (1 - k / i).
    1.0 - (wrong + 1..=n)
        .map(|i| 1.0 - to_f64(k) / to_f64(i))
        .product::<f64>()
}

/// 0 for none.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value;
        count += 1;
    }
    if count == 0 { 0.0 } else { sum / to_f64(count) }
}

/// Of the mean of `values`, with N - 1; 0 for fewer than two.
pub(super) fn standard_error(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values.iter().copied());
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / to_f64(values.len() - 1) / to_f64(values.len())).sqrt()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(super) fn to_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_equals_counting_the_subsets() {
        for n in 1..8_usize {
            for right in 0..=n {
                for k in 1..=n {
                    let subsets = (0..1_u32 << n).filter(|set| set.count_ones() as usize == k);
                    let (mut hits, mut total) = (0, 0);
                    for set in subsets {
                        total += 1;
                        hits += u32::from(set & ((1 << right) - 1) != 0);
                    }
                    let expected = f64::from(hits) / f64::from(total);
                    assert!(
                        (pass_at_k(n, right, k) - expected).abs() < 1e-12,
                        "{n} {right} {k}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_standard_error_of_coin_flips() {
        let values = [1.0, 0.0, 1.0, 0.0];
        assert!((standard_error(&values) - (1.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(standard_error(&[1.0]), 0.0);
    }

    /// 50 of 100 right: the normal interval is 0.5 +- 1.96 * 0.05 = [0.402, 0.598]; drawn again it moves by its noise.
    #[test]
    fn an_interval_is_as_wide_as_the_clusters_are_few() {
        let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let half = |n: usize| if n.is_multiple_of(2) { 1.0 } else { 0.0 };
        let [low, high] = interval((0..100).map(|n| (names[n].as_str(), half(n))));
        assert!(
            (low - 0.402).abs() < 0.02 && (high - 0.598).abs() < 0.02,
            "{low} {high}"
        );
        // Each question five times: no surer than once.
        let five = (0..500).map(|n| (names[n % 100].as_str(), half(n % 100)));
        assert_eq!(interval(five), [low, high]);
        // As if each were its own: narrower by the square root of five.
        let many: Vec<String> = (0..500).map(|n| n.to_string()).collect();
        let [a, b] = interval((0..500).map(|n| (many[n].as_str(), half(n))));
        assert!((b - a) < 0.55 * (high - low), "{a} {b}");
    }

    /// Wilson for 0 of 10: [0, z^2 / (n + z^2)] = 3.8415 / 13.8415 = 0.2775.
    #[test]
    fn all_wrong_is_not_surely_all_wrong() {
        let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let [low, high] = interval(names.iter().map(|name| (name.as_str(), 0.0)));
        assert!(low == 0.0 && (high - 0.2775).abs() < 1e-4, "{high}");
        let [low, high] = interval(names.iter().map(|name| (name.as_str(), 1.0)));
        assert!(
            (high - 1.0).abs() < 1e-12 && (low - 0.7225).abs() < 1e-4,
            "{low}"
        );
    }
}
