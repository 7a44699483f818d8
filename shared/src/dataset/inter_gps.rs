//! The raw folders of Geometry3K as InterGPS publishes them: `test/<id>/{data.json,img_diagram.png}`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{Error, Result};
use super::image_folder::ImageFolder;
use super::limits::DatasetLimits;
use super::open::Sample;

const DATA: &str = "data.json";
const DIAGRAM: &str = "img_diagram.png";

/// A split's folder with a folder per problem.
pub(super) struct InterGps {
    /// In the order of their numbers.
    folders: Vec<PathBuf>,
}

/// What is read of data.json. The multiple choices are not shown: the answer is asked for freely, as the field does.
#[derive(Deserialize)]
struct Problem {
    annotat_text: String,
    choices: Vec<String>,
    answer: String,
}

impl InterGps {
    /// The problems in `folder`; none when it is no such folder.
    pub(super) fn open(folder: &Path, limits: &DatasetLimits) -> Result<Option<Self>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::read(folder))? {
            let path = entry.map_err(Error::read(folder))?.path();
            let number = path
                .file_name()
                .and_then(|name| name.to_str()?.parse::<u64>().ok());
            if let Some(number) = number
                && path.join(DATA).is_file()
            {
                folders.push((number, path));
            }
            if folders.len() > limits.max_rows {
                return Err(Error::limit(folder, "problems", "more", limits.max_rows));
            }
        }
        folders.sort();
        let folders: Vec<_> = folders.into_iter().map(|(_, path)| path).collect();
        Ok((!folders.is_empty()).then_some(Self { folders }))
    }

    pub(super) fn len(&self) -> usize {
        self.folders.len()
    }

    /// `test/2401`, say.
    pub(super) fn name(&self, row: usize) -> String {
        let parts = self
            .folders
            .get(row)
            .into_iter()
            .flat_map(|path| path.iter());
        let parts: Vec<_> = parts.map(|part| part.to_string_lossy()).collect();
        parts[parts.len().saturating_sub(2)..].join("/")
    }

    pub(super) fn get(&self, row: usize, limits: &DatasetLimits) -> Result<Sample> {
        let id = self.name(row);
        let folder = self.folders.get(row).ok_or(Error::Index {
            index: row,
            len: self.folders.len(),
        })?;
        let refuse = |what: &str, reason: String| Error::sample(&id, format!("{what}: {reason}"));
        let files = ImageFolder::new(&folder.join(DATA), None);
        let text_limits = DatasetLimits {
            max_image_bytes: limits.max_line_bytes,
            ..*limits
        };
        let bytes = files
            .read(DATA, &text_limits)
            .map_err(|reason| refuse(DATA, reason))?;
        let problem: Problem =
            serde_json::from_slice(&bytes).map_err(|error| refuse(DATA, error.to_string()))?;
        let letter = match problem.answer.trim().as_bytes() {
            [letter @ b'A'..=b'Z'] => usize::from(letter - b'A'),
            _ => {
                let reason = format!(
                    "its answer {:.20?} is no letter of a choice",
                    problem.answer
                );
                return Err(refuse(DATA, reason));
            }
        };
        let num_choices = problem.choices.len();
        let answer = problem.choices.into_iter().nth(letter).ok_or_else(|| {
            let reason = format!("its answer is {}, of {num_choices} choices", problem.answer);
            refuse(DATA, reason)
        })?;
        let image = files
            .read(DIAGRAM, limits)
            .map_err(|reason| refuse(DIAGRAM, reason))?;
        Ok(Sample {
            problem: format!("<image>{}", problem.annotat_text),
            answer,
            solution: None,
            images: vec![image],
            id,
        })
    }
}
