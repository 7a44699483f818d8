//! Bytes of an image file to RGB pixels, turned upright. Bytes are not trusted: size and memory are bounded before
//! anything is decoded, and whatever goes wrong is an error.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{RgbImage, flatten, jpeg};
use crate::{Error, Result};

/// The longest side that is decoded, in pixels.
const MAX_SIDE: usize = 1 << 16;
/// Bytes per pixel that a decoder may allocate: four 16-bit channels, twice over, and room for its tables.
const MAX_BYTES_PER_PIXEL: u64 = 16;
const DECODER_TABLES_BYTES: u64 = 1 << 24;

/// Decodes an image of at most `max_pixels` pixels.
pub fn decode(bytes: &[u8], max_pixels: u64) -> Result<RgbImage> {
    // The decoders are other people's code; a panic in one costs this sample, not the run.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let (image, orientation) = if bytes.starts_with(&jpeg::MAGIC) {
            jpeg::decode(bytes, max_pixels)?
        } else {
            decode_other(bytes, max_pixels)?
        };
        turn(image, orientation)
    }));
    outcome.unwrap_or_else(|_| Err(Error::Image("corrupt file: its decoder gave up".to_owned())))
}

/// The declared size in pixels, refused when it is empty or too large to be decoded.
pub(super) fn check_size(width: usize, height: usize, max_pixels: u64) -> Result<(u32, u32)> {
    let (Ok(narrow_width), Ok(narrow_height)) = (u32::try_from(width), u32::try_from(height))
    else {
        return Err(Error::Image(format!(
            "{width}x{height} pixels is too large"
        )));
    };
    if width == 0 || height == 0 {
        return Err(Error::Image(format!("has no pixels ({width}x{height})")));
    }
    if width > MAX_SIDE
        || height > MAX_SIDE
        || u64::from(narrow_width) * u64::from(narrow_height) > max_pixels
    {
        return Err(Error::Image(format!(
            "{width}x{height} pixels is too large: at most {max_pixels} pixels and {MAX_SIDE} per side are decoded"
        )));
    }
    Ok((narrow_width, narrow_height))
}

fn decode_other(bytes: &[u8], max_pixels: u64) -> Result<(RgbImage, Orientation)> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|cause| Error::Image(format!("unreadable: {cause}")))?;
    let Some(format) = reader.format() else {
        return Err(Error::Image("not an image file of a known kind".to_owned()));
    };
    let mut limits = Limits::no_limits();
    let max_side = u32::try_from(MAX_SIDE).unwrap_or(u32::MAX);
    (limits.max_image_width, limits.max_image_height) = (Some(max_side), Some(max_side));
    limits.max_alloc = Some(
        max_pixels
            .saturating_mul(MAX_BYTES_PER_PIXEL)
            .saturating_add(DECODER_TABLES_BYTES),
    );
    reader.limits(limits);
    let corrupt =
        |cause: image::ImageError| Error::Image(format!("corrupt {format:?} file: {cause}"));
    let mut decoder = reader.into_decoder().map_err(corrupt)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = check_size(width as usize, height as usize, max_pixels)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(corrupt)?;
    let png_layout = if format == ImageFormat::Png {
        PngLayout::read(bytes)
    } else {
        None
    };
    Ok((
        RgbImage {
            width,
            height,
            pixels: to_rgb(decoded, png_layout),
        },
        orientation,
    ))
}

/// How a PNG file stores its samples: what the decoder's output no longer tells.
#[derive(Clone, Copy)]
struct PngLayout {
    bits: u8,
    is_grey: bool,
}

impl PngLayout {
    /// From the fixed places of the first chunk.
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            bits: *bytes.get(24)?,
            is_grey: *bytes.get(25)? == 0,
        })
    }
}

/// `[H, W, 3]`, as PIL's conversions and `alpha_composite` on white give it.
fn to_rgb(decoded: DynamicImage, png: Option<PngLayout>) -> Vec<u8> {
    let grey_bits = png
        .filter(|layout| layout.is_grey)
        .map(|layout| layout.bits);
    match decoded {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => flatten::rgb_alpha(&image),
        DynamicImage::ImageLuma8(image) => flatten::grey(&image),
        DynamicImage::ImageLumaA8(mut image) => {
            if matches!(grey_bits, Some(2 | 4)) {
                // PIL compares the transparent level, unscaled, with scaled samples: only level 0 ever matches.
                for pixel in image.pixels_mut().filter(|pixel| pixel.0[0] != 0) {
                    pixel.0[1] = u8::MAX;
                }
            }
            flatten::grey_alpha(&image)
        }
        DynamicImage::ImageLuma16(image) => flatten::grey16(&image),
        DynamicImage::ImageLumaA16(image) if grey_bits.is_some() => flatten::grey16_alpha(&image),
        DynamicImage::ImageLumaA16(image) => flatten::grey_alpha(&flatten::high_bytes(&image)),
        DynamicImage::ImageRgb16(image) => flatten::high_bytes(&image),
        DynamicImage::ImageRgba16(image) => flatten::rgb_alpha(&flatten::high_bytes(&image)),
        other => flatten::rgb_alpha(&other.into_rgba8()),
    }
}

/// Applies an EXIF orientation.
fn turn(image: RgbImage, orientation: Orientation) -> Result<RgbImage> {
    if orientation == Orientation::NoTransforms {
        return Ok(image);
    }
    let RgbImage {
        width,
        height,
        pixels,
    } = image;
    let buffer = image::RgbImage::from_raw(width, height, pixels)
        .ok_or_else(|| Error::Image(format!("{width}x{height} with a wrong number of samples")))?;
    let mut turned = DynamicImage::ImageRgb8(buffer);
    turned.apply_orientation(orientation);
    let turned = turned.into_rgb8();
    Ok(RgbImage {
        width: turned.width(),
        height: turned.height(),
        pixels: turned.into_raw(),
    })
}
