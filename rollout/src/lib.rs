//! Generates responses on ONNX Runtime and streams token records to the learner.
//!
//! # Layout
//! - `sampler`: chooses the next token of a row and measures it.

pub mod sampler;
