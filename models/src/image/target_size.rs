//! `smart_resize`: the size an image is resized to.

use crate::{Error, Result};

/// Longer side over shorter side; images beyond are refused, as Hugging Face does.
const MAX_ASPECT_RATIO: f64 = 200.0;

/// `(height, width)` in pixels: multiples of `factor`, area within `min_pixels..=max_pixels` as far as the factor allows,
/// aspect ratio kept as closely as possible. Halves are rounded to even, as Python rounds.
pub fn smart_resize(
    height: u32,
    width: u32,
    factor: u32,
    min_pixels: u64,
    max_pixels: u64,
) -> Result<(u32, u32)> {
    if height == 0 || width == 0 || factor == 0 {
        return Err(Error::Image(format!("has no pixels ({width}x{height})")));
    }
    let (rows, columns, side) = (f64::from(height), f64::from(width), f64::from(factor));
    let ratio = rows.max(columns) / rows.min(columns);
    if ratio > MAX_ASPECT_RATIO {
        return Err(Error::Image(format!(
            "{width}x{height} has an aspect ratio of {ratio:.1}, more than {MAX_ASPECT_RATIO}"
        )));
    }
    let round = |length: f64| (length / side).round_ties_even() * side;
    let (mut target_rows, mut target_columns) = (round(rows), round(columns));
    let (min_area, max_area) = (as_f64(min_pixels), as_f64(max_pixels));
    if target_rows * target_columns > max_area {
        let beta = (rows * columns / max_area).sqrt();
        let shrink = |length: f64| ((length / beta / side).floor() * side).max(side);
        (target_rows, target_columns) = (shrink(rows), shrink(columns));
    } else if target_rows * target_columns < min_area {
        let beta = (min_area / (rows * columns)).sqrt();
        let grow = |length: f64| (length * beta / side).ceil() * side;
        (target_rows, target_columns) = (grow(rows), grow(columns));
    }
    match (as_side(target_rows), as_side(target_columns)) {
        (Some(target_height), Some(target_width)) => Ok((target_height, target_width)),
        _ => Err(Error::Image(format!(
            "{width}x{height} cannot be resized to multiples of {factor} pixels"
        ))),
    }
}

/// Areas are far below 2^53.
#[allow(clippy::cast_precision_loss, reason = "areas are far below 2^53")]
fn as_f64(area: u64) -> f64 {
    area as f64
}

/// A side length that is positive and sane.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked first"
)]
fn as_side(length: f64) -> Option<u32> {
    (1.0..=f64::from(1u32 << 24))
        .contains(&length)
        .then_some(length as u32)
}
