//! JPEG to the very pixels of PIL, which decodes with libjpeg-turbo: the same integer inverse transform, chroma
//! interpolation and colour arithmetic. Baseline, extended and progressive files with Huffman codes; 8 bits; grey, YCbCr,
//! RGB, CMYK, YCCK.
//!
//! # Layout
//!
//! | module | what it does |
//! |---|---|
//! | `frame` | the frame's size, its components and their planes |
//! | `segments` | markers and tables, scan by scan |
//! | `huffman` | codes to symbols, bit by bit |
//! | `scan` | one scan's coefficients |
//! | `idct` | 8x8 coefficients to samples |
//! | `upsample` | chroma rows at full width |

mod frame;
mod huffman;
mod idct;
mod scan;
mod segments;
mod upsample;

use image::metadata::Orientation;

use super::{RgbImage, flatten};
use crate::{Error, Result};
use frame::Frame;
use segments::Segments;

/// First bytes of every JPEG file.
pub(super) const MAGIC: [u8; 2] = [0xFF, 0xD8];

/// How a file's components make a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ColorSpace {
    Grey,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

/// Decodes to RGB, not yet turned, and the turn that its EXIF block asks for.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<(RgbImage, Orientation)> {
    let file = Segments::read(bytes, max_pixels)?;
    let space = file.color_space()?;
    let orientation = file
        .exif
        .and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms);
    let frame = file.frame;
    Ok((
        RgbImage {
            width: frame.width,
            height: frame.height,
            pixels: to_rgb(&frame, space),
        },
        orientation,
    ))
}

/// `[H, W, 3]`, row by row.
fn to_rgb(frame: &Frame, space: ColorSpace) -> Vec<u8> {
    let (width, height) = (frame.width as usize, frame.height as usize);
    let channels = frame.components.len();
    let mut pixels = Vec::with_capacity(width * height * 3);
    let mut row = Vec::new(); // one component
    let mut samples = vec![0; width * channels]; // all of them, interleaved
    for y in 0..height {
        for (channel, component) in frame.components.iter().enumerate() {
            upsample::row(component, y, &mut row);
            let cells = samples.iter_mut().skip(channel).step_by(channels);
            cells.zip(&row).for_each(|(cell, &sample)| *cell = sample);
        }
        match space {
            ColorSpace::Grey => pixels.extend(flatten::grey(&samples)),
            ColorSpace::Rgb => pixels.extend_from_slice(&samples),
            ColorSpace::YCbCr => pixels.extend(flatten::ycc(&samples)),
            ColorSpace::Cmyk => pixels.extend(flatten::inverted_cmyk(&samples)),
            ColorSpace::Ycck => pixels.extend(flatten::ycck(&samples)),
        }
    }
    pixels
}

/// A damaged file.
fn corrupt(what: &str) -> Error {
    Error::Image(format!("corrupt JPEG: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = include_bytes!("../../../tests/data/images/rgb444.jpg");

    fn message(bytes: &[u8]) -> String {
        decode(bytes, 1 << 20).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn a_thumbnails_end_marker_is_not_the_images() {
        let thumbnail = [0xFF, 0xE1, 0, 6, 0xFF, 0xD8, 0xFF, 0xD9];
        let whole = [&FILE[..2], &thumbnail, &FILE[2..]].concat();
        assert!(decode(&whole, 1 << 20).is_ok());
        assert!(message(&whole[..whole.len() - 2]).contains("no end marker"));
    }

    #[test]
    fn a_scan_that_stops_early_leaves_the_rest_grey() {
        let scan = FILE.windows(2).position(|pair| pair == [0xFF, 0xDA]);
        let cut = [&FILE[..scan.unwrap() + 40], &[0xFF, 0xD9]].concat();
        let (image, _) = decode(&cut, 1 << 20).unwrap();
        assert!(image.pixels.ends_with(&[128; 3]) && !image.pixels.starts_with(&[128; 3]));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let frame = FILE.windows(2).position(|pair| pair == [0xFF, 0xC0]);
        let frame = frame.unwrap();
        for (place, value, word) in [
            (1, 0xC9, "arithmetically coded"),
            (4, 12, "12 bits"),
            (9, 2, "2 components"),
            (11, 0x01, "factors"),
        ] {
            let mut bytes = FILE.to_vec();
            bytes[frame + place] = value;
            let message = message(&bytes);
            assert!(
                message.contains(word) && !message.contains('\n'),
                "{message}"
            );
        }
    }
}
