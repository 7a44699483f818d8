//! How a pass of the decoder sees the keys and values of earlier tokens: a form's part of attention.
//!
//! `// B rows, S new tokens of each, T = B*S, H heads, K kv heads, D head dim`
//!
//! | module | cache | form |
//! |---|---|---|
//! | [`rows`] | a buffer per row and layer | [`Form::Portable`], [`Form::Cuda`] |
//! | [`shared`] | blocks of all layers that sequences share | [`Form::Engine`] |
//! | [`paged`] | blocks per layer that sequences share | [`Form::Cuda`] |
//! | [`in_place`] | a buffer of fixed size per row and layer | [`Form::Trt`] |
//!
//! Each declares its inputs once, and for each layer turns the new tokens' projections into what they attended to.

pub mod in_place;
pub mod paged;
pub mod rows;
pub mod shared;

use super::form::{Cuda, CudaCache, Form};
use super::rope::Rotation;
use crate::config::TextConfig;
use crate::error::{Error, Result};
use crate::onnx::{Dim, Graph, Value};

/// What ONNX Runtime's cached attention divides head dims by.
const HEAD_DIM_UNIT: usize = 8;

/// The cache of one pass.
#[derive(Debug)]
pub enum Cache {
    /// A buffer per row, for GroupQueryAttention.
    Rows(rows::Rows),
    /// The engine's blocks.
    Shared(shared::Shared),
    /// PagedAttention's blocks.
    Paged(paged::Paged),
    /// A buffer per row that TensorScatter writes into.
    InPlace(in_place::InPlace),
}

/// One layer's attention.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// The language model.
    pub config: &'a TextConfig,
    /// Index of the layer.
    pub index: usize,
    /// The form of the graph.
    pub form: Form,
    /// M-RoPE of the new tokens, in the form's element type.
    pub rotation: &'a Rotation,
}

impl Cache {
    /// Declares the inputs that all layers share. `input_ids` is i64 `[B, S]`, `rotation` f32.
    pub fn declare(
        graph: &mut Graph,
        form: Form,
        config: &TextConfig,
        input_ids: &Value,
        rotation: &Rotation,
    ) -> Result<Self> {
        Ok(match form {
            Form::Portable
            | Form::Cuda(Cuda {
                cache: CudaCache::Rows,
                ..
            }) => Self::Rows(rows::Rows::declare(graph, config, input_ids)?),
            Form::Engine => Self::Shared(shared::Shared::declare(graph, config)),
            Form::Cuda(_) => Self::Paged(paged::Paged::declare(graph, config)?),
            Form::Trt(trt) => {
                let cache = in_place::InPlace::declare(graph, config, trt, input_ids, rotation);
                Self::InPlace(cache)
            }
        })
    }

    /// Attention of one layer: qkv `[T, (H+2K)*D]`, not rotated, to `[T, H*D]`.
    pub fn attend(&self, graph: &mut Graph, layer: &Layer<'_>, qkv: &Value) -> Value {
        match self {
            Self::Rows(rows) => rows.attend(graph, layer, qkv),
            Self::Shared(shared) => shared.attend(graph, layer, qkv),
            Self::Paged(paged) => paged.attend(graph, layer, qkv),
            Self::InPlace(in_place) => in_place.attend(graph, layer, qkv),
        }
    }
}

impl Layer<'_> {
    /// Widths of queries, keys and values in a row of projections.
    fn widths(&self) -> [usize; 3] {
        let queries = self.config.num_heads * self.config.head_dim;
        let keys = self.config.num_kv_heads * self.config.head_dim;
        [queries, keys, keys]
    }

    /// Declares a buffer of the layer, the input `name.i`.
    fn past(&self, graph: &mut Graph, name: &str, shape: &[Dim]) -> Value {
        let name = format!("{name}.{}", self.index);
        graph.input(name, self.form.elements(), shape)
    }

    /// Makes what the last node gave the output `name.i`.
    fn present(&self, graph: &mut Graph, buffer: &Value, name: &str, shape: &[Dim]) -> Value {
        let name = format!("{name}.{}", self.index);
        graph.give(buffer, &name, self.form.elements(), shape)
    }
}

fn check_head_dim(config: &TextConfig) -> Result<()> {
    if config.head_dim.is_multiple_of(HEAD_DIM_UNIT) {
        return Ok(());
    }
    Err(Error::Graph(format!(
        "head dim {} of the language model: ONNX Runtime's cached attention needs a multiple of {HEAD_DIM_UNIT}",
        config.head_dim
    )))
}
