//! JPEG: components out of the decoder, colour by libjpeg's and PIL's arithmetic.

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{RgbImage, decode, flatten};
use crate::{Error, Result};

/// First bytes of every JPEG file.
pub(super) const MAGIC: [u8; 2] = [0xFF, 0xD8];
/// Last bytes of every whole one.
const END: [u8; 2] = [0xFF, 0xD9];
/// Bound on progressive scans: each one walks the whole image again.
const MAX_SCANS: usize = 100;

/// Decodes to RGB, not yet turned, and the turn that its EXIF block asks for.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<(RgbImage, Orientation)> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_max_scans(MAX_SCANS);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(corrupt)?;
    let (Some((width, height)), Some(space)) = (decoder.dimensions(), decoder.input_colorspace())
    else {
        return Err(Error::Image("JPEG without a size".to_owned()));
    };
    let (width, height) = decode::check_size(width, height, max_pixels)?;
    // The decoder fills what a cut file lacks with grey; PIL refuses such a file, and so do we.
    if !has_end(bytes) {
        return Err(Error::Image("JPEG is cut short: no end marker".to_owned()));
    }
    // Asking for the components as they are leaves the colour arithmetic to us.
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let orientation = decoder
        .exif()
        .and_then(|exif| Orientation::from_exif_chunk(exif))
        .unwrap_or(Orientation::NoTransforms);
    let samples = decoder.decode().map_err(corrupt)?;
    let pixels = match space {
        ColorSpace::Luma => flatten::grey(&samples),
        ColorSpace::RGB => samples,
        ColorSpace::YCbCr => flatten::ycc(&samples),
        ColorSpace::CMYK => flatten::inverted_cmyk(&samples),
        ColorSpace::YCCK => flatten::ycck(&samples),
        other => {
            return Err(Error::Image(format!(
                "JPEG with components {other:?} is not supported"
            )));
        }
    };
    Ok((
        RgbImage {
            width,
            height,
            pixels,
        },
        orientation,
    ))
}

/// Whether the end marker follows the first scan. Before it stand segments of a stated length: the thumbnail in a camera's
/// EXIF segment has an end marker of its own.
fn has_end(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    let mut rest = bytes.get(2..).unwrap_or_default(); // behind the start marker
    loop {
        match *rest {
            [0xFF, START_OF_SCAN, ..] => return rest.windows(2).rev().any(|pair| pair == END),
            [0xFF, 0xFF, ..] => rest = &rest[1..], // fill byte
            [0xFF, _, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                rest = rest.get(2 + length..).unwrap_or_default();
            }
            _ => return false,
        }
    }
}

/// One line of what the decoder says.
fn corrupt(cause: zune_jpeg::errors::DecodeErrors) -> Error {
    let text = cause.to_string();
    Error::Image(format!(
        "corrupt JPEG: {}",
        text.lines().next().unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::has_end;

    #[test]
    fn a_thumbnails_end_marker_is_not_the_images() {
        let thumbnail = [0xFF, 0xE1, 0, 6, 0xFF, 0xD8, 0xFF, 0xD9];
        let scan = [0xFF, 0xDA, 0, 2, 1, 2, 3];
        let cut: Vec<u8> = [&[0xFF, 0xD8][..], &thumbnail, &scan].concat();
        assert!(!has_end(&cut));
        assert!(has_end(&[&cut[..], &[0xFF, 0xD9]].concat()));
        assert!(!has_end(&cut[..5]) && !has_end(&[]));
    }
}
