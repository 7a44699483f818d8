//! Sixteen f32 at a time, as arrays: the compiler makes one AVX-512 or two AVX2 registers of them, where
//! `pulp` has turned those on. Fixed lanes give the same sums on every machine.
//!
//! Whatever is to run there is a [`pulp::NullaryFnOnce`] and `inline(always)` all the way down: code that stays a function of
//! its own (a closure handed to `map`, say) is compiled for the oldest machine, and its `mul_add` calls a library.

/// f32 that are worked on together.
pub(in crate::engine) const LANES: usize = 16;

/// Aligned as the widest register wants it.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(in crate::engine) struct Lanes(pub(super) [f32; LANES]);

impl Lanes {
    pub(super) const ZERO: Self = Self([0.0; LANES]);

    /// `self + a * b`, rounded once.
    #[inline(always)]
    pub(super) fn mul_add(self, a: f32, b: Self) -> Self {
        let mut sum = self.0;
        for (sum, b) in sum.iter_mut().zip(b.0) {
            *sum = a.mul_add(b, *sum);
        }
        Self(sum)
    }

    /// `self * factor`.
    #[inline(always)]
    pub(super) fn scale(self, factor: f32) -> Self {
        let mut product = self.0;
        for x in &mut product {
            *x *= factor;
        }
        Self(product)
    }

    /// Their sum, by halves.
    #[inline(always)]
    pub(super) fn sum(self) -> f32 {
        let mut x = self.0;
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                x[lane] += x[lane + width];
            }
            width /= 2;
        }
        x[0]
    }

    /// The largest.
    #[inline(always)]
    pub(super) fn max(self) -> f32 {
        let mut x = self.0;
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                x[lane] = if x[lane] > x[lane + width] {
                    x[lane]
                } else {
                    x[lane + width]
                };
            }
            width /= 2;
        }
        x[0]
    }

    /// [`exp`] of each.
    #[inline(always)]
    pub(super) fn exp(self) -> Self {
        let mut powers = self.0;
        for x in &mut powers {
            *x = exp(*x);
        }
        Self(powers)
    }
}

/// e^x for x <= 88, within 2 units in the last place; 0 below -87.7 (a masked score is minus infinity).
///
/// 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7 (error below 2^-27).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// 1.5 * 2^23: added, it leaves a whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4; // few bits: n * LN_2_HIGH is exact
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > -88.0 { x } else { -88.0 };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut p = 1.0 / 5040.0;
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = r.mul_add(p, c);
    }
    // The exponent field of 2^n: 0 for n = -127, which makes the product 0.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    p * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulps_and_zero_where_masked() {
        let mut worst = 0.0_f64;
        for step in 0..400_000 {
            let x = -87.0 + step as f32 * (175.0 / 400_000.0);
            let expected = f64::from(x).exp();
            let ulp = expected * f64::from(f32::EPSILON);
            worst = worst.max((f64::from(exp(x)) - expected).abs() / ulp);
        }
        assert!(worst < 2.0, "{worst}");
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn sums_and_maxima_see_every_lane() {
        for lane in 0..LANES {
            let mut lanes = Lanes([-1.0; LANES]);
            lanes.0[lane] = 5.0;
            assert_eq!(lanes.max(), 5.0);
            assert_eq!(lanes.sum(), 5.0 - 15.0);
        }
    }
}
