//! exp((logit - top) / temperature) in f32, written so that the compiler makes vectors of it.
//!
//! logit * k - top * k, with k = log2(e) / temperature, is 2's exponent. Its integer part becomes the exponent bits; the
//! fraction is found by a fused multiply-add whose terms cancel exactly, so neither the subtraction of large logits nor
//! a rounded 1 / temperature costs any precision: the weights are right to about one unit in the last place.

use std::f64::consts::{LN_2, LOG2_E};

/// Weights below 2^-124 of the top one are 0: far below what an f64 sum of a vocabulary of them can hold.
const SMALLEST_EXPONENT: f64 = -124.0;
/// Adding 1.5 * 2^23 rounds an f32 to an integer, which then stands in its low bits.
const ROUNDER: f32 = 12_582_912.0;
/// 2^r for |r| <= 0.502, relative error 3e-9 before rounding: the factors of r^1, r^2, ... (a minimax fit).
const POLYNOMIAL: [f32; 6] = [
    std::f32::consts::LN_2,
    0.240_226_53,
    0.055_503_09,
    0.009_617_686,
    0.001_340_725_8,
    0.000_155_962_94,
];

/// The weight of a logit, relative to that of the logit `top`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exponential {
    top: f64,
    inverse_temperature: f64,
    /// The logit from which on weights are above 0.
    floor: f32,
    /// k, as the sum of two f32.
    k: f32,
    k_rest: f32,
    /// top * k, as the sum of two; the first is so coarse that any integer exponent can be added to it exactly.
    shift: f32,
    shift_rest: f32,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers are split into f32 parts on purpose"
)]
impl Exponential {
    /// For logits up to `top` at `temperature` > 0.
    pub(super) fn new(top: f32, temperature: f64) -> Self {
        let k = LOG2_E / temperature;
        let (top, shift) = (f64::from(top), f64::from(top) * k);
        // A multiple of `quantum` below 2^24 quanta is an f32.
        let quantum = (shift.abs().max(512.0).log2().floor() - 22.0).exp2();
        let coarse = (shift / quantum).round() * quantum;
        Self {
            top,
            inverse_temperature: 1.0 / temperature,
            floor: (top + SMALLEST_EXPONENT * LN_2 * temperature) as f32,
            k: k as f32,
            k_rest: (k - f64::from(k as f32)) as f32,
            shift: coarse as f32,
            shift_rest: (shift - coarse) as f32,
        }
    }

    /// Weights are 0 up to this logit.
    pub(super) fn floor(&self) -> f32 {
        self.floor
    }

    /// Whether [`Self::vectored`] is exact enough: not for logits of thousands or odd temperatures, of which no model has
    /// any; [`Self::plain`] takes those.
    pub(super) fn is_ordinary(&self) -> bool {
        self.shift.abs() < 16_384.0 && (1e-3..1e3).contains(&self.k)
    }

    /// The weight in f64 arithmetic, for any finite logit.
    pub(super) fn plain(&self, logit: f32) -> f32 {
        if logit > self.floor {
            ((f64::from(logit) - self.top) * self.inverse_temperature).exp() as f32
        } else {
            0.0
        }
    }

    /// The weight, at most about 1 for logits up to `top`; any number at all for larger ones. No branch, no table.
    #[inline(always)]
    pub(super) fn vectored(&self, logit: f32) -> f32 {
        let clamped = if logit > self.floor {
            logit
        } else {
            self.floor
        };
        let rounded = clamped.mul_add(self.k, -self.shift) + ROUNDER;
        let integer = rounded - ROUNDER;
        let fraction = clamped.mul_add(self.k, -(self.shift + integer))
            + clamped.mul_add(self.k_rest, -self.shift_rest);
        let [c1, c2, c3, c4, c5, c6] = POLYNOMIAL;
        let mut power = c6.mul_add(fraction, c5);
        power = power.mul_add(fraction, c4);
        power = power.mul_add(fraction, c3);
        power = power.mul_add(fraction, c2);
        power = power.mul_add(fraction, c1);
        power = power.mul_add(fraction, 1.0);
        let weight = f32::from_bits(power.to_bits().wrapping_add(rounded.to_bits() << 23));
        if logit > self.floor { weight } else { 0.0 }
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "logits are f32")]
mod tests {
    use proptest::prelude::*;

    use super::Exponential;

    proptest! {
        #[test]
        fn weights_are_right_to_an_ulp(
            top in prop_oneof![-40.0_f32..40.0, -2000.0_f32..2000.0],
            temperature in prop_oneof![Just(1.0), 0.3_f64..3.0],
            depths in prop::collection::vec(0.0_f64..80.0, 200),
        ) {
            let exponential = Exponential::new(top, temperature);
            prop_assert!(exponential.is_ordinary());
            for depth in depths {
                let logit = (f64::from(top) - depth * temperature) as f32;
                let expected = ((f64::from(logit) - f64::from(top)) / temperature).exp();
                let error = (f64::from(exponential.vectored(logit)) - expected).abs() / expected;
                prop_assert!(error < 1.3e-7, "{} below {} at {}: {}", depth, top, temperature, error);
                prop_assert!((f64::from(exponential.plain(logit)) - expected).abs() < 1e-7 * expected);
            }
        }
    }

    #[test]
    fn far_below_the_top_is_zero() {
        let exponential = Exponential::new(10.0, 0.5);
        for logit in [-40.0, -1e9, f32::MIN] {
            assert_eq!(exponential.vectored(logit), 0.0);
            assert_eq!(exponential.plain(logit), 0.0);
        }
        assert!(exponential.vectored(-30.0) > 0.0);
        for (top, temperature) in [(f32::MAX, 1.0), (3e4, 1.0), (1.0, 1e-30), (1.0, 1e30)] {
            assert!(
                !Exponential::new(top, temperature).is_ordinary(),
                "{top} {temperature}"
            );
        }
    }
}
