//! The engine's blocks, which sequences share: one buffer for all layers, written in place by `tor.PagedAttention`.
//!
//! `// L layers, K kv heads, M blocks of the longest sequence`
//!
//! | input | type | |
//! |---|---|---|
//! | `cache` | f32 `[blocks, L, 2, K, block]` | keys and values, written in place |
//! | `sequences` | i32 `[sequences, 4]` | first new token, new tokens, tokens of the prefix, own tokens in the cache |
//! | `block_table` | i32 `[sequences, M]` | blocks of the prefix, then its own |
//!
//! The new tokens of all sequences follow each other: B = 1, S = T.

use super::Layer;
use crate::config::TextConfig;
use crate::onnx::ops::PagedAttention;
use crate::onnx::{DataType, Graph, Value};

/// Inputs that all layers share; see [`PagedAttention`].
#[derive(Debug)]
pub struct Shared {
    cache: Value,
    sequences: Value,
    block_table: Value,
}

impl Shared {
    pub(super) fn declare(graph: &mut Graph, config: &TextConfig) -> Self {
        let shape = [
            "blocks".into(),
            config.num_layers.into(),
            2.into(),
            config.num_kv_heads.into(),
            "block".into(),
        ];
        Self {
            cache: graph.input("cache", DataType::Float, &shape),
            sequences: graph.input(
                "sequences",
                DataType::Int32,
                &["sequences".into(), 4.into()],
            ),
            block_table: graph.input(
                "block_table",
                DataType::Int32,
                &["sequences".into(), "table".into()],
            ),
        }
    }

    pub(super) fn attend(&self, graph: &mut Graph, layer: &Layer<'_>, qkv: &Value) -> Value {
        graph.paged_attention(&PagedAttention {
            qkv,
            cos: &layer.rotation.cos,
            sin: &layer.rotation.sin,
            cache: &self.cache,
            sequences: &self.sequences,
            block_table: &self.block_table,
            layer: layer.index,
            num_heads: layer.config.num_heads,
            num_kv_heads: layer.config.num_kv_heads,
            head_dim: layer.config.head_dim,
        })
    }
}
