//! What Qwen2.5-VL is, as plain data and arithmetic: no inference library takes part.
//!
//! # Layout
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | `config.json` and `generation_config.json`, in both published forms |
//! | [`names`] | the one table of tensor names and shapes |
//! | [`image`] | bytes of an image file to the pixels the vision tower sees |

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod image;
mod json;
pub mod names;
pub mod positions;

pub use error::{Error, Result};
