//! The narrowing conversions of the crate, each with its reason.

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
