//! What one row of logits says: log-probability and entropies of the tempered distribution. Weights are f32, their sums f64:
//! the results are within 1e-6 of those in f64 throughout.
//!
//! pi(v) = softmax(logits / temperature) over the *whole* vocabulary, before top-p, top-k and bans: what the learner computes.

// V vocabulary; weights w(v) = exp((logit(v) - max logit) / temperature), so that the largest is 1.

use pulp::Arch;

use super::exponential::Exponential;
use super::row::{Candidate, Keep, Moment, Row, Tops, Weigh};
use super::{Error, Result};

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

/// The distribution of one row of logits, with buffers that are used again for the next row.
#[derive(Debug, Default)]
pub struct Distribution {
    pub(super) arch: Arch,
    /// exp((logit - max) / temperature), [V].
    pub(super) weights: Vec<f32>,
    /// Sums of `row::BLOCK` weights each.
    pub(super) block_sums: Vec<f64>,
    /// The largest logit of each chunk of `row::CHUNK`.
    pub(super) tops: Vec<f32>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) max_logit: f32,
    pub(super) temperature: f64,
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
        if logits.is_empty() {
            return Err(Error::NoLogits);
        }
        let tops = &mut self.tops;
        if !self.arch.dispatch(Tops { logits, tops }) {
            let mut row = logits.iter().copied().enumerate();
            if let Some((token, logit)) = row.find(|(_, logit)| !logit.is_finite()) {
                return Err(Error::NotFinite { token, logit });
            }
        }
        self.temperature = temperature;
        let max = self.tops.iter().copied().fold(f32::MIN, f32::max);
        self.weigh(logits, max);
        self.total = self.block_sums.iter().sum();
        Ok(())
    }

    /// Sets the weights relative to the logit `top`. Those of larger ones mean nothing.
    pub(super) fn weigh(&mut self, logits: &[f32], top: f32) {
        self.max_logit = top;
        self.arch.dispatch(Weigh {
            exponential: Exponential::new(top, self.temperature),
            logits,
            weights: &mut self.weights,
            block_sums: &mut self.block_sums,
        });
    }

    /// log pi of a token with this logit, in nats, at most 0 (but for rounding). Finite even where pi underflows.
    #[must_use]
    pub fn logprob(&self, logit: f32) -> f64 {
        (f64::from(logit) - f64::from(self.max_logit)) / self.temperature - self.total.ln()
    }

    /// - sum of pi log pi over the whole vocabulary, in nats. `logits` is the row that was loaded.
    #[must_use]
    pub fn full_entropy(&self, logits: &[f32]) -> f64 {
        (self.total.ln() - self.moment(logits, f32::MIN) / (self.total * self.temperature)).max(0.0)
    }

    /// The nucleus of mass `p` in (0, 1] and its entropies. `logits` is the row that was loaded; p >= 1 is the whole vocabulary.
    pub fn nucleus(&mut self, logits: &[f32], p: f64) -> Nucleus {
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
        let mut candidates = std::mem::take(&mut self.candidates);
        let (row, total) = (self.row(logits), self.total);
        let selection = row.select_mass(p * total, total, &mut candidates);
        let mut weight = selection.above.mass;
        let mut moment = if selection.above.size > 0 {
            self.moment(logits, selection.above.logit)
        } else {
            0.0
        };
        let mut last = f32::INFINITY;
        for candidate in &candidates[..selection.size] {
            let depth = f64::from(candidate.logit) - f64::from(self.max_logit);
            weight += f64::from(candidate.weight);
            moment += f64::from(candidate.weight) * depth;
            last = candidate.weight.min(last);
        }
        self.candidates = candidates;
        // log pi = (logit - max) / temperature - log total.
        let (mass, last) = (weight / self.total, f64::from(last) / self.total);
        let entropy_raw = mass * self.total.ln() - moment / (self.total * self.temperature);
        let size = selection.above.size + selection.size;
        let entropy_renormalised = if size == 1 {
            0.0
        } else {
            (entropy_raw / mass + mass.ln()).max(0.0)
        };
        Nucleus {
            size,
            mass,
            entropy_raw,
            entropy_renormalised,
            margin: (mass - p).min(p - (mass - last)).abs(),
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

    /// The loaded row as selections see it.
    pub(super) fn row<'a>(&'a self, logits: &'a [f32]) -> Row<'a> {
        Row {
            arch: self.arch,
            logits,
            weights: &self.weights,
            tops: &self.tops,
            top: self.max_logit,
            floor: Exponential::new(self.max_logit, self.temperature).floor(),
            temperature: self.temperature,
        }
    }

    /// Sets the weights to 0 but for the logits from `from` on and some `others`.
    pub(super) fn keep(&mut self, logits: &[f32], from: f32, others: &[Candidate]) {
        self.arch.dispatch(Keep {
            logits,
            weights: &mut self.weights,
            block_sums: &mut self.block_sums,
            from,
            others,
        });
    }

    /// The sum of weight * (logit - max) over the logits from `from` on.
    fn moment(&self, logits: &[f32], from: f32) -> f64 {
        let row = self.row(logits);
        self.arch.dispatch(Moment { row, from })
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "logits are f32")]
mod tests {
    use proptest::prelude::*;

    use super::super::uniform;
    use super::{Arch, Distribution, EntropyKind, Nucleus};

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
        // Rounded values give ties; the scale goes from flat to needle-sharp; the offset costs digits of the logits.
        let kinds = (
            0.01_f32..8.0,
            any::<bool>(),
            prop_oneof![Just(0.0_f32), -300.0_f32..300.0],
        );
        (1_usize..3000, kinds).prop_flat_map(|(len, (scale, ties, offset))| {
            prop::collection::vec(-4.0_f32..4.0, len).prop_map(move |row| {
                row.iter()
                    .map(|x| if ties { x.round() } else { *x } * scale + offset)
                    .collect()
            })
        })
    }

    /// Largest error of log-probabilities and entropies.
    const TOLERANCE: f64 = 1e-6;

    /// Compares with the definition in f64 what a distribution says of a row.
    fn check(row: &[f32], temperature: f64, p: f64) -> Result<(), TestCaseError> {
        let mut distribution = Distribution::new();
        distribution.load(row, temperature).unwrap();
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        let depths = row
            .iter()
            .map(|&l| (f64::from(l) - f64::from(max)) / temperature);
        let log_total = depths.clone().map(f64::exp).sum::<f64>().ln();
        let mut entropy = 0.0;
        for (&logit, depth) in row.iter().zip(depths) {
            let logprob = depth - log_total;
            entropy -= logprob * logprob.exp();
            prop_assert!((distribution.logprob(logit) - logprob).abs() < TOLERANCE);
        }
        prop_assert!((distribution.full_entropy(row) - entropy).abs() < TOLERANCE);
        let (ours, expected) = (distribution.nucleus(row, p), reference(row, temperature, p));
        // At the very edge another rounding of the weights is another set.
        if expected.margin > TOLERANCE {
            prop_assert_eq!(ours.size, expected.size);
            prop_assert!((ours.mass - expected.mass).abs() < TOLERANCE);
            prop_assert!((ours.entropy_raw - expected.entropy_raw).abs() < TOLERANCE);
            prop_assert!(
                (ours.entropy_renormalised - expected.entropy_renormalised).abs() < TOLERANCE
            );
            prop_assert!((ours.margin - expected.margin).abs() < TOLERANCE);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn statistics_equal_the_definition(row in rows(), p in 0.05_f64..0.999, temperature in 0.3_f64..2.0) {
            check(&row, temperature, p)?;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn statistics_of_a_whole_vocabulary(
            seed in any::<u64>(),
            scale in prop_oneof![Just(0.0_f32), 0.01_f32..0.1, 1.0_f32..8.0, 50.0_f32..500.0],
            ties in any::<bool>(),
            p in prop_oneof![Just(0.95), 0.3_f64..0.9999],
        ) {
            // Flat, equal, as of a language model, needle-sharp.
            let row: Vec<f32> = (0..151_936)
                .map(|id| {
                    let number = 8.0 * uniform(seed, id, 0, 0) as f32 - 4.0;
                    scale * if ties { number.round() } else { number }
                })
                .collect();
            check(&row, 1.0, p)?;
        }
    }

    /// Seeds give the same tokens on machines with other vectors.
    #[test]
    fn numbers_do_not_depend_on_the_width_of_vectors() {
        for scale in [0.5, 4.0] {
            let row: Vec<f32> = (0..5000)
                .map(|id| scale * (8.0 * uniform(3, id, 0, 0) as f32 - 4.0))
                .collect();
            let mut scalar = Distribution {
                arch: Arch::Scalar,
                ..Distribution::new()
            };
            let mut widest = Distribution::new();
            scalar.load(&row, 0.7).unwrap();
            widest.load(&row, 0.7).unwrap();
            assert_eq!(scalar.weights, widest.weights);
            assert_eq!(scalar.block_sums, widest.block_sums);
            for p in [0.3, 0.95, 1.0] {
                assert_eq!(scalar.nucleus(&row, p), widest.nucleus(&row, p));
            }
        }
    }

    /// Which tokens are in is exact: of equal logits those with the lower ids.
    #[test]
    fn a_wide_nucleus_takes_the_lower_ids_of_equals() {
        for (high, low) in [(1000, 20_000), (7, 3000), (1, 20_000)] {
            let row: Vec<f32> = (0..high + low)
                .map(|id| {
                    if id % 3 == 0 && id < 3 * high {
                        1.0
                    } else {
                        0.0
                    }
                })
                .collect();
            let mut distribution = Distribution::new();
            distribution.load(&row, 1.0).unwrap();
            let total = f64::from(high) + f64::from(low) * (-1.0_f64).exp();
            let p = (f64::from(high) + 100.5 * (-1.0_f64).exp()) / total;
            let mut candidates = vec![];
            let chosen = distribution
                .row(&row)
                .select_mass(p * total, total, &mut candidates);
            candidates.truncate(chosen.size);
            let listed = |id: u32| candidates.iter().any(|candidate| candidate.id == id);
            let mut zeros = 0;
            for (id, &logit) in (0_u32..).zip(&row) {
                let is_in = logit >= chosen.above.logit || listed(id);
                zeros += u32::from(logit == 0.0);
                assert_eq!(is_in, logit == 1.0 || zeros <= 101, "{id}");
            }
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
