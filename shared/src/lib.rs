//! What the two programs agree on. Imports none of ours.
//!
//! # Layout
//!
//! - `ids`, `record`, `codec`: a group record and its bytes
//! - `ring`: the queue that records travel through, one per rollout process
//! - `control`: newest policy version, tickets and seats, one page per run
//! - `weights`: publications of a policy; `validation`: what one was worth
//! - `run_dir`: the folder that all of these live in
//! - `dataset`: problems with images, from parquet or JSON lines
//! - `config`: one `RunConfig`: defaults < file < command line
//! - `measure`: the median and the peak of memory, for benches
//! - `telemetry`: log lines, progress, metrics
//! - `error`: what can go wrong between the programs, by cause
//!
//! Under `--cfg loom` only what loom explores is built.

#[cfg(not(loom))]
pub mod codec;
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod control;
#[cfg(not(loom))]
pub mod dataset;
pub mod error;
#[cfg(not(loom))]
pub mod ids;
#[cfg(not(loom))]
pub mod measure;
#[cfg(not(loom))]
pub mod record;
pub mod ring;
#[cfg(not(loom))]
pub mod run_dir;
#[cfg(not(loom))]
pub mod telemetry;
#[cfg(not(loom))]
pub mod validation;
#[cfg(not(loom))]
pub mod weights;

pub use error::{Error, Result};
