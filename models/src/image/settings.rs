//! `preprocessor_config.json`, or the `image_processor` of `processor_config.json`: sizes, mean and deviation.

use std::path::Path;

use serde_json::{Map, Value};

use crate::config::VisionConfig;
use crate::{Error, Result};

/// The file that most folders have.
const FILE: &str = "preprocessor_config.json";
/// Where transformers 5 writes the same keys, under `image_processor`.
const NESTED_FILE: &str = "processor_config.json";
/// No such file is larger.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// PIL's number for bicubic.
const BICUBIC: u64 = 3;
/// Bounds of the sizes in pixels; a file outside them is damaged.
const MAX_SIDE: u64 = 1 << 10;
const MAX_AREA: u64 = 1 << 30;

/// What the image processor does, from `preprocessor_config.json`; keys that are not there keep Hugging Face's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSettings {
    /// Smallest area after resizing, in pixels.
    pub min_pixels: u64,
    /// Largest area after resizing, in pixels.
    pub max_pixels: u64,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Frames per patch; an image is repeated that often.
    pub temporal_patch_size: usize,
    /// Patches per side that become one token.
    pub merge_size: usize,
    /// Mean per channel, after rescaling.
    pub mean: [f64; 3],
    /// Standard deviation per channel, after rescaling.
    pub std: [f64; 3],
    /// Factor from 8-bit levels to the unit interval.
    pub rescale_factor: f64,
    /// Largest area of a file that is decoded at all, in pixels.
    pub max_source_pixels: u64,
}

impl Default for ImageSettings {
    fn default() -> Self {
        Self {
            min_pixels: 56 * 56,
            max_pixels: 28 * 28 * 1280,
            patch_size: 14,
            temporal_patch_size: 2,
            merge_size: 2,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
            rescale_factor: 1.0 / 255.0,
            // What PIL warns about.
            max_source_pixels: 89_478_485,
        }
    }
}

impl ImageSettings {
    /// Reads the settings of a model folder.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let (own, nested) = (dir.join(FILE), dir.join(NESTED_FILE));
        // Of two the nested one wins, as for Hugging Face; older files of that name hold something else.
        if nested.exists() {
            let top = read_object(&nested)?;
            if let Some(object) = top.get("image_processor").and_then(Value::as_object) {
                return Self::from_object(&Keys {
                    path: &nested,
                    prefix: "image_processor.",
                    object,
                });
            }
        }
        if !own.exists() {
            return Err(Error::NotAModel {
                path: dir.to_path_buf(),
                missing: FILE,
            });
        }
        Self::from_object(&Keys {
            path: &own,
            prefix: "",
            object: &read_object(&own)?,
        })
    }

    /// Side lengths after resizing are multiples of this, in pixels.
    #[must_use]
    pub fn side_factor(&self) -> u32 {
        u32::try_from(self.patch_size * self.merge_size).unwrap_or(u32::MAX)
    }

    /// Patch sizes must be those of the vision tower, or the patches would not fit its first layer.
    pub(super) fn check_against(&self, dir: &Path, vision: &VisionConfig) -> Result<()> {
        for (key, got, expected) in [
            ("patch_size", self.patch_size, vision.patch_size),
            (
                "temporal_patch_size",
                self.temporal_patch_size,
                vision.temporal_patch_size,
            ),
            ("merge_size", self.merge_size, vision.spatial_merge_size),
        ] {
            if got != expected {
                return Err(Error::Config {
                    path: dir.join(FILE),
                    key: key.to_owned(),
                    problem: format!("is {got}, but config.json's vision_config has {expected}"),
                });
            }
        }
        Ok(())
    }

    fn from_object(keys: &Keys<'_>) -> Result<Self> {
        let default = Self::default();
        for flag in ["do_resize", "do_rescale", "do_normalize", "do_convert_rgb"] {
            keys.must(
                flag,
                |value| value.as_bool() == Some(true),
                "must be true: the model was made for it",
            )?;
        }
        keys.must(
            "resample",
            |value| value.as_u64() == Some(BICUBIC),
            "must be 3 (bicubic)",
        )?;
        // A key of its own wins over the one inside `size`.
        let area = |own: &str, within: &str, default: u64| -> Result<u64> {
            let size = keys.object.get("size").and_then(Value::as_object);
            let nested = size.and_then(|size| size.get(within).filter(|value| !value.is_null()));
            match (keys.get(own), nested) {
                (Some(value), _) => keys.integer(own, value, MAX_AREA),
                (None, Some(value)) => keys.integer(&format!("size.{within}"), value, MAX_AREA),
                (None, None) => Ok(default),
            }
        };
        let side = |key: &str, default: usize| -> Result<usize> {
            let Some(value) = keys.get(key) else {
                return Ok(default);
            };
            let side = keys.integer(key, value, MAX_SIDE)?;
            usize::try_from(side).map_err(|_| keys.error(key, "is too large"))
        };
        let settings = Self {
            min_pixels: area("min_pixels", "shortest_edge", default.min_pixels)?,
            max_pixels: area("max_pixels", "longest_edge", default.max_pixels)?,
            patch_size: side("patch_size", default.patch_size)?,
            temporal_patch_size: side("temporal_patch_size", default.temporal_patch_size)?,
            merge_size: side("merge_size", default.merge_size)?,
            mean: keys.triple("image_mean", default.mean)?,
            std: keys.triple("image_std", default.std)?,
            rescale_factor: keys
                .get("rescale_factor")
                .map_or(Ok(default.rescale_factor), |value| {
                    keys.finite("rescale_factor", value)
                })?,
            max_source_pixels: default.max_source_pixels,
        };
        if settings.std.contains(&0.0) {
            return Err(keys.error("image_std", "must not hold a zero"));
        }
        if settings.min_pixels > settings.max_pixels {
            return Err(keys.error("min_pixels", "must not be larger than max_pixels"));
        }
        Ok(settings)
    }
}

/// A JSON object together with where it lies, for errors.
struct Keys<'a> {
    path: &'a Path,
    prefix: &'static str,
    object: &'a Map<String, Value>,
}

impl Keys<'_> {
    /// A key's value; null counts as absent.
    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn must(&self, key: &str, holds: impl Fn(&Value) -> bool, problem: &str) -> Result<()> {
        match self.get(key) {
            Some(value) if !holds(value) => Err(self.error(key, problem)),
            _ => Ok(()),
        }
    }

    fn integer(&self, key: &str, value: &Value, max: u64) -> Result<u64> {
        match value.as_u64() {
            Some(integer) if (1..=max).contains(&integer) => Ok(integer),
            _ => Err(self.error(
                key,
                &format!("must be a whole number from 1 to {max}, got {value}"),
            )),
        }
    }

    fn finite(&self, key: &str, value: &Value) -> Result<f64> {
        value
            .as_f64()
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.error(key, &format!("must be a number, got {value}")))
    }

    /// Three numbers, or one for all channels.
    fn triple(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3]> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Array(items)) => match items.as_slice() {
                [red, green, blue] => Ok([
                    self.finite(key, red)?,
                    self.finite(key, green)?,
                    self.finite(key, blue)?,
                ]),
                _ => Err(self.error(key, &format!("must hold 3 numbers, got {}", items.len()))),
            },
            Some(value) => Ok([self.finite(key, value)?; 3]),
        }
    }

    fn error(&self, key: &str, problem: &str) -> Error {
        Error::Config {
            path: self.path.to_path_buf(),
            key: format!("{}{key}", self.prefix),
            problem: problem.to_owned(),
        }
    }
}

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let got_bytes = std::fs::metadata(path).map_err(Error::io(path))?.len();
    if got_bytes > MAX_FILE_BYTES {
        return Err(Error::TooLarge {
            path: path.to_path_buf(),
            got_bytes,
            max_bytes: MAX_FILE_BYTES,
        });
    }
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ImageSettings> {
        let object = serde_json::from_str(json).unwrap();
        ImageSettings::from_object(&Keys {
            path: Path::new("p.json"),
            prefix: "",
            object: &object,
        })
    }

    #[test]
    fn own_keys_win_over_size() {
        let settings =
            parse(r#"{"size": {"shortest_edge": 4000, "longest_edge": 9000}, "max_pixels": 8000}"#)
                .unwrap();
        assert_eq!((settings.min_pixels, settings.max_pixels), (4000, 8000));
        assert_eq!(parse("{}").unwrap(), ImageSettings::default());
    }

    #[test]
    fn the_nested_file_wins() {
        let dir = tempfile::tempdir().unwrap();
        let missing = ImageSettings::from_dir(dir.path()).unwrap_err().to_string();
        assert!(missing.contains(FILE), "{missing}");
        let write = |name: &str, json: &str| std::fs::write(dir.path().join(name), json).unwrap();
        let max_pixels = || ImageSettings::from_dir(dir.path()).unwrap().max_pixels;
        write(FILE, r#"{"max_pixels": 5000}"#);
        assert_eq!(max_pixels(), 5000);
        write(NESTED_FILE, r#"{"processor_class": "Qwen2_5_VLProcessor"}"#);
        assert_eq!(max_pixels(), 5000);
        write(
            NESTED_FILE,
            r#"{"image_processor": {"size": {"longest_edge": 7000}}}"#,
        );
        assert_eq!(max_pixels(), 7000);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (json, key) in [
            (r#"{"do_resize": false}"#, "do_resize"),
            (r#"{"resample": 2}"#, "resample"),
            (r#"{"patch_size": 0}"#, "patch_size"),
            (r#"{"min_pixels": -1}"#, "min_pixels"),
            (r#"{"size": {"longest_edge": "big"}}"#, "size.longest_edge"),
            (r#"{"image_std": [1, 0, 1]}"#, "image_std"),
            (r#"{"image_mean": [1]}"#, "image_mean"),
            (r#"{"min_pixels": 100, "max_pixels": 10}"#, "min_pixels"),
        ] {
            let message = parse(json).unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
