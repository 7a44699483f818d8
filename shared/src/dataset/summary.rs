//! What a data set consists of, for people.

use std::path::PathBuf;

/// A file, or a folder of problems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// Where it is.
    pub path: PathBuf,
    /// `parquet`, `json lines` or `folders`.
    pub format: &'static str,
    /// Its rows.
    pub rows: usize,
    /// Its columns; of JSON lines the keys of the first rows.
    pub columns: Vec<Column>,
}

/// A column, or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type in a few words.
    pub kind: String,
    /// `prompt`, `answer`, `images`, `solution`, `id`, or not read.
    pub used_as: Option<&'static str>,
}

/// One source of a mixture: consecutive rows of the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// As it was named.
    pub source: String,
    /// Its first row.
    pub start: usize,
    /// Its rows.
    pub rows: usize,
    /// Visits to its rows per epoch: rows times weight, rounded, at least 1.
    pub visits: usize,
}
