//! Runs the model.
//!
//! | module | what it holds |
//! |---|---|
//! | [`session`] | the model on ONNX Runtime |
//! | [`cache`] | keys and values of the tokens seen so far |
//! | [`library`] | where the ONNX Runtime library is |

pub mod cache;
pub mod library;
pub mod session;

pub use cache::KvCache;
pub use session::{EngineKind, EngineLoader, EngineModel, ForwardInputs, Logits};
