//! The image half of Hugging Face's processor: decode, resize, patches, each a pure function of its input.

use std::path::Path;

use super::settings::ImageSettings;
use super::{Patches, RgbImage, bicubic, decode, patches, target_size};
use crate::Result;
use crate::config::VisionConfig;

/// Turns image files into patches. Cheap to share between threads; every method is a pure function.
#[derive(Debug, Clone)]
pub struct ImageProcessor {
    settings: ImageSettings,
    levels: patches::Levels,
}

impl ImageProcessor {
    /// A processor with these settings.
    #[must_use]
    pub fn new(settings: ImageSettings) -> Self {
        let levels = patches::Levels::new(&settings);
        Self { settings, levels }
    }

    /// Reads `preprocessor_config.json` of a model folder and checks that its patch sizes are those of the vision tower.
    pub fn from_dir(dir: &Path, vision: &VisionConfig) -> Result<Self> {
        let settings = ImageSettings::from_dir(dir)?;
        settings.check_against(dir, vision)?;
        Ok(Self::new(settings))
    }

    /// The settings in use.
    #[must_use]
    pub fn settings(&self) -> &ImageSettings {
        &self.settings
    }

    /// Decodes PNG, JPEG, WebP, GIF (first frame), BMP or TIFF; turns it by its EXIF orientation; flattens it to RGB on
    /// white. Width and height are checked against [`ImageSettings::max_source_pixels`] before any pixel is decoded.
    pub fn decode(&self, bytes: &[u8]) -> Result<RgbImage> {
        decode::decode(bytes, self.settings.max_source_pixels)
    }

    /// Resizes to the `smart_resize` target: both sides multiples of patch size times merge size, area within
    /// `min_pixels..=max_pixels`. PIL's bicubic filter, bit for bit.
    pub fn resize(&self, image: &RgbImage) -> Result<RgbImage> {
        let (height, width) = target_size::smart_resize(
            image.height,
            image.width,
            self.settings.side_factor(),
            self.settings.min_pixels,
            self.settings.max_pixels,
        )?;
        bicubic::resize(image, width, height)
    }

    /// Rescales, normalises and cuts a resized image, `[N, C * T * P * P]`.
    pub fn patches(&self, resized: &RgbImage) -> Result<Patches> {
        patches::cut(resized, &self.settings, &self.levels)
    }
}
