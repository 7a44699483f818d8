//! How a pass of the decoder sees the keys and values of earlier tokens: a form's part of attention.
//!
//! `// B rows, S new tokens of each, T = B*S, H heads, K kv heads, D head dim`
//!
//! | module | cache | form |
//! |---|---|---|
//! | [`rows`] | a buffer per row and layer | [`Form::Portable`] |
//! | [`shared`] | blocks of all layers that sequences share | [`Form::Engine`] |
//!
//! Each declares its inputs once, and for each layer turns the new tokens' projections into what they attended to.

pub mod rows;
pub mod shared;

use super::form::Form;
use super::rope::Rotation;
use crate::config::TextConfig;
use crate::error::Result;
use crate::onnx::{DataType, Dim, Graph, Value};

/// The cache of one pass.
#[derive(Debug)]
pub enum Cache {
    /// A buffer per row, for GroupQueryAttention.
    Rows(rows::Rows),
    /// The engine's blocks.
    Shared(shared::Shared),
}

/// One layer's attention.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// The language model.
    pub config: &'a TextConfig,
    /// Index of the layer.
    pub index: usize,
    /// M-RoPE of the new tokens.
    pub rotation: &'a Rotation,
}

impl Cache {
    /// Declares the inputs that all layers share. `input_ids` is i64 `[B, S]`.
    pub fn declare(
        graph: &mut Graph,
        form: Form,
        config: &TextConfig,
        input_ids: &Value,
    ) -> Result<Self> {
        Ok(match form {
            Form::Portable => Self::Rows(rows::Rows::declare(graph, config, input_ids)?),
            Form::Engine => Self::Shared(shared::Shared::declare(graph, config)),
        })
    }

    /// Attention of one layer: qkv `[T, (H+2K)*D]`, not rotated, to `[T, H*D]`.
    pub fn attend(&self, graph: &mut Graph, layer: &Layer<'_>, qkv: &Value) -> Value {
        match self {
            Self::Rows(rows) => rows.attend(graph, layer, qkv),
            Self::Shared(shared) => shared.attend(graph, layer, qkv),
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
        graph.input(format!("{name}.{}", self.index), DataType::Float, shape)
    }

    /// Makes what the last node gave the output `name.i`.
    fn present(&self, graph: &mut Graph, buffer: &Value, name: &str, shape: &[Dim]) -> Value {
        let buffer = graph.rename(buffer, format!("{name}.{}", self.index));
        graph.output(&buffer, DataType::Float, shape);
        buffer
    }
}

/// `(B, S, -1)`, i64: the shape that splits flat tokens into rows.
fn row_shape(graph: &mut Graph, input_ids: &Value) -> Value {
    let rows = graph.shape(input_ids);
    let rest = graph.int64(&[1], &[-1]);
    graph.concat(&[&rows, &rest], 0)
}
