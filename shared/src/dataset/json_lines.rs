//! JSON lines: `{"problem": ..., "answer": ..., "images": ["figures/1.png"], "solution": ..., "id": ...}`, one object per line.
//! `prompt` may stand for `problem`, one string for a list of one image. Image paths are relative to the file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::error::{Error, Result};
use super::limits::DatasetLimits;
use super::open::Sample;

/// An open file whose lines were counted.
pub(super) struct JsonLines {
    path: PathBuf,
    file: File,
    /// Start and length of every line that is not blank.
    lines: Vec<(u64, usize)>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(alias = "prompt", alias = "question")]
    problem: String,
    answer: Value,
    #[serde(default)]
    solution: Option<String>,
    #[serde(default)]
    id: Option<Value>,
    #[serde(default, alias = "image")]
    images: Option<Images>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Images {
    One(String),
    Many(Vec<String>),
}

impl JsonLines {
    pub(super) fn open(path: &Path, limits: &DatasetLimits) -> Result<Self> {
        let file = File::open(path).map_err(Error::read(path))?;
        let mut reader = BufReader::new(file.try_clone().map_err(Error::read(path))?);
        let (mut lines, mut start, mut line) = (Vec::new(), 0_u64, Vec::new());
        loop {
            line.clear();
            let most = limits.max_line_bytes as u64 + 1;
            let length = reader
                .by_ref()
                .take(most)
                .read_until(b'\n', &mut line)
                .map_err(Error::read(path))?;
            if length == 0 {
                break;
            }
            if length > limits.max_line_bytes {
                return Err(Error::limit(
                    path,
                    &format!("bytes of line {}", lines.len() + 1),
                    "more",
                    limits.max_line_bytes,
                ));
            }
            if !line.trim_ascii().is_empty() {
                lines.push((start, length));
            }
            if lines.len() > limits.max_rows {
                return Err(Error::limit(path, "lines", "more", limits.max_rows));
            }
            start += length as u64;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            lines,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Reads a line and its images; `name` is its id when it has none of its own.
    pub(super) fn get(&self, row: usize, name: String, limits: &DatasetLimits) -> Result<Sample> {
        let &(start, length) = self.lines.get(row).ok_or(Error::Index {
            index: row,
            len: self.lines.len(),
        })?;
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, start)
            .map_err(Error::read(&self.path))?;
        let line: Line =
            serde_json::from_slice(&bytes).map_err(|error| Error::sample(&name, error))?;
        let id = match line.id {
            Some(Value::String(id)) => id,
            Some(Value::Number(id)) => id.to_string(),
            _ => name,
        };
        let answer = match line.answer {
            Value::String(answer) => answer,
            Value::Number(answer) => answer.to_string(),
            other => {
                return Err(Error::sample(
                    &id,
                    format!("its answer is {other:.40}, not a string"),
                ));
            }
        };
        let paths = match line.images {
            None => Vec::new(),
            Some(Images::One(path)) => vec![path],
            Some(Images::Many(paths)) => paths,
        };
        if paths.len() > limits.max_images {
            return Err(Error::sample(
                &id,
                format!(
                    "{} images, at most {} allowed",
                    paths.len(),
                    limits.max_images
                ),
            ));
        }
        let images = paths
            .iter()
            .map(|path| self.image(path, &id, limits))
            .collect::<Result<_>>()?;
        Ok(Sample {
            id,
            problem: line.problem,
            answer,
            solution: line.solution,
            images,
        })
    }

    /// The bytes of an image beside the file; a path that leads elsewhere is refused, by way of a link as well.
    fn image(&self, relative: &str, id: &str, limits: &DatasetLimits) -> Result<Vec<u8>> {
        let refuse = |reason: String| Error::sample(id, format!("image {relative:?}: {reason}"));
        let inside = Path::new(relative)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(refuse(
                "its path leads out of the data set's folder".to_owned(),
            ));
        }
        let folder = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let folder = folder
            .canonicalize()
            .map_err(|error| refuse(error.to_string()))?;
        let path = folder
            .join(relative)
            .canonicalize()
            .map_err(|error| refuse(error.to_string()))?;
        if !path.starts_with(&folder) {
            return Err(refuse(
                "its path leads out of the data set's folder".to_owned(),
            ));
        }
        if !path.is_file() {
            return Err(refuse("not a file".to_owned()));
        }
        let file = File::open(&path).map_err(|error| refuse(error.to_string()))?;
        let mut bytes = Vec::new();
        file.take(limits.max_image_bytes as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| refuse(error.to_string()))?;
        if bytes.len() > limits.max_image_bytes {
            return Err(refuse(format!(
                "more than {} bytes",
                limits.max_image_bytes
            )));
        }
        Ok(bytes)
    }
}
