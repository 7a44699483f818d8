//! Generates responses on ONNX Runtime and streams token records to the learner.
//!
//! # Layout
//! - `engine`: runs the model; `engine::session` alone names ONNX Runtime.
//! - `reward`: verifies the answers.
//! - `sampler`: chooses the next token of a row and measures it.

pub mod engine;
pub mod error;
pub mod reward;
pub mod sampler;

pub use error::{Error, Result};
