//! Bytes of an image file to the patches that the vision tower sees.

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

/// The patches of one image, as Hugging Face's processor orders them.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// Normalised samples, `[t * h * w, channels * temporal_patch * patch * patch]`.
    pub values: Vec<f32>,
    /// The grid they came from.
    pub grid: Grid,
}
