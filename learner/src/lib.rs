//! The learner: reads group records, applies the ToR-weighted policy update on libtorch, publishes the weights.
//!
//! # Layout
//!
//! The algorithm, plain data and arithmetic:
//! - [`advantage`]: how much better a response did than its group
//! - [`loss`]: the clipped surrogate and the KL term, with their derivatives
//! - [`optimizer`]: AdamW, gradient clipping, learning-rate schedule
//!
//! The policy, on libtorch:
//! - [`model`]: Qwen2.5-VL; a group's prompt is computed once
//! - [`logprobs`]: its log-probabilities of response tokens, and the way back from their gradient
//!
//! Read `train.rs` first.

pub mod advantage;
pub mod logprobs;
pub mod loss;
pub mod model;
mod numbers;
pub mod optimizer;
