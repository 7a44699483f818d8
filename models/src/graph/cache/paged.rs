//! Blocks per layer that sequences share, for ONNX Runtime's PagedAttention (CUDA alone).
//!
//! `// T new tokens of all sequences, one after the other: B = 1, S = T`
//! `// N sequences, M blocks of the longest, H heads, K kv heads, D head dim`
//!
//! | input | type | |
//! |---|---|---|
//! | `cumulative_lengths` | i32 `[N + 1]` | where each sequence's new tokens begin, and T; each has at least one |
//! | `past_lengths` | i32 `[N]` | tokens of each in the cache |
//! | `block_table` | i32 `[N, M]` | token `t` of a sequence lies in its block `t / BLOCK_SIZE` |
//! | `slot_mapping` | i32 `[T]` | `block * BLOCK_SIZE + offset` that each new token is written to; -1 for none |
//! | `attention_metadata` | i32 `[2]`, host memory | bounds of the new tokens and of all tokens of a sequence |
//! | `key_cache.i`, `value_cache.i` | `[blocks, BLOCK_SIZE, K, D]` | |
//!
//! The outputs `key_cache_out.i`, `value_cache_out.i` are the same memory and must be bound to it.
//!
//! The samples of a group share the blocks that their prompt fills. What is left of it, less than a block, every sample
//! has in a block of its own: one has read the prompt, the others read its rest again, as new tokens after the shared
//! blocks, in a later pass.

use super::{Layer, check_head_dim};
use crate::config::TextConfig;
use crate::error::Result;
use crate::onnx::ops::BlockAttention;
use crate::onnx::{DataType, Dim, Graph, Value, size};

/// Tokens in a block: what FlashAttention takes at once for head dim 128. Smaller blocks make ONNX Runtime gather a dense
/// copy of the cache in every step.
pub const BLOCK_SIZE: usize = 128;

/// Inputs that all layers share.
#[derive(Debug)]
pub struct Paged {
    cumulative_lengths: Value,
    past_lengths: Value,
    block_table: Value,
    slot_mapping: Value,
    metadata: Value,
}

impl Paged {
    pub(super) fn declare(graph: &mut Graph, config: &TextConfig) -> Result<Self> {
        check_head_dim(config)?;
        let mut input = |name: &str, shape: &[Dim]| graph.input(name, DataType::Int32, shape);
        Ok(Self {
            cumulative_lengths: input("cumulative_lengths", &["sequence_ends".into()]),
            past_lengths: input("past_lengths", &["sequences".into()]),
            block_table: input("block_table", &["sequences".into(), "table".into()]),
            slot_mapping: input("slot_mapping", &["width".into()]),
            metadata: input("attention_metadata", &[2.into()]),
        })
    }

    pub(super) fn attend(&self, graph: &mut Graph, layer: &Layer<'_>, qkv: &Value) -> Value {
        let (config, rotation) = (layer.config, layer.rotation);
        let [query, key, value] = graph.split(qkv, -1, layer.widths()); // [T, heads * D]
        let mut rotate = |x: &Value, num_heads: usize| {
            let x = graph.unsqueeze(x, &[0]); // [1, T, heads * D]
            let x = graph.rotary_embedding(&x, &rotation.cos, &rotation.sin, num_heads);
            graph.reshape_to(&x, &[-1, size(num_heads * config.head_dim)])
        };
        let query = rotate(&query, config.num_heads);
        let key = rotate(&key, config.num_kv_heads);

        let shape: [Dim; 4] = [
            "blocks".into(),
            BLOCK_SIZE.into(),
            config.num_kv_heads.into(),
            config.head_dim.into(),
        ];
        let key_cache = layer.past(graph, "key_cache", &shape);
        let value_cache = layer.past(graph, "value_cache", &shape);
        let [attended, keys, values] = graph.block_attention(&BlockAttention {
            query: &query,
            key: &key,
            value: &value,
            key_cache: &key_cache,
            value_cache: &value_cache,
            cumulative_lengths: &self.cumulative_lengths,
            past_lengths: &self.past_lengths,
            block_table: &self.block_table,
            slot_mapping: &self.slot_mapping,
            metadata: &self.metadata,
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
        });
        layer.present(graph, &keys, "key_cache_out", &shape);
        layer.present(graph, &values, "value_cache_out", &shape);
        attended // [T, H*D]
    }
}
