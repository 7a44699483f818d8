//! A resized image to normalised patches, in the order of Hugging Face's processor.

// C channels, T frames per patch, P patch side, M merge side, N patches

use super::settings::ImageSettings;
use super::{Grid, Patches, RgbImage};
use crate::{Error, Result};

const CHANNELS: usize = 3;

/// The normalised value of every 8-bit level, per channel: `(level * rescale_factor - mean) / std`.
#[derive(Debug, Clone)]
pub struct Levels([Vec<f32>; CHANNELS]);

impl Levels {
    /// Computed as Hugging Face does: the product in f64, rounded to f32, the rest in f32.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is what the reference does"
    )]
    pub fn new(settings: &ImageSettings) -> Self {
        Self(std::array::from_fn(|channel| {
            let (mean, std) = (settings.mean[channel] as f32, settings.std[channel] as f32);
            (0..=u8::MAX)
                .map(|level| ((f64::from(level) * settings.rescale_factor) as f32 - mean) / std)
                .collect()
        }))
    }
}

/// `[H, W, C]` to `[N, C * T * P * P]`. Patches go merge block by merge block (rows of blocks, then columns), within a
/// block row by row; the frames of a patch are copies of each other.
pub fn cut(image: &RgbImage, settings: &ImageSettings, levels: &Levels) -> Result<Patches> {
    let (side, merge, frames) = (
        settings.patch_size,
        settings.merge_size,
        settings.temporal_patch_size,
    );
    let (width, height) = (image.width as usize, image.height as usize);
    let factor = side * merge;
    let is_whole = factor > 0 && width.is_multiple_of(factor) && height.is_multiple_of(factor);
    if !is_whole || width * height == 0 || image.pixels.len() != width * height * CHANNELS {
        return Err(Error::Image(format!(
            "{width}x{height} with {} samples cannot be cut into patches: resize it to multiples of {factor} pixels first",
            image.pixels.len()
        )));
    }
    let grid = Grid {
        t: 1,
        h: height / side,
        w: width / side,
    };
    let mut values = Vec::with_capacity(grid.num_patches() * CHANNELS * frames * side * side);
    for block_row in 0..grid.h / merge {
        for block_column in 0..grid.w / merge {
            for within in 0..merge * merge {
                let top = (block_row * merge + within / merge) * side;
                let left = (block_column * merge + within % merge) * side;
                for (channel, level) in levels.0.iter().enumerate() {
                    let first_frame = values.len();
                    for y in top..top + side {
                        let start = (y * width + left) * CHANNELS;
                        let row = &image.pixels[start..start + side * CHANNELS];
                        values.extend(
                            row.iter()
                                .skip(channel)
                                .step_by(CHANNELS)
                                .map(|&at| level[usize::from(at)]),
                        );
                    }
                    for _ in 1..frames {
                        values.extend_from_within(first_frame..first_frame + side * side);
                    }
                }
            }
        }
    }
    Ok(Patches { values, grid })
}
