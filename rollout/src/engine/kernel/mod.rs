//! The operators that the engine brings along for the CPU: plain arithmetic over slices, no ONNX Runtime here.
//!
//! Why our own: ONNX Runtime's cached attention reads the keys once per query head and row, can't share a prompt among the
//! rows of a group, and takes several new tokens of several rows only without a past.
//!
//! # Layout
//! - `attention`: rotary embedding and causal attention over a cache in blocks
//! - `tile`: the queries that go through a block of the cache together, with their running softmax
//! - `silu`: the gate of the MLP
//! - `quantize`: rows and matrices in 8 bits
//! - `lanes`: sixteen numbers at a time
//!
//! Every sum has one order, whatever shares a tile or a thread: results do not depend on the batch.

pub(super) mod attention;
pub(super) mod lanes;
pub(super) mod quantize;
pub(super) mod silu;
mod tile;
