//! Data sets of problems with images, from parquet or JSON lines; used by `rollout` and by `learner sft`.
//!
//! # Layout
//! - [`Dataset`]: `open(spec)`, `len`, `get(index)`; rows come from disk when they are asked for
//! - `spec`: what `--data` says; `locate`: which files that means; `hub`, `hub_name`, `hub_cache`: names that are no path, from the hub's cache or the hub
//! - `keys`, [`DataKeys`]: what the columns are called
//! - `parquet_file`, `footer`, `columns`, `pages`, `thrift`, `window`: parquet; every size is checked before it is allocated
//! - `row`: a row of it -> [`Sample`]; `answer`: without its box
//! - `json_lines`: one object per line; `inter_gps`: a folder per problem; `image_folder`: images as files beside them
//! - [`ParquetTable`]: all columns of a parquet file, for files that are no plain list of problems; [`files_of`]: which files a name means
//! - `summary`: what there is, for people
//! - [`content_parts`]: a problem's text cut at its `<image>` placeholders
//!
//! Data files are downloads of strangers: whatever their bytes are, the answer is rows or an error.

mod answer;
mod columns;
mod error;
mod footer;
mod hub;
mod hub_cache;
mod hub_name;
mod image_folder;
mod inter_gps;
mod json_lines;
mod keys;
mod limits;
mod locate;
mod open;
mod pages;
mod parquet_file;
mod parquet_table;
mod parts;
mod row;
mod spec;
mod summary;
mod thrift;
mod window;

pub use error::{Error, Result};
pub use image_folder::ImageFolder;
pub use keys::DataKeys;
pub use limits::DatasetLimits;
pub use open::{Dataset, Sample};
pub use parquet_table::{ParquetTable, files_of};
pub use parts::{Part, content_parts};
pub use summary::{Column, FileSummary, Part as DataPart};

#[cfg(test)]
mod tests;

#[cfg(test)]
mod schema_tests;
