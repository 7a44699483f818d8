//! Operators of attention: rotation, caches, and attention itself.
//!
//! `// B rows, S new tokens, M cache slots, H heads, K kv heads, D head dim`

use super::array;
use crate::onnx::builder::{Graph, MICROSOFT, TENSOR_SCATTER, TOR, Value, float, int, size};

impl Graph {
    /// Rotates halves of each head: x `[B, S, heads * D]`, cos and sin `[B, S, D/2]`.
    pub fn rotary_embedding(
        &mut self,
        x: &Value,
        cos: &Value,
        sin: &Value,
        num_heads: usize,
    ) -> Value {
        let attributes = vec![int("num_heads", size(num_heads)), int("interleaved", 0)];
        self.one(
            "",
            "RotaryEmbedding",
            &[Some(x), Some(cos), Some(sin)],
            attributes,
        )
    }

    /// [`Self::rotary_embedding`] of heads: x `[B, heads, S, D]`.
    pub fn rotate_heads(&mut self, x: &Value, cos: &Value, sin: &Value) -> Value {
        let inputs = [x, cos, sin].map(Some);
        self.one("", "RotaryEmbedding", &inputs, vec![int("interleaved", 0)])
    }

    /// A copy of `cache` `[B, K, M, D]` with `update` `[B, K, S, D]` written from slot `first_slots[b]` (i64 `[B]`) on.
    pub fn tensor_scatter(&mut self, cache: &Value, update: &Value, first_slots: &Value) -> Value {
        let inputs = [cache, update, first_slots].map(Some);
        self.one("", TENSOR_SCATTER, &inputs, vec![int("axis", -2)])
    }

    /// Attention of heads: query `[B, H, S, D]`, key and value `[B, K, M, D]`, mask bool `[B, 1, S, M]`. Scores are taken
    /// as they are: a factor must be in the queries already. (TensorRT multiplies all keys with the root of a factor in
    /// their own type; with 1 that changes none.)
    pub fn attend_heads(
        &mut self,
        query: &Value,
        key: &Value,
        value: &Value,
        mask: Option<&Value>,
    ) -> Value {
        let inputs = [Some(query), Some(key), Some(value), mask];
        self.one("", "Attention", &inputs, vec![float("scale", 1.0)])
    }

    /// Attention without a cache, over all keys that the mask allows: q, k, v `[B, S, heads * D]`, mask bool
    /// `[B, 1, S, S]`; scores are scaled by `1 / sqrt(D)`.
    pub fn attention(
        &mut self,
        query: &Value,
        key: &Value,
        value: &Value,
        mask: &Value,
        num_heads: usize,
    ) -> Value {
        let heads = size(num_heads);
        let attributes = vec![int("q_num_heads", heads), int("kv_num_heads", heads)];
        self.one(
            "",
            "Attention",
            &[Some(query), Some(key), Some(value), Some(mask)],
            attributes,
        )
    }

    /// [`Self::attention`] over all keys, without a mask (ONNX Runtime): in tiles, with no square of scores in memory.
    pub fn full_attention(
        &mut self,
        query: &Value,
        key: &Value,
        value: &Value,
        num_heads: usize,
    ) -> Value {
        let inputs = [query, key, value].map(Some);
        let attributes = vec![int("num_heads", size(num_heads))];
        self.one(MICROSOFT, "MultiHeadAttention", &inputs, attributes)
    }

    /// Causal attention over a cache, which gets the new keys and values (ONNX Runtime): query `[B, S, H * D]`,
    /// key, value `[B, S, K * D]`, past `[B, K, M, D]`. Gives the attended values and the cache.
    pub fn group_query_attention(&mut self, inputs: &CachedAttention<'_>) -> [Value; 3] {
        let i = inputs;
        let attributes = vec![
            int("num_heads", size(i.num_heads)),
            int("kv_num_heads", size(i.num_kv_heads)),
            int("do_rotary", 0),
            float("scale", i.scale),
        ];
        let inputs = [
            i.query,
            i.key,
            i.value,
            i.past_key,
            i.past_value,
            i.last_slots,
            i.total_length,
        ]
        .map(Some);
        array(self.node(MICROSOFT, "GroupQueryAttention", &inputs, 3, attributes))
    }

    /// Causal attention over a cache in blocks, which gets the new keys and values (ONNX Runtime, CUDA alone). Gives the
    /// attended values `[T, H * D]` and the caches.
    pub fn block_attention(&mut self, inputs: &BlockAttention<'_>) -> [Value; 3] {
        let i = inputs;
        let attributes = vec![
            int("num_heads", size(i.num_heads)),
            int("kv_num_heads", size(i.num_kv_heads)),
            int("do_rotary", 0),
            float("scale", i.scale),
        ];
        let given = [
            i.query,
            i.key,
            i.value,
            i.key_cache,
            i.value_cache,
            i.cumulative_lengths,
            i.past_lengths,
            i.block_table,
        ];
        let mut inputs = given.map(Some).to_vec();
        inputs.extend([None, None, Some(i.slot_mapping)]); // no rotation
        inputs.extend([None; 5]); // no sink, no norms, no scales of a quantized cache
        inputs.push(Some(i.metadata));
        array(self.node(MICROSOFT, "PagedAttention", &inputs, 3, attributes))
    }

    /// Rotary embedding and causal attention over a paged cache, which gets the new keys and values (`tor`): to
    /// `[T, H * D]`. The operator's own documentation is in `rollout` (`engine::kernel::attention`).
    pub fn paged_attention(&mut self, inputs: &PagedAttention<'_>) -> Value {
        let i = inputs;
        let attributes = vec![
            int("layer", size(i.layer)),
            int("num_heads", size(i.num_heads)),
            int("num_kv_heads", size(i.num_kv_heads)),
            int("head_dim", size(i.head_dim)),
        ];
        let inputs = [i.qkv, i.cos, i.sin, i.cache, i.sequences, i.block_table].map(Some);
        self.one(TOR, "PagedAttention", &inputs, attributes)
    }
}

/// Inputs and dimensions of [`Graph::group_query_attention`].
#[derive(Debug, Clone, Copy)]
pub struct CachedAttention<'a> {
    /// `[B, S, H * D]`, rotated.
    pub query: &'a Value,
    /// `[B, S, K * D]`, rotated.
    pub key: &'a Value,
    /// `[B, S, K * D]`.
    pub value: &'a Value,
    /// `[B, K, M, D]`.
    pub past_key: &'a Value,
    /// `[B, K, M, D]`.
    pub past_value: &'a Value,
    /// i32 `[B]`: each row's length after this pass, minus 1.
    pub last_slots: &'a Value,
    /// i32 scalar: the longest row's length after this pass.
    pub total_length: &'a Value,
    /// H.
    pub num_heads: usize,
    /// K.
    pub num_kv_heads: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// Inputs and dimensions of [`Graph::block_attention`].
#[derive(Debug, Clone, Copy)]
pub struct BlockAttention<'a> {
    /// `[T, H * D]`, rotated.
    pub query: &'a Value,
    /// `[T, K * D]`, rotated.
    pub key: &'a Value,
    /// `[T, K * D]`.
    pub value: &'a Value,
    /// `[blocks, block_size, K, D]`.
    pub key_cache: &'a Value,
    /// `[blocks, block_size, K, D]`.
    pub value_cache: &'a Value,
    /// i32 `[N + 1]`: where each sequence's new tokens begin, and T.
    pub cumulative_lengths: &'a Value,
    /// i32 `[N]`: tokens of each in the cache.
    pub past_lengths: &'a Value,
    /// i32 `[N, M]`.
    pub block_table: &'a Value,
    /// i32 `[T]`.
    pub slot_mapping: &'a Value,
    /// i32 `[2]`, host memory.
    pub metadata: &'a Value,
    /// H.
    pub num_heads: usize,
    /// K.
    pub num_kv_heads: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// Inputs and dimensions of [`Graph::paged_attention`].
#[derive(Debug, Clone, Copy)]
pub struct PagedAttention<'a> {
    /// `[T, (H + 2K) * D]`, not rotated.
    pub qkv: &'a Value,
    /// `[1, T, D/2]`.
    pub cos: &'a Value,
    /// `[1, T, D/2]`.
    pub sin: &'a Value,
    /// `[N, L, 2, K, block]`: keys and values of all layers, in blocks.
    pub cache: &'a Value,
    /// i32 `[B, 4]`: a sequence's first new token, number of new tokens, tokens of its prefix, tokens of its own in the cache.
    pub sequences: &'a Value,
    /// i32 `[B, M]`: blocks of the prefix, then its own.
    pub block_table: &'a Value,
    /// Index into the cache.
    pub layer: usize,
    /// H.
    pub num_heads: usize,
    /// K.
    pub num_kv_heads: usize,
    /// D.
    pub head_dim: usize,
}
