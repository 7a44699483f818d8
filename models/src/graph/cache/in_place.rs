//! A buffer of fixed size per row and layer, written by TensorScatter: TensorRT's KVCacheUpdate.
//!
//! `// B rows, S new tokens, T = B*S, M cache slots, H heads, K kv heads, D head dim`
//!
//! | input | type | |
//! |---|---|---|
//! | `token_slots` | i64 `[B, S]` | the slot of each new token: a row's are consecutive, padding counted, and below M |
//! | `past_key.i`, `past_value.i` | `[B, K, M, D]` | finite everywhere: fill new memory with zeros |
//!
//! The outputs `present_key.i`, `present_value.i` must be bound to the memory of the past. Any number of new tokens may
//! follow any number of earlier ones, row by row; padding stands on the right, and is overwritten by the next pass.
//!
//! The mask is made here, by comparing `token_slots` with the numbers 0..M: the host sends 8 bytes per token, not M.

use super::Layer;
use crate::config::TextConfig;
use crate::graph::form::Trt;
use crate::graph::heads::{Heads, attend, rotate};
use crate::graph::rope::Rotation;
use crate::onnx::{DataType, Dim, Graph, Value, size};

/// Inputs that all layers share.
#[derive(Debug)]
pub struct InPlace {
    /// i64 `(B, S, H + 2K, D)`.
    head_shape: Value,
    /// i64 `[B]`: where each row's new tokens begin.
    first_slots: Value,
    /// bool `[B, 1, S, M]`.
    mask: Value,
    /// The queries' rotation, with the factor of the scores in it.
    queries: Rotation,
    /// M.
    num_slots: usize,
}

impl InPlace {
    pub(super) fn declare(
        graph: &mut Graph,
        config: &TextConfig,
        trt: Trt,
        input_ids: &Value,
        rotation: &Rotation,
    ) -> Self {
        let shape = ["rows".into(), "width".into()];
        let token_slots = graph.input("token_slots", DataType::Int64, &shape);
        graph.scope("cache");
        let zero = graph.int64(&[], &[0]);
        let numbers: Vec<i64> = (0..size(trt.slots)).collect();
        let all_slots = graph.named_int64("cache.slots", &[1, 1, 1, trt.slots], &numbers);
        let own_slots = graph.unsqueeze(&token_slots, &[1, 3]); // [B, 1, S, 1]
        let heads = [config.num_heads + 2 * config.num_kv_heads, config.head_dim].map(size);
        let heads = graph.int64(&[2], &heads);
        let rows = graph.shape(input_ids); // (B, S)
        let queries = rotation.scaled(graph, config.head_dim);
        Self {
            head_shape: graph.concat(&[&rows, &heads], 0),
            first_slots: graph.gather_along(&token_slots, &zero, 1), // [B]
            mask: graph.less_or_equal(&all_slots, &own_slots),       // [B, 1, S, M]
            queries: queries.cast(graph, trt.elements.into()),
            num_slots: trt.slots,
        }
    }

    pub(super) fn attend(&self, graph: &mut Graph, layer: &Layer<'_>, qkv: &Value) -> Value {
        let (config, form) = (layer.config, layer.form);
        let (num_heads, num_kv_heads) = (config.num_heads, config.num_kv_heads);
        let head_dim = config.head_dim;
        let qkv = graph.reshape(qkv, &self.head_shape); // [B, S, H+2K, D]
        let qkv = graph.transpose(&qkv, &[0, 2, 1, 3]); // [B, H+2K, S, D]
        let [query, key, value] = graph.split(&qkv, 1, [num_heads, num_kv_heads, num_kv_heads]);
        let query = rotate(graph, form, &query, &self.queries, head_dim);
        let key = rotate(graph, form, &key, layer.rotation, head_dim);

        let shape: [Dim; 4] = [
            "rows".into(),
            num_kv_heads.into(),
            self.num_slots.into(),
            head_dim.into(),
        ];
        let past_key = layer.past(graph, "past_key", &shape);
        let past_value = layer.past(graph, "past_value", &shape);
        let key = graph.tensor_scatter(&past_key, &key, &self.first_slots);
        let key = layer.present(graph, &key, "present_key", &shape);
        let value = graph.tensor_scatter(&past_value, &value, &self.first_slots);
        let value = layer.present(graph, &value, "present_value", &shape);
        let heads = Heads {
            query: &query,
            key: &key,
            value: &value,
            mask: Some(&self.mask),
            num_heads,
            num_kv_heads,
            head_dim,
            num_keys: Some(self.num_slots),
        };
        attend(graph, form, &heads) // [T, H*D]
    }
}
