//! What the two programs agree on.

pub mod config;
pub mod telemetry;
