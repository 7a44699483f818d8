//! Generates responses on ONNX Runtime and streams token records to the learner.
//!
//! # Layout
//! Read `run` first.
//! - `run`: the stages of a run and the channels between them; `stop` ends them
//! - `claim`: ticket -> sample (`dataset`) -> prompt (`prompt`, `template`)
//! - `generate`: prompt -> responses; keeps the engine busy
//! - `reload`: follows the learner's publications
//! - `emit`: responses -> record (`group`, `reward`) -> ring; keeps the books (`stats`, `occupancy`)
//! - `engine`: decodes many responses side by side; `engine::session` alone names ONNX Runtime
//! - `sampler`: chooses the next token of a row and measures it
//! - `setup`, `load`: configuration, model and data set -> the parts above
//! - `weights_file`: a checkpoint as the file that the engine maps; `memory`: whether a run fits, `available`: into what
//! - `eval`, `data`, `grade`, `bench`, `doctor`: the other commands

pub mod available;
pub mod bench;
pub mod channel;
pub mod claim;
pub mod data;
pub mod dataset;
pub mod device;
pub mod doctor;
pub mod emit;
pub mod engine;
pub mod error;
pub mod eval;
pub mod generate;
pub mod grade;
pub mod group;
pub mod load;
pub mod memory;
pub mod occupancy;
pub mod prompt;
pub mod reload;
pub mod reward;
pub mod run;
pub mod sampler;
pub mod setup;
pub mod stats;
pub mod stop;
pub mod template;
pub mod weights_file;

pub use error::{Error, Result};
