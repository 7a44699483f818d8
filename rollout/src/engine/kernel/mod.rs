//! The operators that the engine brings along for the CPU: plain arithmetic over slices, no ONNX Runtime here.
//!
//! Why our own: ONNX Runtime's cached attention reads the keys once per query head and row, can't share a prompt among the
//! rows of a group, and takes several new tokens of several rows only without a past. Its 8-bit products
//! are slower than ours, pack every new version of the weights anew, and leave scales, biases and gates to further passes.
//!
//! # Layout
//! - `attention`: rotary embedding and causal attention over a cache in blocks
//! - `tile`: the queries that go through a block of the cache together, with their running softmax
//! - `silu`: the gate of the MLP
//! - `linear`, `int8_linear`: linear layers in f32 and on 8-bit integers, with what follows them
//! - `panels`: how threads share such a layer, and what follows it
//! - `dot`: tiles of integer products, by the instructions for them
//! - `quantize`: rows in 8 bits
//! - `lanes`: sixteen numbers at a time
//! - `parallel`: work side by side
//! - `prefetch`: memory asked for before it is needed
//!
//! Every sum has one order, whatever shares a tile or a thread: results do not depend on the batch.

pub(super) mod attention;
pub(super) mod dot;
pub(super) mod int8_linear;
pub(super) mod lanes;
pub(super) mod linear;
pub(super) mod panels;
pub(super) mod parallel;
mod prefetch;
pub(super) mod quantize;
pub(super) mod silu;
mod tile;
