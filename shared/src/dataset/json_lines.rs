//! JSON lines: `{"problem": ..., "answer": ..., "images": ["figures/1.png"], "solution": ..., "id": ...}`, one object per line.
//! One string may stand for a list of one image. Image paths are relative to the file.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::{Error, Result};
use super::image_folder::ImageFolder;
use super::keys::{DataKeys, ID, SOLUTION, missing};
use super::limits::DatasetLimits;
use super::open::Sample;
use super::row::Images;
use super::summary::Column;

/// Rows that are looked at for the names of keys.
const FIRST_ROWS: usize = 64;
const READ_BYTES: usize = 1 << 18;

/// An open file whose lines were counted.
pub(super) struct JsonLines {
    path: PathBuf,
    file: File,
    /// Start and length of every line that is not blank.
    lines: Vec<(u64, usize)>,
}

impl JsonLines {
    pub(super) fn open(path: &Path, keys: &DataKeys, limits: &DatasetLimits) -> Result<Self> {
        let file = File::open(path).map_err(Error::read(path))?;
        let reader =
            BufReader::with_capacity(READ_BYTES, file.try_clone().map_err(Error::read(path))?);
        let lines = Self {
            path: path.to_owned(),
            file,
            lines: find_lines(path, reader, limits)?,
        };
        lines.check_keys(keys, limits)?;
        Ok(lines)
    }

    /// A key that none of the first rows has is a slip, not many bad rows.
    fn check_keys(&self, keys: &DataKeys, limits: &DatasetLimits) -> Result<()> {
        let first = self.first_rows(limits);
        let mut seen: Vec<&str> = Vec::new();
        for name in first.iter().flat_map(Map::keys) {
            if seen.len() < 200 && !seen.contains(&name.as_str()) {
                seen.push(name);
            }
        }
        let chosen_images = keys.images.as_deref().map(|name| vec![name]);
        let wanted = [
            (Some(keys.prompt_names()), "--prompt-key"),
            (Some(keys.answer_names()), "--answer-key"),
            (chosen_images, "--image-key"),
        ];
        for (names, flag) in wanted {
            if let Some(names) = names
                && !first.is_empty()
                && first.iter().all(|row| find(row, &names).is_none())
            {
                return Err(Error::Schema {
                    path: self.path.clone(),
                    reason: missing(&names, flag, seen.iter().copied()),
                });
            }
        }
        Ok(())
    }

    /// Those of the first rows that are objects.
    fn first_rows(&self, limits: &DatasetLimits) -> Vec<Map<String, Value>> {
        let rows = 0..self.lines.len().min(FIRST_ROWS);
        rows.filter_map(|row| self.object(row, "", limits).ok())
            .collect()
    }

    /// The keys of the first rows.
    pub(super) fn columns(&self, keys: &DataKeys, limits: &DatasetLimits) -> Vec<Column> {
        let mut columns: Vec<Column> = Vec::new();
        let roles = [
            (keys.prompt_names(), "prompt"),
            (keys.answer_names(), "answer"),
            (keys.image_names(), "images"),
            (SOLUTION.to_vec(), "solution"),
            (ID.to_vec(), "id"),
        ];
        for row in self.first_rows(limits) {
            let used = |name: &str| {
                let found = roles.iter().find(|(names, _)| {
                    names
                        .iter()
                        .find(|wanted| find(&row, &[wanted]).is_some())
                        .is_some_and(|wanted| {
                            wanted.split('.').next() == Some(name) || *wanted == name
                        })
                });
                found.map(|&(_, role)| role)
            };
            for (name, value) in &row {
                if columns.len() < 100 && !columns.iter().any(|column| column.name == *name) {
                    columns.push(Column {
                        name: name.clone(),
                        kind: kind(value).to_owned(),
                        used_as: used(name),
                    });
                }
            }
        }
        columns
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Reads a line and its images; `name` is its id when it has none of its own.
    pub(super) fn get(
        &self,
        row: usize,
        name: String,
        (keys, folder, limits): (&DataKeys, &ImageFolder, &DatasetLimits),
    ) -> Result<Sample> {
        let object = self.object(row, &name, limits)?;
        let id = match find(&object, ID) {
            Some(Value::String(id)) => id.chars().take(200).collect(),
            Some(Value::Number(id)) => id.to_string(),
            _ => name,
        };
        let wrong = |what: &str, value: &Value| {
            Error::sample(&id, format!("its {what} is {}, not a string", kind(value)))
        };
        let absent = |names: &[&str], flag: &str| {
            Error::sample(&id, missing(names, flag, object.keys().map(String::as_str)))
        };
        let names = keys.prompt_names();
        let problem = match find(&object, &names) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => return Err(wrong("problem", other)),
            None => return Err(absent(&names, "--prompt-key")),
        };
        let names = keys.answer_names();
        let answer = match find(&object, &names) {
            Some(Value::String(answer)) => answer.clone(),
            Some(Value::Number(answer)) => answer.to_string(),
            Some(other) => return Err(wrong("answer", other)),
            None => return Err(absent(&names, "--answer-key")),
        };
        let solution = match find(&object, SOLUTION) {
            Some(Value::String(solution)) => Some(solution.clone()),
            None | Some(Value::Null) => None,
            Some(other) => return Err(wrong("solution", other)),
        };
        let paths = match find(&object, &keys.image_names()) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(paths)) => paths.as_slice(),
            Some(path) => std::slice::from_ref(path),
        };
        let mut images = Images::new(&id, paths.len(), limits)?;
        for path in paths {
            // `datasets` writes an image as {"bytes": null, "path": ...}.
            let path = path.get("path").unwrap_or(path);
            let Value::String(path) = path else {
                return Err(wrong("image", path));
            };
            images.file(path, folder)?;
        }
        let images = images.images;
        Ok(Sample {
            id,
            problem,
            answer,
            solution,
            images,
        })
    }

    fn object(&self, row: usize, name: &str, limits: &DatasetLimits) -> Result<Map<String, Value>> {
        let &(start, length) = self.lines.get(row).ok_or(Error::Index {
            index: row,
            len: self.lines.len(),
        })?;
        if length > limits.max_line_bytes {
            let most = limits.max_line_bytes;
            let reason = format!("its line has {length} bytes, at most {most} allowed");
            return Err(Error::sample(name, reason));
        }
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, start)
            .map_err(Error::read(&self.path))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::sample(name, format!("no JSON object: {error}")))
    }
}

/// Start and length of every line that is not blank; no line is held in memory.
fn find_lines(
    path: &Path,
    mut reader: impl BufRead,
    limits: &DatasetLimits,
) -> Result<Vec<(u64, usize)>> {
    let (mut lines, mut start, mut length, mut is_blank) = (Vec::new(), 0_u64, 0_usize, true);
    loop {
        let buffer = reader.fill_buf().map_err(Error::read(path))?;
        let is_end = buffer.is_empty();
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let taken = newline.map_or(buffer.len(), |at| at + 1);
        let piece = buffer.get(..taken).unwrap_or_default();
        is_blank = is_blank && piece.trim_ascii().is_empty();
        length = length.saturating_add(taken);
        reader.consume(taken);
        if newline.is_none() && !is_end {
            continue;
        }
        if !is_blank {
            lines.push((start, length));
        }
        if lines.len() > limits.max_rows {
            return Err(Error::limit(path, "lines", "more", limits.max_rows));
        }
        if is_end {
            return Ok(lines);
        }
        start += length as u64;
        (length, is_blank) = (0, true);
    }
}

/// The first of the names that is there; one with dots leads into objects.
fn find<'a>(row: &'a Map<String, Value>, names: &[&str]) -> Option<&'a Value> {
    let by_path = |name: &str| {
        let mut parts = name.split('.');
        let first = row.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    };
    names
        .iter()
        .find_map(|name| row.get(*name).or_else(|| by_path(name)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => match items.first() {
            Some(Value::String(_)) => "list of string",
            Some(Value::Object(_)) => "list of object",
            _ => "list",
        },
        Value::Object(_) => "object",
    }
}
