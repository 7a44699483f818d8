//! Bytes of an image file to the patches that the vision tower sees: the same pixels that Hugging Face's PIL-backed
//! Qwen2-VL processor gives.
//!
//! # Layout
//!
//! | module | what it does |
//! |---|---|
//! | [`processor`] | the three steps with the settings of `preprocessor_config.json`: decode, resize, patches |
//! | [`settings`] | `preprocessor_config.json` |
//! | [`decode`] | limits, container formats, EXIF turn |
//! | [`jpeg`] | JPEG: the pixels of libjpeg-turbo, which PIL decodes with |
//! | [`flatten`] | any sample layout to 8-bit RGB, as PIL converts it; alpha on white |
//! | [`target_size`] | `smart_resize` |
//! | [`bicubic`] | PIL's bicubic filter in PIL's fixed-point arithmetic |
//! | [`patches`] | normalise, cut, order |

pub mod bicubic;
pub mod decode;
pub mod flatten;
pub mod jpeg;
pub mod patches;
pub mod processor;
pub mod settings;
pub mod target_size;

pub use processor::ImageProcessor;
pub use settings::ImageSettings;

/// An image of 8-bit RGB samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Samples, row by row, `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

/// The patch grid of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Frames; 1 for an image.
    pub t: usize,
    /// Rows of patches, a multiple of the merge size.
    pub h: usize,
    /// Columns of patches, a multiple of the merge size.
    pub w: usize,
}

impl Grid {
    /// Patches of the image: rows of `pixel_values`.
    #[must_use]
    pub fn num_patches(&self) -> usize {
        self.t * self.h * self.w
    }
}

/// The patches of one image, as Hugging Face's processor orders them.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// Normalised samples, `[t * h * w, channels * temporal_patch * patch * patch]`.
    pub values: Vec<f32>,
    /// The grid they came from.
    pub grid: Grid,
}
