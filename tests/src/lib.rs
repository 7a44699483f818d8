//! What the test programs share: the parity fixtures and a comparison that says where and by how much.
//!
//! # Layout
//!
//! | module | what it holds |
//! |---|---|
//! | [`fixtures`] | the folder of reference values (`PARITY_FIXTURES`), its prompts and images |
//! | [`tensors`] | a safetensors file as arrays |
//! | [`compare`] | closeness within a tolerance |
//! | [`programs`] | the built programs, run as a user runs them |

pub mod compare;
pub mod fixtures;
pub mod programs;
pub mod tensors;

pub use compare::{Close, assert_close};
pub use fixtures::{Fixtures, PromptCase, TokenizerCase};
pub use tensors::{Array, Tensors};
