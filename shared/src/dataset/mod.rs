//! Data sets of problems with images, from parquet or JSON lines; used by `rollout` and by `learner sft`.
//!
//! # Layout
//! - [`Dataset`]: `open(path@split)`, `len`, `get(index)`; rows come from disk when they are asked for
//! - `locate`: which files a `path@split` means
//! - `parquet_file`, `footer`, `columns`, `pages`, `thrift`, `window`: the schema of hiyouga/geometry3k; every size is checked before it is allocated
//! - `json_lines`: one object per line, images as files beside it
//! - [`content_parts`]: a problem's text cut at its `<image>` placeholders
//!
//! Data files are downloads of strangers: whatever their bytes are, the answer is rows or an error.

mod columns;
mod error;
mod footer;
mod json_lines;
mod limits;
mod locate;
mod open;
mod pages;
mod parquet_file;
mod parts;
mod thrift;
mod window;

pub use error::{Error, Result};
pub use limits::DatasetLimits;
pub use open::{Dataset, Sample};
pub use parts::{Part, content_parts};

#[cfg(test)]
mod tests;
