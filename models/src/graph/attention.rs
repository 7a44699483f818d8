//! Attention of a decoder layer (causal, over a cache) and of a vision block (over a window or a whole image).
//!
//! `// T new tokens, H heads, K kv heads, D head dim, E hidden`
//! `// N patches, W windows, L patches of the longest window`

use super::Form;
use super::cache::{Cache, Layer};
use super::linear::{Plus, linear};
use super::rope::Rotation;
use super::weights::Weights;
use crate::config::{TextConfig, VisionConfig};
use crate::error::Result;
use crate::names::{text_layer, vision_block};
use crate::onnx::{DataType, Dim, Graph, Value, size};

/// What every decoder layer's attention is given.
#[derive(Debug)]
pub struct Pass {
    /// M-RoPE of the new tokens.
    pub rotation: Rotation,
    /// Which tokens they follow.
    pub cache: Cache,
    /// The form of the graph.
    pub form: Form,
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
    let cached = Layer {
        config,
        index: layer,
        rotation: &pass.rotation,
    };
    let attended = pass.cache.attend(graph, &cached, &qkv); // [T, H*D]
    let output = [text_layer(layer, "self_attn.o_proj.weight")];
    let plus = Plus::Residual(residual);
    linear(graph, weights, &output, &attended, plus) // [T, E]
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
