//! Small arithmetic of the crate: narrowing conversions, each with its reason, and a maximum that keeps NaN.

/// f64 -> f32, rounding: the precision that the network works in.
#[allow(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the intent"
)]
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

/// The lower 32 bits.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is asked for"
)]
pub(crate) fn low_half(value: u64) -> u32 {
    value as u32
}

/// A whole number that is known to be between 0 and the length of something.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole and between 0 and a length"
)]
pub(crate) fn whole(value: f64) -> usize {
    value as usize
}

/// The larger number; a NaN on either side stays, where `f64::max` would drop it.
pub(crate) fn max_or_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}
