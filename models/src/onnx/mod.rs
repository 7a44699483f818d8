//! ONNX as a file format: just enough to write a graph.
//!
//! | module | what it holds |
//! |---|---|
//! | [`proto`] | the protobuf messages of an ONNX file, the part of them in use |
//! | [`builder`] | a graph under construction: inputs, weights, nodes, outputs |
//! | [`ops`] | one function per operator |

pub mod builder;
pub mod ops;
pub mod proto;

pub use builder::{Dim, Graph, TOR, Value, size};
pub use ops::Packed;
pub use proto::DataType;
