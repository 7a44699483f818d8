//! The learner: reads group records, applies the ToR-weighted policy update on libtorch, publishes the weights.
//!
//! # Layout
//!
//! The algorithm, plain data and arithmetic:
//! - [`advantage`]: how much better a response did than its group
//!
//! Read `train.rs` first.

pub mod advantage;
mod numbers;
