//! What can be wrong with a configuration. Each message is one line that names the key and where it stands.

use std::path::PathBuf;

/// Result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a configuration was refused.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{path}, line {line}: not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// A name that no table or key has.
    #[error("{path}: unknown {what} {name:?}{place}; {hint}")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// "table" or "key".
        what: &'static str,
        /// The name as written.
        name: String,
        /// " in [learner]" or nothing.
        place: String,
        /// The nearest known name, or all of them.
        hint: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{path}: {key} in [{table}] is {value}: {reason}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The table's name.
        table: &'static str,
        /// The key.
        key: String,
        /// The value as written.
        value: String,
        /// What was expected.
        reason: String,
    },
    /// Two keys that contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// The command line; clap's own words.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// The file could not be written.
    #[error("cannot write the configuration {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A value that TOML cannot hold, such as a path that is not UTF-8.
    #[error("cannot write the configuration as TOML: {0}")]
    Serialize(#[from] toml::ser::Error),
}
