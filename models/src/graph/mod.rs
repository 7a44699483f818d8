//! Qwen2.5-VL as two ONNX graphs, in a [`Form`] for each runtime. The files are twins of the learner's `model/`: the same
//! layers by the same names.
//!
//! | module | what it holds |
//! |---|---|
//! | [`decoder`] | `decoder.onnx`: tokens, images and cache to logits |
//! | [`vision`] | `vision.onnx`: patches to image embeddings |
//! | [`cache`] | how a form's attention sees earlier tokens |
//! | [`attention`], [`mlp`], [`rope`], [`linear`] | the parts of their layers |
//! | [`heads`] | attention in standard operators alone |
//! | [`embed`], [`head`] | what is before the layers, and after the logits |
//! | [`products`] | the decoder's matrix products alone, to measure against |
//! | [`weights`] | weights as ranges of the weights file |
//!
//! A graph holds no weights: its initializers point into `model.safetensors` beside it, in the layout that the
//! learner publishes; for a device they are inputs that name the same ranges. So the graph of a model never changes, and
//! new weights are a new file and nothing else.

pub mod attention;
pub mod cache;
pub mod decoder;
pub mod embed;
mod form;
pub mod head;
pub mod heads;
pub mod linear;
pub mod mlp;
pub mod products;
pub mod rope;
pub mod vision;
pub mod weights;

pub use form::{Cuda, CudaCache, Elements, Form, Operators, Trt};

use crate::checkpoint::{F32Layout, PackedMatrix};
use crate::config::ModelConfig;
use crate::error::Result;

/// The file, beside the graph, that its weights lie in.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// `decoder.onnx`; see [`decoder`] for its inputs and outputs.
pub fn decoder(config: &ModelConfig, layout: &F32Layout, form: Form) -> Result<Vec<u8>> {
    decoder::build(config, layout, &[], form)
}

/// The engine's decoder with these matrices packed; whoever opens it hands them over by name.
pub fn engine_decoder(
    config: &ModelConfig,
    layout: &F32Layout,
    packed: &[PackedMatrix],
) -> Result<Vec<u8>> {
    decoder::build(config, layout, packed, Form::Engine)
}

/// `vision.onnx`; see [`vision`] for its inputs and outputs.
pub fn vision(config: &ModelConfig, layout: &F32Layout, form: Form) -> Result<Vec<u8>> {
    vision::build(config, layout, form)
}

/// A number of config.json in the precision that the graph computes in.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is what is meant"
)]
fn to_f32(setting: f64) -> f32 {
    setting as f32
}
