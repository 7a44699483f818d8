//! Attention of a decoder layer (causal, over a cache) and of a vision block (over a window or a whole image).
//!
//! `// B rows, S new tokens, T = B*S, M cache slots, H heads, K kv heads, D head dim, E hidden`
//! `// N patches, W windows, L patches of the longest window`

use super::linear::{Plus, linear};
use super::rope::Rotation;
use super::weights::Weights;
use crate::config::{TextConfig, VisionConfig};
use crate::error::{Error, Result};
use crate::names::{text_layer, vision_block};
use crate::onnx::ops::{CachedAttention, PagedAttention};
use crate::onnx::{DataType, Dim, Graph, Value, size};

/// What GroupQueryAttention divides head dims by.
const HEAD_DIM_UNIT: usize = 8;

/// What every decoder layer's attention is given.
#[derive(Debug)]
pub struct Pass {
    /// M-RoPE of the new tokens.
    pub rotation: Rotation,
    /// Which tokens they follow.
    pub cache: Cache,
}

/// How a pass sees the keys and values of earlier tokens.
#[derive(Debug)]
pub enum Cache {
    /// A buffer per row and layer ([`super::Form::Portable`]).
    Rows {
        /// i64 `[B, S, -1]`: shape that splits the flat tokens into rows.
        row_shape: Value,
        /// i32 `[B]`: each row's length after the pass, minus 1.
        last_slots: Value,
        /// i32 scalar: the longest row's length.
        total_length: Value,
    },
    /// Blocks that sequences share ([`super::Form::Engine`]); see [`PagedAttention`].
    Blocks {
        /// f32 `[N, L, 2, K, block]`.
        cache: Value,
        /// i32 `[B, 4]`.
        sequences: Value,
        /// i32 `[B, M]`.
        block_table: Value,
    },
}

/// `residual + attention(x)` of decoder layer `layer`: x, normalised, and residual f32 `[T, E]`.
pub fn text_attention(
    graph: &mut Graph,
    weights: Weights<'_>,
    config: &TextConfig,
    layer: usize,
    x: &Value,
    residual: &Value,
    pass: &Pass,
) -> Result<Value> {
    let names = |kind: &str| {
        ["q", "k", "v"].map(|part| text_layer(layer, &format!("self_attn.{part}_proj.{kind}")))
    };
    let qkv_bias = weights.stacked(graph, &names("bias"))?;
    let qkv = linear(graph, weights, &names("weight"), x, Plus::Bias(&qkv_bias))?; // [T, (H+2K)*D]
    let attended = match &pass.cache {
        Cache::Rows {
            row_shape,
            last_slots,
            total_length,
        } => {
            let lengths = [last_slots, total_length];
            row_attention(
                graph,
                config,
                layer,
                &qkv,
                &pass.rotation,
                row_shape,
                lengths,
            )?
        }
        Cache::Blocks {
            cache,
            sequences,
            block_table,
        } => graph.paged_attention(&PagedAttention {
            qkv: &qkv,
            cos: &pass.rotation.cos,
            sin: &pass.rotation.sin,
            cache,
            sequences,
            block_table,
            layer,
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
        }),
    }; // [T, H*D]
    let output = [text_layer(layer, "self_attn.o_proj.weight")];
    let plus = Plus::Residual(residual);
    linear(graph, weights, &output, &attended, plus) // [T, E]
}

/// Attention over a buffer per row: qkv `[T, (H+2K)*D]` to `[T, H*D]`. Declares the layer's cache as inputs
/// `past_key.i`, `past_value.i` and outputs `present_key.i`, `present_value.i`.
fn row_attention(
    graph: &mut Graph,
    config: &TextConfig,
    layer: usize,
    qkv: &Value,
    rotation: &Rotation,
    row_shape: &Value,
    [last_slots, total_length]: [&Value; 2],
) -> Result<Value> {
    if !config.head_dim.is_multiple_of(HEAD_DIM_UNIT) {
        return Err(Error::Graph(format!(
            "head dim {} of the language model: ONNX Runtime's cached attention needs a multiple of {HEAD_DIM_UNIT}",
            config.head_dim
        )));
    }
    let (queries, keys) = (
        config.num_heads * config.head_dim,
        config.num_kv_heads * config.head_dim,
    );
    let qkv = graph.reshape(qkv, row_shape); // [B, S, (H+2K)*D]
    let [query, key, value] = graph.split(&qkv, -1, [queries, keys, keys]);
    let query = graph.rotary_embedding(&query, &rotation.cos, &rotation.sin, config.num_heads);
    let key = graph.rotary_embedding(&key, &rotation.cos, &rotation.sin, config.num_kv_heads);

    let cache_shape: [Dim; 4] = [
        "rows".into(),
        config.num_kv_heads.into(),
        "slots".into(),
        config.head_dim.into(),
    ];
    let past_key = graph.input(format!("past_key.{layer}"), DataType::Float, &cache_shape);
    let past_value = graph.input(format!("past_value.{layer}"), DataType::Float, &cache_shape);
    let [attended, present_key, present_value] = graph.group_query_attention(&CachedAttention {
        query: &query,
        key: &key,
        value: &value,
        past_key: &past_key,
        past_value: &past_value,
        last_slots,
        total_length,
        num_heads: config.num_heads,
        num_kv_heads: config.num_kv_heads,
        scale: 1.0 / (config.head_dim as f32).sqrt(),
    }); // [B, S, H*D]
    for (present, name) in [
        (present_key, "present_key"),
        (present_value, "present_value"),
    ] {
        let present = graph.rename(&present, format!("{name}.{layer}"));
        graph.output(&present, DataType::Float, &cache_shape);
    }
    Ok(graph.reshape_to(&attended, &[-1, size(queries)])) // [T, H*D]
}

/// How patches are laid out for attention: as windows or as whole images.
#[derive(Debug)]
pub struct Slots {
    /// i64 `[W, L]`: the patch in each slot.
    pub slots: Value,
    /// bool `[W, 1, L, L]`: which slots each slot may look at; `None` when all of them hold patches.
    pub mask: Option<Value>,
    /// i64 `[N]`: the slot (flat, of `W * L`) of each patch.
    pub unslot: Value,
}

impl Slots {
    /// Windows, padded to the longest: declares `window_slots`, `window_mask`, `window_unslot`.
    pub fn windows(graph: &mut Graph) -> Self {
        let shape: [Dim; 2] = ["windows".into(), "window_patches".into()];
        let slots = graph.input("window_slots", DataType::Int64, &shape);
        let mask = graph.input("window_mask", DataType::Bool, &shape); // [W, L], true = a real patch
        let unslot = graph.input("window_unslot", DataType::Int64, &["patches".into()]);
        graph.scope("windows");
        let mask = graph.unsqueeze(&mask, &[1, 2]); // [W, 1, 1, L]
        let shape = graph.shape(&slots); // (W, L)
        let [windows, length] = graph.split(&shape, 0, [1, 1]);
        let one = graph.int64(&[1], &[1]);
        let square = graph.concat(&[&windows, &one, &length, &length], 0);
        let mask = Some(graph.expand(&mask, &square)); // [W, 1, L, L]
        Self {
            slots,
            mask,
            unslot,
        }
    }

    /// Whole images, all of the same number of patches: declares `image_slots`, `image_unslot`. Without padding there
    /// is no mask, and without a mask attention needs no square of scores: an image has thousands of patches.
    pub fn images(graph: &mut Graph) -> Self {
        let shape: [Dim; 2] = ["images".into(), "image_patches".into()];
        let slots = graph.input("image_slots", DataType::Int64, &shape);
        let unslot = graph.input("image_unslot", DataType::Int64, &["patches".into()]);
        Self {
            slots,
            mask: None,
            unslot,
        }
    }
}

/// Attention of vision block `block`: x f32 `[N, E]`, normalised, to `[N, E]`.
pub fn vision_attention(
    graph: &mut Graph,
    weights: Weights<'_>,
    config: &VisionConfig,
    block: usize,
    x: &Value,
    rotation: &Rotation,
    slots: &Slots,
) -> Result<Value> {
    let hidden = config.hidden_size;
    let qkv_weight = weights.matrix(graph, &vision_block(block, "attn.qkv.weight"))?; // [3E, E]
    let qkv_bias = weights.tensor(graph, &vision_block(block, "attn.qkv.bias"))?;
    let output_weight = weights.matrix(graph, &vision_block(block, "attn.proj.weight"))?; // [E, E]
    let output_bias = weights.tensor(graph, &vision_block(block, "attn.proj.bias"))?;

    let qkv = graph.linear(x, &qkv_weight, Some(&qkv_bias)); // [N, 3E]
    let [query, key, value] = graph.split(&qkv, -1, [hidden; 3]);
    let query = rotate_patches(graph, &query, rotation, config);
    let key = rotate_patches(graph, &key, rotation, config);
    let [query, key, value] = [query, key, value].map(|part| graph.gather(&part, &slots.slots)); // [W, L, E]
    let attended = match &slots.mask {
        Some(mask) => graph.attention(&query, &key, &value, mask, config.num_heads),
        None => graph.full_attention(&query, &key, &value, config.num_heads),
    }; // [W, L, E]
    let attended = graph.reshape_to(&attended, &[-1, size(hidden)]); // [W*L, E]
    let attended = graph.gather(&attended, &slots.unslot); // [N, E]
    Ok(graph.linear(&attended, &output_weight, Some(&output_bias)))
}

/// Turns each patch by its place: x `[N, E]`.
fn rotate_patches(
    graph: &mut Graph,
    x: &Value,
    rotation: &Rotation,
    config: &VisionConfig,
) -> Value {
    let x = graph.unsqueeze(x, &[0]); // [1, N, E]
    let x = graph.rotary_embedding(&x, &rotation.cos, &rotation.sin, config.num_heads);
    graph.reshape_to(&x, &[-1, size(config.hidden_size)]) // [N, E]
}
