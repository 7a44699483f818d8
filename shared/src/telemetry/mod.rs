//! What a person sees of a run.
//!
//! # Layout
//! - [`init`]: tracing to stderr, and the [`Progress`] line of a program
//! - [`Metrics`]: one row per step in metrics.jsonl, the same numbers as TensorBoard events
//! - [`read_metrics`]: the rows back

mod metrics;
mod progress;
mod tensorboard;
mod terminal;

pub use metrics::{Metrics, MetricsRow, Source, read_metrics};
pub use progress::Progress;
pub use terminal::{Error, Telemetry, init};
