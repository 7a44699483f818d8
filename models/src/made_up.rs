//! Groups of a given shape for measurements: random tokens around an image of noise.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueHint};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::image::{Grid, RgbImage};
use crate::processor::{Processor, Prompt};
use crate::{Error, Result};

/// Longest side of an image.
const MAX_SIDE: u32 = 1 << 14;

/// What a bench is measured on: a checkpoint, and groups made up for it.
#[derive(Args, Debug, Clone)]
pub struct Shape {
    /// Hugging Face folder
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, default_value = "models/geo-mini/model")]
    pub model: PathBuf,

    /// Prompts of a round
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count)]
    pub prompts: usize,

    /// Responses per prompt
    #[arg(long, value_name = "G", default_value_t = 8, value_parser = count)]
    pub group_size: usize,

    /// Tokens of each response
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = count)]
    pub new_tokens: usize,

    /// Size of each prompt's image in pixels; none = text only
    #[arg(long, value_name = "WxH", default_value = "224x224")]
    pub image: ImageSize,

    /// Text tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = count)]
    pub prompt_tokens: usize,

    /// Compute threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = count)]
    pub threads: Option<usize>,

    /// Rounds; the table shows medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count)]
    pub rounds: usize,

    /// Seed of what is made up
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Write everything to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
}

/// A number of at least 1, for the command line.
///
/// # Errors
/// Anything else, in words.
pub fn count(text: &str) -> std::result::Result<usize, String> {
    text.parse::<usize>()
        .ok()
        .filter(|count| (1..=1 << 20).contains(count))
        .ok_or_else(|| "expected a whole number from 1 to 1048576".to_owned())
}

/// An image's size in pixels; 0 x 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageSize {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl ImageSize {
    /// No image.
    pub const NONE: Self = Self {
        width: 0,
        height: 0,
    };
}

impl FromStr for ImageSize {
    type Err = String;

    /// `224x224`, or `none`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "none" {
            return Ok(Self::NONE);
        }
        let side = |text: &str| {
            let side = text.parse::<u32>().ok();
            side.filter(|side| (1..=MAX_SIDE).contains(side))
        };
        let sides = text.split_once('x');
        sides
            .and_then(|(width, height)| {
                Some(Self {
                    width: side(width)?,
                    height: side(height)?,
                })
            })
            .ok_or_else(|| "expected WIDTHxHEIGHT in pixels, such as 224x224, or none".to_owned())
    }
}

/// `count` tokens that stand for nothing else than text.
///
/// # Errors
/// A tokenizer without such tokens.
pub fn text(rng: &mut ChaCha8Rng, processor: &Processor, count: usize) -> Result<Vec<u32>> {
    let tokens = &processor.config.tokens;
    let special: Vec<u32> = tokens
        .banned()
        .into_iter()
        .chain(tokens.eos.clone())
        .collect();
    let num_ids = u32::try_from(processor.tokenizer.num_ids()).unwrap_or(u32::MAX);
    let plain: Vec<u32> = (0..num_ids).filter(|id| !special.contains(id)).collect();
    if plain.is_empty() {
        return Err(Error::Prompt(
            "the tokenizer has no tokens of text".to_owned(),
        ));
    }
    Ok((0..count)
        .map(|_| plain[rng.next_u32() as usize % plain.len()])
        .collect())
}

/// Noise, resized as the processor resizes images of that size; none for [`ImageSize::NONE`].
///
/// # Errors
/// A size that the processor refuses.
pub fn noise(
    rng: &mut ChaCha8Rng,
    processor: &Processor,
    size: ImageSize,
) -> Result<Option<RgbImage>> {
    let ImageSize { width, height } = size;
    if size == ImageSize::NONE {
        return Ok(None);
    }
    let mut pixels = vec![0; width as usize * height as usize * 3];
    rng.fill_bytes(&mut pixels);
    let image = RgbImage {
        width,
        height,
        pixels,
    };
    Ok(Some(processor.images.resize(&image)?))
}

/// The image between two halves of the text. `has_frame`: with the tokens around an image, even without one, which is how
/// `--blank empty` blanks it.
#[must_use]
pub fn prompt(
    processor: &Processor,
    text: &[u32],
    image: Option<RgbImage>,
    has_frame: bool,
) -> Prompt {
    let tokens = &processor.config.tokens;
    let merge = processor.config.vision.spatial_merge_size.pow(2);
    let grids: Vec<Grid> = image.iter().map(|image| processor.grid(image)).collect();
    let patches: usize = grids.iter().map(Grid::num_patches).sum();
    let (before, after) = text.split_at(text.len() / 2);
    let mut token_ids = before.to_vec();
    if has_frame {
        token_ids.push(tokens.vision_start);
        token_ids.extend(std::iter::repeat_n(tokens.image, patches / merge));
        token_ids.push(tokens.vision_end);
    }
    token_ids.extend(after);
    Prompt {
        text: String::new(),
        token_ids,
        images: image.into_iter().collect(),
        grids,
    }
}
