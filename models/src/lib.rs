//! What Qwen2.5-VL is, as plain data and arithmetic: no inference library takes part.
//!
//! # Layout
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | `config.json` and `generation_config.json`, in both published forms |
//! | [`names`] | the one table of tensor names and shapes |
//! | [`checkpoint`] | reading and writing safetensors; the one layout of weights in use |
//! | [`tokenizer`], [`chat`] | text to token ids, messages to text |
//! | [`image`] | bytes of an image file to the pixels the vision tower sees |
//! | [`positions`] | M-RoPE positions, and the order and windows of the vision tower |
//! | [`processor`] | messages and images to a prompt, and to its blanked forms |
//! | [`onnx`] | ONNX as a file format: messages, a graph under construction, operators |
//! | [`graph`] | Qwen2.5-VL as ONNX graphs |
//! | [`export`] | a checkpoint to an ONNX folder |
//! | [`made_up`] | prompts of a given size, for measurements |
//! | [`random`] | a checkpoint of random weights for a configuration |

pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod export;
pub mod graph;
pub mod image;
mod json;
pub mod made_up;
pub mod names;
pub mod onnx;
pub mod positions;
pub mod processor;
pub mod random;
pub mod tokenizer;

pub use error::{Error, Result};
