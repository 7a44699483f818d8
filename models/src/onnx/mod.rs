//! ONNX as a file format: just enough to write a graph.
//!
//! | module | what it holds |
//! |---|---|
//! | [`proto`] | the protobuf messages of an ONNX file, the part of them in use |
//! | [`builder`] | a graph under construction: inputs, weights, nodes, outputs |
//! | [`ops`] | one function per operator |
//! | [`weight_inputs`] | what a written graph says of weights that are its inputs |

pub mod builder;
pub mod ops;
pub mod proto;
pub mod weight_inputs;

pub use builder::{Dim, Graph, TOR, Value, size};
pub use ops::Packed;
pub use proto::DataType;
pub use weight_inputs::{WeightInput, weight_inputs};
