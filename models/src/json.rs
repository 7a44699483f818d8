//! Reading an untrusted JSON file key by key: bounded size, and errors that name file and key.

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Upper bound for the small files of a model folder (configurations, templates).
pub(crate) const SMALL_FILE_BYTES: u64 = 4 << 20;

/// Reads a whole file, refusing one of more than `max_bytes`; `None` when it does not exist.
pub(crate) fn read_bounded(path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path)(error)),
    };
    if !metadata.is_file() {
        // Opening a pipe would wait for a writer.
        return Err(Error::io(path)(std::io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(Error::io(path))?;
    let got_bytes = metadata.len();
    let too_large = |got_bytes| Error::TooLarge {
        path: path.to_path_buf(),
        got_bytes,
        max_bytes,
    };
    if got_bytes > max_bytes {
        return Err(too_large(got_bytes));
    }
    let mut bytes = Vec::new();
    // A device or a growing file does not tell its size beforehand.
    file.take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io(path))?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(Some(bytes))
}

/// A JSON object of a file, and where in the file it stands.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    path: PathBuf,
    /// Dotted name of this object with a trailing dot, empty at the top.
    prefix: String,
    map: Map<String, Value>,
}

impl Object {
    /// The object that a file holds; `None` when there is no such file.
    pub(crate) fn open(path: &Path, max_bytes: u64) -> Result<Option<Self>> {
        let Some(bytes) = read_bounded(path, max_bytes)? else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            path: path.to_path_buf(),
            source,
        })?;
        match value {
            Value::Object(map) => Ok(Some(Self {
                path: path.to_path_buf(),
                prefix: String::new(),
                map,
            })),
            _ => Err(Error::Config {
                path: path.to_path_buf(),
                key: "{}".into(),
                problem: "is expected: the file holds no JSON object".into(),
            }),
        }
    }

    /// The error of one key.
    pub(crate) fn problem(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::Config {
            path: self.path.clone(),
            key: format!("{}{key}", self.prefix),
            problem: problem.into(),
        }
    }

    /// The value of a key; a `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The keys, in the file's order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// The object under a key, if there is one.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Self>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self {
                path: self.path.clone(),
                prefix: format!("{}{key}.", self.prefix),
                map: map.clone(),
            })),
            Some(other) => {
                Err(self.problem(key, format!("must be an object, got {}", brief(other))))
            }
        }
    }

    /// A whole number within `range`.
    pub(crate) fn integer(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize> {
        self.integer_opt(key, range)?
            .ok_or_else(|| self.missing(key))
    }

    /// A whole number within `range`, if the key is there.
    pub(crate) fn integer_opt(
        &self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>> {
        self.get(key)
            .map(|value| self.integer_of(key, value, &range))
            .transpose()
    }

    /// A list of whole numbers within `range`, at most `max_len` of them.
    pub(crate) fn integers(
        &self,
        key: &str,
        range: RangeInclusive<usize>,
        max_len: usize,
    ) -> Result<Vec<usize>> {
        match self.get(key) {
            None => Err(self.missing(key)),
            Some(Value::Array(list)) if list.len() <= max_len => list
                .iter()
                .map(|value| self.integer_of(key, value, &range))
                .collect(),
            Some(other) => Err(self.problem(
                key,
                format!(
                    "must be a list of at most {max_len} numbers, got {}",
                    brief(other)
                ),
            )),
        }
    }

    /// A finite number, if the key is there.
    pub(crate) fn number_opt(&self, key: &str) -> Result<Option<f64>> {
        self.get(key)
            .map(|value| {
                value
                    .as_f64()
                    .filter(|number| number.is_finite())
                    .ok_or_else(|| {
                        self.problem(key, format!("must be a number, got {}", brief(value)))
                    })
            })
            .transpose()
    }

    /// A string, if the key is there.
    pub(crate) fn string_opt(&self, key: &str) -> Result<Option<&str>> {
        self.get(key)
            .map(|value| {
                value.as_str().ok_or_else(|| {
                    self.problem(key, format!("must be a string, got {}", brief(value)))
                })
            })
            .transpose()
    }

    /// A truth value, if the key is there.
    pub(crate) fn bool_opt(&self, key: &str) -> Result<Option<bool>> {
        self.get(key)
            .map(|value| {
                value.as_bool().ok_or_else(|| {
                    self.problem(key, format!("must be true or false, got {}", brief(value)))
                })
            })
            .transpose()
    }

    /// The error of a key that is not there.
    pub(crate) fn missing(&self, key: &str) -> Error {
        self.problem(
            key,
            "is missing: this is no complete Qwen2.5-VL configuration",
        )
    }

    fn integer_of(&self, key: &str, value: &Value, range: &RangeInclusive<usize>) -> Result<usize> {
        value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|n| range.contains(n))
            .ok_or_else(|| {
                let (low, high) = (range.start(), range.end());
                self.problem(
                    key,
                    format!(
                        "must be a whole number from {low} to {high}, got {}",
                        brief(value)
                    ),
                )
            })
    }
}

/// A JSON value in an error line: cut, since the file may hold anything.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        None => text,
        Some((cut, _)) => format!("{} ...", &text[..cut]),
    }
}
