//! One function per operator. Shapes are those of the operator's documentation; standard operators are of set 23,
//! `com.microsoft` is ONNX Runtime's own domain, `tor` that of the operators which `rollout` brings along.

use super::builder::{Graph, MICROSOFT, TOR, Value, float, int, size};
use super::proto::DataType;

impl Graph {
    /// `a + b`.
    pub fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.standard("Add", &[a, b])
    }

    /// `a * b`.
    pub fn mul(&mut self, a: &Value, b: &Value) -> Value {
        self.standard("Mul", &[a, b])
    }

    /// `1 / (1 + exp(-x))`.
    pub fn sigmoid(&mut self, x: &Value) -> Value {
        self.standard("Sigmoid", &[x])
    }

    /// `x * Phi(x)`, the exact form.
    pub fn gelu(&mut self, x: &Value) -> Value {
        self.standard("Gelu", &[x])
    }

    /// Cosine.
    pub fn cos(&mut self, x: &Value) -> Value {
        self.standard("Cos", &[x])
    }

    /// Sine.
    pub fn sin(&mut self, x: &Value) -> Value {
        self.standard("Sin", &[x])
    }

    /// Converts the element type.
    pub fn cast(&mut self, x: &Value, to: DataType) -> Value {
        self.one(
            "",
            "Cast",
            &[Some(x)],
            vec![int("to", i64::from(i32::from(to)))],
        )
    }

    /// The shape, i64.
    pub fn shape(&mut self, x: &Value) -> Value {
        self.standard("Shape", &[x])
    }

    /// Another shape for the same elements; -1 is what is left, 0 copies the dimension.
    pub fn reshape(&mut self, x: &Value, shape: &Value) -> Value {
        self.standard("Reshape", &[x, shape])
    }

    /// [`Self::reshape`] to a shape known now.
    pub fn reshape_to(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.int64(&[shape.len()], shape);
        self.reshape(x, &shape)
    }

    /// Repeats dimensions of size 1.
    pub fn expand(&mut self, x: &Value, shape: &Value) -> Value {
        self.standard("Expand", &[x, shape])
    }

    /// Inserts dimensions of size 1.
    pub fn unsqueeze(&mut self, x: &Value, axes: &[i64]) -> Value {
        let axes = self.int64(&[axes.len()], axes);
        self.standard("Unsqueeze", &[x, &axes])
    }

    /// Joins along `axis`.
    pub fn concat(&mut self, parts: &[&Value], axis: i64) -> Value {
        let inputs: Vec<_> = parts.iter().map(|&part| Some(part)).collect();
        self.one("", "Concat", &inputs, vec![int("axis", axis)])
    }

    /// Cuts along `axis` into pieces of the sizes given.
    pub fn split<const PARTS: usize>(
        &mut self,
        x: &Value,
        axis: i64,
        sizes: [usize; PARTS],
    ) -> [Value; PARTS] {
        let sizes = self.int64(&[PARTS], &sizes.map(size));
        let outputs = self.node(
            "",
            "Split",
            &[Some(x), Some(&sizes)],
            PARTS,
            vec![int("axis", axis)],
        );
        let mut outputs = outputs.into_iter();
        std::array::from_fn(|_| outputs.next().unwrap_or_else(|| Value(String::new())))
    }

    /// Rows of `x` by index along the first axis.
    pub fn gather(&mut self, x: &Value, indices: &Value) -> Value {
        self.one(
            "",
            "Gather",
            &[Some(x), Some(indices)],
            vec![int("axis", 0)],
        )
    }

    /// A copy of `x` with the rows at `indices` (`[n, 1]`) replaced by `updates` (`[n, ...]`).
    pub fn scatter_rows(&mut self, x: &Value, indices: &Value, updates: &Value) -> Value {
        self.standard("ScatterND", &[x, indices, updates])
    }

    /// Sum over `axis`, which goes away.
    pub fn reduce_sum(&mut self, x: &Value, axis: i64) -> Value {
        let axes = self.int64(&[1], &[axis]);
        self.one(
            "",
            "ReduceSum",
            &[Some(x), Some(&axes)],
            vec![int("keepdims", 0)],
        )
    }

    /// `x W^T + b`: x `[n, in]`, weight `[out, in]` as checkpoints store it, bias `[out]`.
    pub fn linear(&mut self, x: &Value, weight: &Value, bias: Option<&Value>) -> Value {
        self.one(
            "",
            "Gemm",
            &[Some(x), Some(weight), bias],
            vec![int("transB", 1)],
        )
    }

    /// `x / sqrt(mean(x^2) + epsilon) * weight` over the last axis, in f32.
    pub fn rms_norm(&mut self, x: &Value, weight: &Value, epsilon: f32) -> Value {
        let attributes = vec![int("axis", -1), float("epsilon", epsilon)];
        self.one("", "RMSNormalization", &[Some(x), Some(weight)], attributes)
    }

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
        let outputs = self.node(MICROSOFT, "GroupQueryAttention", &inputs, 3, attributes);
        let mut outputs = outputs.into_iter();
        std::array::from_fn(|_| outputs.next().unwrap_or_else(|| Value(String::new())))
    }

    /// `silu(gate) * up` (`tor`): gate_up `[T, 2F]`, gate in the first half of a row, to `[T, F]`.
    pub fn silu_mul(&mut self, gate_up: &Value) -> Value {
        self.one(TOR, "SiluMul", &[Some(gate_up)], Vec::new())
    }

    /// A product with a packed matrix (`tor`): x f32 `[T, I]` to `[T, O]`, `plus` `[O]` or `[T, O]` added; or, gated, to `[T, O/2]`.
    /// The operators' own documentation is in `rollout` (`engine::kernel::linear`, `int8_linear`).
    pub fn packed_linear(&mut self, x: &Value, weight: &Packed, plus: Option<&Value>) -> Value {
        let mut inputs = vec![Some(x), Some(&weight.panels)];
        inputs.extend(weight.scales.iter().flatten().map(Some));
        inputs.push(plus);
        let attributes = vec![
            int("width", size(weight.width)),
            int("gated", i64::from(weight.is_gated)),
        ];
        let operator = match weight.scales {
            None => "Linear",
            Some(_) => "Int8Linear",
        };
        self.one(TOR, operator, &inputs, attributes)
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

    fn standard(&mut self, op_type: &str, inputs: &[&Value]) -> Value {
        let inputs: Vec<_> = inputs.iter().map(|&input| Some(input)).collect();
        self.one("", op_type, &inputs, Vec::new())
    }

    fn one(
        &mut self,
        domain: &str,
        op_type: &str,
        inputs: &[Option<&Value>],
        attributes: Vec<super::proto::AttributeProto>,
    ) -> Value {
        // A trailing input that is left out is not written at all.
        let used = inputs
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |last| last + 1);
        self.node(domain, op_type, &inputs[..used], 1, attributes)
            .remove(0)
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

/// A packed matrix; see [`crate::checkpoint::PackedMatrix`].
#[derive(Debug, Clone)]
pub struct Packed {
    /// f32 `[panels, in, PANEL]` or i8 `[panels, groups, PANEL, GROUP]`.
    pub panels: Value,
    /// Of a matrix in 8 bits: scale and sum of each output channel, f32 and i32 `[panels, PANEL]`.
    pub scales: Option<[Value; 2]>,
    /// Columns of the product.
    pub width: usize,
    /// Whether the first half of the output channels are gates of the second.
    pub is_gated: bool,
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
