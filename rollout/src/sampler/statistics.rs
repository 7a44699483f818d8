//! What one row of logits says: log-probability and entropies of the tempered distribution, in f64.
//!
//! pi(v) = softmax(logits / temperature) over the *whole* vocabulary, before top-p, top-k and bans: what the learner computes.

// V vocabulary; weights w(v) = exp((logit(v) - max logit) / temperature), so that the largest is 1.

use super::{Error, Result};

/// Tokens per partial sum. The draw walks the sums first, then one block.
pub(super) const BLOCK: usize = 1024;

/// Which entropy a record carries (`--entropy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntropyKind {
    /// Equation 5 over the nucleus, its probabilities divided by their sum (the default).
    Renormalised,
    /// Equation 5 over the nucleus with the probabilities as they are.
    Raw,
    /// Over the whole vocabulary.
    Full,
}

/// The nucleus V_p of a distribution: the fewest most likely tokens whose mass reaches p.
/// The token that crosses p is in, the top one always; equal logits count the lower id first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nucleus {
    /// How many tokens are in.
    pub size: usize,
    /// Their probability, in (0, 1].
    pub mass: f64,
    /// - sum of pi log pi over them, in nats.
    pub entropy_raw: f64,
    /// - sum of q log q, with q = pi / mass, in nats (eq. 5).
    pub entropy_renormalised: f64,
    /// Distance from p to the nearer of the mass with and without the last token in: below ~1e-6 the size may well
    /// differ by one in another implementation.
    pub margin: f64,
}

/// One candidate of a selection: ordered by weight (descending), then by id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) weight: f64,
    pub(super) id: u32,
}

/// The distribution of one row of logits, with buffers that are used again for the next row.
#[derive(Debug, Default)]
pub struct Distribution {
    /// exp((logit - max) / temperature), [V].
    pub(super) weights: Vec<f64>,
    /// Sums of `BLOCK` weights each.
    pub(super) block_sums: Vec<f64>,
    pub(super) candidates: Vec<Candidate>,
    max_logit: f64,
    temperature: f64,
    total: f64,
}

impl Distribution {
    /// Empty; call [`Self::load`] before asking anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over the row `logits` [V] (f32, finite) at `temperature` > 0.
    ///
    /// # Errors
    /// A logit that is not finite, an empty row, or a temperature that is not a positive number.
    pub fn load(&mut self, logits: &[f32], temperature: f64) -> Result<()> {
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(Error::Temperature(temperature));
        }
        let mut max = f32::NEG_INFINITY;
        for (token, &logit) in logits.iter().enumerate() {
            if !logit.is_finite() {
                return Err(Error::NotFinite { token, logit });
            }
            max = max.max(logit);
        }
        if logits.is_empty() {
            return Err(Error::NoLogits);
        }
        self.max_logit = f64::from(max);
        self.temperature = temperature;
        self.weights.clear();
        self.block_sums.clear();
        let scale = 1.0 / temperature;
        for block in logits.chunks(BLOCK) {
            let mut sum = 0.0;
            for &logit in block {
                let weight = ((f64::from(logit) - self.max_logit) * scale).exp();
                sum += weight;
                self.weights.push(weight);
            }
            self.block_sums.push(sum);
        }
        self.total = self.block_sums.iter().sum();
        Ok(())
    }

    /// log pi of a token with this logit, in nats, at most 0. Finite even where pi underflows.
    #[must_use]
    pub fn logprob(&self, logit: f32) -> f64 {
        (f64::from(logit) - self.max_logit) / self.temperature - self.total.ln()
    }

    /// - sum of pi log pi over the whole vocabulary, in nats. `logits` is the row that was loaded.
    #[must_use]
    pub fn full_entropy(&self, logits: &[f32]) -> f64 {
        let weighted: f64 = logits
            .iter()
            .zip(&self.weights)
            .map(|(&logit, &weight)| weight * (f64::from(logit) - self.max_logit))
            .sum();
        (self.total.ln() - weighted / (self.total * self.temperature)).max(0.0)
    }

    /// The nucleus of mass `p` in (0, 1] and its entropies. `logits` is the row that was loaded; p >= 1 is the whole vocabulary.
    pub fn nucleus(&mut self, logits: &[f32], p: f64) -> Nucleus {
        let target = p * self.total;
        if p >= 1.0 {
            let entropy = self.full_entropy(logits);
            return Nucleus {
                size: logits.len(),
                mass: 1.0,
                entropy_raw: entropy,
                entropy_renormalised: entropy,
                margin: 0.0,
            };
        }
        gather(&self.weights, self.total, p, &mut self.candidates);
        let size = select_mass(&mut self.candidates, target);
        let log_total = self.total.ln();
        let (mut mass, mut entropy_raw, mut last) = (0.0, 0.0, f64::INFINITY);
        for candidate in &self.candidates[..size] {
            let probability = candidate.weight / self.total;
            let logit = f64::from(logits[candidate.id as usize]);
            entropy_raw -= probability * ((logit - self.max_logit) / self.temperature - log_total);
            mass += probability;
            last = probability.min(last);
        }
        let entropy_renormalised = if size == 1 {
            0.0
        } else {
            (entropy_raw / mass + mass.ln()).max(0.0)
        };
        let margin = (mass - p).min(p - (mass - last)).abs();
        Nucleus {
            size,
            mass,
            entropy_raw,
            entropy_renormalised,
            margin,
        }
    }

    /// The entropy that records carry, in nats.
    pub fn entropy(&mut self, logits: &[f32], kind: EntropyKind, p: f64) -> f64 {
        match kind {
            EntropyKind::Renormalised => self.nucleus(logits, p).entropy_renormalised,
            EntropyKind::Raw => self.nucleus(logits, p).entropy_raw,
            EntropyKind::Full => self.full_entropy(logits),
        }
    }
}

/// Collects the tokens that can be in the nucleus of mass `p` of `weights`, whose sum is `total` and whose largest is 1 or less.
///
/// Tokens below (1 - p) * total / V weigh less than 1 - p together, so none of them is needed. A sharp distribution needs far
/// fewer: a first look takes only those within four decades of the top one, and is enough when they reach the mass.
pub(super) fn gather(weights: &[f64], total: f64, p: f64, out: &mut Vec<Candidate>) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a vocabulary is far smaller than 2^52"
    )]
    let floor = ((1.0 - p).max(0.0) * total / weights.len() as f64).max(f64::MIN_POSITIVE);
    for threshold in [1e-4, floor] {
        let threshold = floor.max(threshold);
        out.clear();
        let mut mass = 0.0;
        for (id, &weight) in (0_u32..).zip(weights) {
            if weight >= threshold {
                out.push(Candidate { weight, id });
                mass += weight;
            }
        }
        if threshold <= floor || mass >= p * total {
            return;
        }
    }
}

/// Moves the heaviest candidates to the front and returns how many it takes to reach `target` (all of them when none do).
/// Expected time linear in the number of candidates: each round selects around a pivot and goes on in one side.
pub(super) fn select_mass(candidates: &mut [Candidate], target: f64) -> usize {
    let (mut low, mut high) = (0, candidates.len());
    let mut before = 0.0; // mass of [..low], all of it in
    while high - low > 32 {
        // A nucleus is mostly short: the first pivot stands near the front.
        let pivot = if low == 0 { 31 } else { (high - low) / 2 };
        let (left, middle, _) = candidates[low..high].select_nth_unstable_by(pivot, heavier);
        let left_mass: f64 = left.iter().map(|candidate| candidate.weight).sum();
        if before + left_mass >= target {
            high = low + pivot;
            if low == 0 {
                break; // at most 31 are left to sort
            }
        } else {
            before += left_mass + middle.weight;
            low += pivot + 1;
            if before >= target {
                return low;
            }
        }
    }
    candidates[low..high].sort_unstable_by(heavier);
    for (index, candidate) in candidates[low..high].iter().enumerate() {
        before += candidate.weight;
        if before >= target {
            return low + index + 1;
        }
    }
    high
}

/// Heavier first, then the lower id.
pub(super) fn heavier(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Distribution, EntropyKind, Nucleus};

    /// The definition, literally: a full sort in f64.
    fn reference(logits: &[f32], temperature: f64, p: f64) -> Nucleus {
        let max = logits.iter().copied().fold(f32::MIN, f32::max);
        let weights: Vec<f64> = logits
            .iter()
            .map(|&l| ((f64::from(l) - f64::from(max)) / temperature).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        let (mut mass, mut raw, mut size, mut last) = (0.0, 0.0, 0, 0.0);
        for index in order {
            if mass >= p {
                break;
            }
            last = weights[index] / total;
            mass += last;
            raw -= if last > 0.0 { last * last.ln() } else { 0.0 };
            size += 1;
        }
        Nucleus {
            size,
            mass,
            entropy_raw: raw,
            entropy_renormalised: raw / mass + mass.ln(),
            margin: (mass - p).min(p - (mass - last)).abs(),
        }
    }

    fn rows() -> impl Strategy<Value = Vec<f32>> {
        // Rounded values give ties; the scale goes from flat to needle-sharp.
        (1_usize..3000, 0.01_f32..8.0, any::<bool>()).prop_flat_map(|(len, scale, ties)| {
            prop::collection::vec(-4.0_f32..4.0, len).prop_map(move |row| {
                row.iter()
                    .map(|x| if ties { x.round() } else { *x } * scale)
                    .collect()
            })
        })
    }

    proptest! {
        #[test]
        fn nucleus_equals_the_full_sort(row in rows(), p in 0.05_f64..0.999, temperature in 0.3_f64..2.0) {
            let mut distribution = Distribution::new();
            distribution.load(&row, temperature).unwrap();
            let (ours, expected) = (distribution.nucleus(&row, p), reference(&row, temperature, p));
            if expected.margin > 1e-9 {
                prop_assert_eq!(ours.size, expected.size);
                prop_assert!((ours.mass - expected.mass).abs() < 1e-9);
                prop_assert!((ours.entropy_raw - expected.entropy_raw).abs() < 1e-9);
                prop_assert!((ours.entropy_renormalised - expected.entropy_renormalised).abs() < 1e-9);
                prop_assert!((ours.margin - expected.margin).abs() < 1e-9);
            }
        }

        #[test]
        fn log_probabilities_sum_to_one(row in rows(), temperature in 0.3_f64..2.0) {
            let mut distribution = Distribution::new();
            distribution.load(&row, temperature).unwrap();
            let sum: f64 = row.iter().map(|&logit| distribution.logprob(logit).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9, "{}", sum);
            let entropy: f64 = row.iter().map(|&l| -distribution.logprob(l) * distribution.logprob(l).exp()).sum();
            prop_assert!((distribution.full_entropy(&row) - entropy).abs() < 1e-9);
        }
    }

    #[test]
    fn the_token_that_crosses_p_is_in() {
        let row: Vec<f32> = [0.5_f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let mut distribution = Distribution::new();
        distribution.load(&row, 1.0).unwrap();
        let sizes: Vec<usize> = [0.1, 0.49, 0.51, 0.79, 0.81, 0.94, 0.96, 1.0]
            .iter()
            .map(|&p| distribution.nucleus(&row, p).size)
            .collect();
        assert_eq!(sizes, [1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(
            distribution.entropy(&row, EntropyKind::Renormalised, 0.4),
            0.0
        );
        assert!(
            (distribution.entropy(&row, EntropyKind::Raw, 0.4) - 0.5 * 2.0_f64.ln()).abs() < 1e-7
        );
    }

    #[test]
    fn logprob_stays_finite_where_the_probability_underflows() {
        let row = [0.0, -4000.0];
        let mut distribution = Distribution::new();
        distribution.load(&row, 1.0).unwrap();
        assert_eq!(distribution.logprob(row[1]), -4000.0);
    }

    #[test]
    fn bad_rows_are_refused() {
        let mut distribution = Distribution::new();
        assert!(distribution.load(&[0.0, f32::NAN], 1.0).is_err());
        assert!(distribution.load(&[f32::INFINITY], 1.0).is_err());
        assert!(distribution.load(&[], 1.0).is_err());
        assert!(distribution.load(&[1.0], 0.0).is_err());
    }
}
