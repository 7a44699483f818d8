//! PIL's bicubic resize (`a = -0.5`, widened when shrinking), bit for bit: two passes, coefficients in 22-bit fixed
//! point, each pass rounded and clamped to 8 bits.

use super::RgbImage;
use crate::{Error, Result};

/// Samples per pixel.
const CHANNELS: usize = 3;
/// Fraction bits of a coefficient: 32, less 8 for the sample, less 2 for sums beyond one.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Half of one, so that the shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);
/// Reach of the bicubic kernel in units of its scale.
const SUPPORT: f64 = 2.0;

/// `image` at `width` x `height` pixels.
pub fn resize(image: &RgbImage, width: u32, height: u32) -> Result<RgbImage> {
    let (source_width, source_height) = (image.width as usize, image.height as usize);
    let samples = source_width
        .checked_mul(source_height)
        .and_then(|area| area.checked_mul(CHANNELS));
    if samples != Some(image.pixels.len()) || image.pixels.is_empty() || width == 0 || height == 0 {
        return Err(Error::Image(format!(
            "cannot resize {}x{} with {} samples to {width}x{height}",
            image.width,
            image.height,
            image.pixels.len()
        )));
    }
    let across = |pixels: Vec<u8>| match width == image.width {
        true => pixels,
        false => horizontal(
            &pixels,
            source_width,
            &Taps::new(source_width, width as usize),
        ),
    };
    let down = |pixels: Vec<u8>, width: u32| match height == image.height {
        true => pixels,
        false => vertical(
            &pixels,
            width as usize * CHANNELS,
            &Taps::new(source_height, height as usize),
        ),
    };
    let pixels = image.pixels.clone();
    let pixels = match is_vertical_first(image, width, height) {
        true => across(down(pixels, image.width)),
        false => down(across(pixels), width),
    };
    Ok(RgbImage {
        width,
        height,
        pixels,
    })
}

/// The order of the passes shows in the last bits. PIL (since 13) goes vertically first when the height loses more than
/// twice what the width loses.
fn is_vertical_first(image: &RgbImage, width: u32, height: u32) -> bool {
    let height_loss = i64::from(image.height) - i64::from(height);
    let width_loss = i64::from(image.width) - i64::from(width);
    height_loss > 0 && height_loss > 2 * width_loss
}

/// For each output position: the first input position it reads, and the coefficients from there on.
struct Taps {
    spans: Vec<Span>,
    coefficients: Vec<i32>,
}

/// A run of input positions and where their coefficients lie.
struct Span {
    start: usize,
    length: usize,
    offset: usize,
}

impl Taps {
    /// Coefficients from `source` to `target` positions.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positions are pixels of an image, non-negative and far below 2^32; truncation is PIL's"
    )]
    fn new(source: usize, target: usize) -> Self {
        let scale = source as f64 / target as f64;
        let filter_scale = scale.max(1.0);
        let support = SUPPORT * filter_scale;
        let per_unit = 1.0 / filter_scale;
        let mut taps = Self {
            spans: Vec::with_capacity(target),
            coefficients: Vec::new(),
        };
        let mut weights = Vec::new();
        for position in 0..target {
            let center = (position as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(source);
            weights.clear();
            weights.extend((start..end).map(|at| kernel((at as f64 - center + 0.5) * per_unit)));
            let sum: f64 = weights.iter().sum();
            let offset = taps.coefficients.len();
            taps.coefficients.extend(weights.iter().map(|weight| {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                fixed_point(weight)
            }));
            taps.spans.push(Span {
                start,
                length: weights.len(),
                offset,
            });
        }
        taps
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans.iter().map(|span| {
            (
                span.start,
                &self.coefficients[span.offset..span.offset + span.length],
            )
        })
    }
}

/// The bicubic kernel, `a = -0.5`, in PIL's order of operations.
fn kernel(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Rounds half away from zero by adding a half and truncating, as PIL does.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a normalised weight is about one at most; truncation is the rounding"
)]
fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << PRECISION_BITS);
    if weight < 0.0 {
        (scaled - 0.5) as i32
    } else {
        (scaled + 0.5) as i32
    }
}

/// Back to 8 bits.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=255"
)]
fn clip8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// `[H, W, 3]` to `[H, taps, 3]`.
fn horizontal(pixels: &[u8], width: usize, taps: &Taps) -> Vec<u8> {
    let mut out = Vec::with_capacity(pixels.len() / width * taps.spans.len());
    for row in pixels.chunks_exact(width * CHANNELS) {
        for (start, coefficients) in taps.iter() {
            let mut sum = [HALF; CHANNELS];
            let window = row[start * CHANNELS..].chunks_exact(CHANNELS);
            for (pixel, &coefficient) in window.zip(coefficients) {
                for (channel, &sample) in pixel.iter().enumerate() {
                    sum[channel] =
                        sum[channel].wrapping_add(coefficient.wrapping_mul(i32::from(sample)));
                }
            }
            out.extend(sum.map(clip8));
        }
    }
    out
}

/// `[H, stride]` to `[taps, stride]`; whole rows at a time, so that the inner loop is one multiply-add per lane.
fn vertical(pixels: &[u8], stride: usize, taps: &Taps) -> Vec<u8> {
    let mut out = Vec::with_capacity(taps.spans.len() * stride);
    let mut sums = vec![HALF; stride];
    for (start, coefficients) in taps.iter() {
        sums.fill(HALF);
        for (row, &coefficient) in pixels[start * stride..]
            .chunks_exact(stride)
            .zip(coefficients)
        {
            for (sum, &sample) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(coefficient.wrapping_mul(i32::from(sample)));
            }
        }
        out.extend(sums.iter().map(|&sum| clip8(sum)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_image_stays_flat() {
        let image = RgbImage {
            width: 13,
            height: 7,
            pixels: [200, 3, 255].repeat(13 * 7),
        };
        for (width, height) in [(1, 1), (28, 28), (13, 7), (5, 40), (300, 2)] {
            let resized = resize(&image, width, height).unwrap();
            assert_eq!(
                resized.pixels,
                [200, 3, 255].repeat((width * height) as usize)
            );
        }
    }

    #[test]
    fn a_wrong_number_of_samples_is_an_error() {
        let image = RgbImage {
            width: 2,
            height: 2,
            pixels: vec![0; 11],
        };
        assert!(resize(&image, 4, 4).is_err());
        let empty = RgbImage {
            width: 0,
            height: 0,
            pixels: Vec::new(),
        };
        assert!(resize(&empty, 4, 4).is_err());
    }
}
