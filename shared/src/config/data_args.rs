//! What the columns of a data set are called, and how large its images may be: the same flags wherever a data set is read.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde::Serialize;

use super::values::at_least;
use crate::dataset::DataKeys;

/// Keys of the table `[rollout]`, too.
#[derive(Args, Serialize, Debug, Clone, Default, PartialEq)]
pub struct DataArgs {
    /// Column of the question; a.b is field b of column a [default: problem, prompt or question]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_key: Option<String>,

    /// Column of the right answer. A `\boxed{}` around it is taken off [default: answer or ground_truth]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_key: Option<String>,

    /// Column of the images: encoded, or paths of files [default: images or image, if there is one]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_key: Option<String>,

    /// Folder that image paths start from; none may lead out of it [default: the data file's]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_dir: Option<PathBuf>,

    /// Enlarge an image to at least this area, in pixels [default: the model's]
    #[arg(long, value_name = "N", value_parser = at_least(1), help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_pixels: Option<usize>,

    /// Shrink an image to at most this area, in pixels [default: the model's]
    #[arg(long, value_name = "N", value_parser = at_least(1), help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<usize>,
}

impl DataArgs {
    /// The names for the reader.
    #[must_use]
    pub fn keys(&self) -> DataKeys {
        DataKeys {
            prompt: self.prompt_key.clone(),
            answer: self.answer_key.clone(),
            images: self.image_key.clone(),
            image_dir: self.image_dir.clone(),
        }
    }
}
