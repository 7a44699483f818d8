//! Rows in 8 bits, of activations and of weights.
//!
//! `// T tokens, I in`

use pulp::NullaryFnOnce;

/// What stands for 0 in a row of activations.
pub(in crate::engine) const MIDDLE: u8 = 128;
/// Largest distance from zero.
const LARGEST: f32 = 127.0;
/// 1.5 * 2^23: added, it rounds half to even and leaves the integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// What a row must be multiplied with to fill the range: 127 / largest; and what gives it back. A row of zeros has 0 and 0;
/// one that is not finite gives back what is not finite either, so that it is found out.
#[inline(always)]
fn scales(row: &[f32]) -> (f32, f32) {
    let (mut largest, mut poison) = ([0.0_f32; 16], [0.0_f32; 16]);
    let chunks = row.chunks_exact(16);
    for (lane, &x) in chunks.remainder().iter().enumerate() {
        largest[lane] = x.abs();
        poison[lane] = x * 0.0;
    }
    for chunk in chunks {
        for lane in 0..16 {
            let x = chunk[lane];
            let size = x.abs();
            largest[lane] = if size > largest[lane] {
                size
            } else {
                largest[lane]
            };
            poison[lane] += x * 0.0;
        }
    }
    let poison: f32 = poison.iter().sum(); // 0, or not a number
    let largest = largest
        .iter()
        .fold(0.0_f32, |a, &b| if b > a { b } else { a });
    if largest > 0.0 {
        (LARGEST / largest, largest / LARGEST + poison)
    } else {
        (0.0, poison)
    }
}

/// The whole number nearest to `x`, |x| <= 127, in the low byte.
#[inline(always)]
fn nearest(x: f32) -> u8 {
    let [low, ..] = (x + ROUND).to_bits().to_le_bytes();
    low
}

/// Rows of x f32 `[T, I]` to integers around `middle` and the scale of each row: u8 around [`MIDDLE`] for activations, i8
/// around 0 (in two's complement) for the output channels of a weight.
pub(in crate::engine) struct QuantizeRows<'a> {
    pub(in crate::engine) x: &'a [f32],
    pub(in crate::engine) integers: &'a mut [u8],
    pub(in crate::engine) scales: &'a mut [f32],
    /// I.
    pub(in crate::engine) width: usize,
    /// What stands for 0.
    pub(in crate::engine) middle: u8,
}

impl NullaryFnOnce for QuantizeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let rows = self.x.chunks_exact(self.width);
        let integers = self.integers.chunks_exact_mut(self.width);
        for ((row, integers), scale) in rows.zip(integers).zip(self.scales) {
            let (inverse, back) = scales(row);
            *scale = back;
            for (integer, &x) in integers.iter_mut().zip(row) {
                *integer = nearest(x * inverse).wrapping_add(self.middle);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_within_half_a_step_and_do_not_depend_on_each_other() {
        let width = 37;
        let x: Vec<f32> = (0..3 * width)
            .map(|index| ((index * 7919 % 101) as f32 - 50.0) * [0.01, 3.0, 0.0][index / width])
            .collect();
        let (mut integers, mut scales) = (vec![0; x.len()], vec![9.0; 3]);
        QuantizeRows {
            x: &x,
            integers: &mut integers,
            scales: &mut scales,
            width,
            middle: MIDDLE,
        }
        .call();
        assert_eq!(scales[2], 0.0);
        for (index, (&x, &integer)) in x.iter().zip(&integers).enumerate() {
            let scale = scales[index / width];
            let back = (f32::from(integer) - 128.0) * scale;
            assert!(
                (back - x).abs() <= 0.5001 * scale,
                "{index}: {back} for {x}"
            );
        }
        let (mut alone, mut scale) = (vec![0; width], [0.0]);
        QuantizeRows {
            x: &x[width..2 * width],
            integers: &mut alone,
            scales: &mut scale,
            width,
            middle: MIDDLE,
        }
        .call();
        assert_eq!(
            (&alone[..], scale[0]),
            (&integers[width..2 * width], scales[1])
        );
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 20] {
                let mut x = [1.0; 21];
                x[at] = bad;
                assert!(!scales(&x).1.is_finite(), "{bad} at {at}");
            }
        }
    }

    #[test]
    fn weights_are_symmetric() {
        let weight = [-2.0, 1.0, 0.0, 2.0, 0.5, -0.25];
        let (mut integers, mut scales) = ([0; 6], [0.0; 2]);
        QuantizeRows {
            x: &weight,
            integers: &mut integers,
            scales: &mut scales,
            width: 3,
            middle: 0,
        }
        .call();
        let integers: Vec<i8> = integers.iter().map(|&byte| byte.cast_signed()).collect();
        assert_eq!(integers, [-127, 64, 0, 127, 32, -16]);
        assert_eq!(scales, [2.0 / 127.0; 2]);
    }
}
