//! What can be wrong with a data set. Each message is one line that names the file.

use std::path::{Path, PathBuf};

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no data set, or no such row.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read the data set {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The path names no data set.
    #[error("no data set at {path}: {reason}")]
    NotFound {
        /// The path as given.
        path: String,
        /// What to do.
        reason: String,
    },
    /// The file's bytes are not what its format asks for.
    #[error("malformed data file {path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file lacks a column or has one of another type.
    #[error("data file {path}: {reason}")]
    Schema {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The file is larger than the limits allow.
    #[error("data file {path} is refused: {reason}")]
    Limit {
        /// The file.
        path: PathBuf,
        /// Declared and allowed sizes.
        reason: String,
    },
    /// One row is bad; the others may be good. Callers skip it, count it and name it.
    #[error("sample {id}: {reason}")]
    Sample {
        /// The row's id.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// The row does not exist.
    #[error("sample {index} of {len}")]
    Index {
        /// As asked.
        index: usize,
        /// Rows of the data set.
        len: usize,
    },
}

impl Error {
    /// Whether only this row is lost.
    #[must_use]
    pub fn is_sample(&self) -> bool {
        matches!(self, Self::Sample { .. })
    }

    pub(super) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Read {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn malformed(path: &Path, reason: impl std::fmt::Display) -> Self {
        // Decoders sometimes quote what they read; one line of it is enough.
        let reason: String = reason
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .take(200)
            .collect();
        Self::Malformed {
            path: path.to_owned(),
            reason,
        }
    }

    pub(super) fn limit(
        path: &Path,
        what: &str,
        declared: impl std::fmt::Display,
        allowed: usize,
    ) -> Self {
        Self::Limit {
            path: path.to_owned(),
            reason: format!("{what}: {declared}, at most {allowed} allowed"),
        }
    }

    pub(super) fn sample(id: &str, reason: impl std::fmt::Display) -> Self {
        Self::Sample {
            id: id.chars().take(200).collect(),
            reason: reason.to_string(),
        }
    }
}
