//! A buffer per row and layer, for GroupQueryAttention.
//!
//! `// B rows, S new tokens, T = B*S, M cache slots, H heads, K kv heads, D head dim`
//!
//! | input | type | |
//! |---|---|---|
//! | `seqlens_k` | i32 `[B]` | length of the row after the pass, minus 1 |
//! | `total_length` | i32 | length of the longest row after the pass; S for a first prompt |
//! | `past_key.i`, `past_value.i` | `[B, K, M, D]` | |
//!
//! The outputs `present_key.i`, `present_value.i` are meant to be bound to the memory of the past. `S > 1` only as a first
//! prompt, padded on the right; `S = 1` adds a token to rows of any length.

use super::{Layer, check_head_dim};
use crate::config::TextConfig;
use crate::error::Result;
use crate::onnx::ops::CachedAttention;
use crate::onnx::{DataType, Dim, Graph, Value, size};

/// Inputs that all layers share.
#[derive(Debug)]
pub struct Rows {
    row_shape: Value,
    last_slots: Value,
    total_length: Value,
}

impl Rows {
    pub(super) fn declare(
        graph: &mut Graph,
        config: &TextConfig,
        input_ids: &Value,
    ) -> Result<Self> {
        check_head_dim(config)?;
        Ok(Self {
            row_shape: row_shape(graph, input_ids),
            last_slots: graph.input("seqlens_k", DataType::Int32, &["rows".into()]),
            total_length: graph.input("total_length", DataType::Int32, &[]),
        })
    }

    pub(super) fn attend(&self, graph: &mut Graph, layer: &Layer<'_>, qkv: &Value) -> Value {
        let (config, rotation) = (layer.config, layer.rotation);
        let qkv = graph.reshape(qkv, &self.row_shape); // [B, S, (H+2K)*D]
        let [query, key, value] = graph.split(&qkv, -1, layer.widths());
        let query = graph.rotary_embedding(&query, &rotation.cos, &rotation.sin, config.num_heads);
        let key = graph.rotary_embedding(&key, &rotation.cos, &rotation.sin, config.num_kv_heads);

        let shape: [Dim; 4] = [
            "rows".into(),
            config.num_kv_heads.into(),
            "slots".into(),
            config.head_dim.into(),
        ];
        let past_key = layer.past(graph, "past_key", &shape);
        let past_value = layer.past(graph, "past_value", &shape);
        let [attended, present_key, present_value] =
            graph.group_query_attention(&CachedAttention {
                query: &query,
                key: &key,
                value: &value,
                past_key: &past_key,
                past_value: &past_value,
                last_slots: &self.last_slots,
                total_length: &self.total_length,
                num_heads: config.num_heads,
                num_kv_heads: config.num_kv_heads,
                scale: 1.0 / (config.head_dim as f32).sqrt(),
            }); // [B, S, H*D]
        layer.present(graph, &present_key, "present_key", &shape);
        layer.present(graph, &present_value, "present_value", &shape);
        graph.reshape_to(&attended, &[-1, size(config.num_heads * config.head_dim)]) // [T, H*D]
    }
}

/// `(B, S, -1)`, i64: the shape that splits flat tokens into rows.
fn row_shape(graph: &mut Graph, input_ids: &Value) -> Value {
    let rows = graph.shape(input_ids);
    let rest = graph.int64(&[1], &[-1]);
    graph.concat(&[&rows, &rest], 0)
}
