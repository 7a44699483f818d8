//! Attention of a decoder layer (causal, over a cache) and of a vision block (over a window or a whole image).
//!
//! `// T new tokens, H heads, K kv heads, D head dim, E hidden`
//! `// N patches, W windows, L patches of the longest window`

use super::Form;
use super::cache::{Cache, Layer};
use super::heads::{Heads, attend, rotate};
use super::linear::{Plus, linear};
use super::rope::{Rotation, cast};
use super::weights::Weights;
use crate::config::{TextConfig, VisionConfig};
use crate::error::Result;
use crate::names::{text_layer, vision_block};
use crate::onnx::{DataType, Dim, Graph, Value, size};

/// What every decoder layer's attention is given.
#[derive(Debug)]
pub struct Pass {
    /// M-RoPE of the new tokens, in the form's element type.
    pub rotation: Rotation,
    /// Which tokens they follow.
    pub cache: Cache,
    /// The form of the graph.
    pub form: Form,
}

/// `residual + attention(x)` of decoder layer `layer`: x, normalised, and residual `[T, E]`.
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
        form: pass.form,
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

/// How attention of vision blocks sees patches.
#[derive(Debug)]
pub struct Places<'a> {
    /// Which patches look at each other.
    slots: &'a Slots,
    /// Of queries: of patches `[1, N, D/2]`, or for a device of slots `[W, L, D/2]` and with the factor of the scores in it.
    queries: Rotation,
    /// The same of keys, without a factor.
    keys: Rotation,
    form: Form,
}

impl<'a> Places<'a> {
    /// Patches in `slots`; `rotation` is f32 `[1, N, D/2]`.
    pub fn new(
        graph: &mut Graph,
        form: Form,
        slots: &'a Slots,
        rotation: &Rotation,
        head_dim: usize,
    ) -> Self {
        let (queries, keys) = if form.is_for_device() {
            let keys = rotation.map(|table| {
                let table = graph.reshape_to(table, &[-1, size(head_dim / 2)]); // [N, D/2]
                graph.gather(&table, &slots.slots) // [W, L, D/2]
            });
            (keys.scaled(graph, head_dim), keys)
        } else {
            (rotation.clone(), rotation.clone())
        };
        Self {
            slots,
            queries,
            keys,
            form,
        }
    }

    /// The form of the graph.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }
}

/// Attention of vision block `block`: x `[N, E]`, normalised, to `[N, E]`.
pub fn vision_attention(
    graph: &mut Graph,
    weights: Weights<'_>,
    config: &VisionConfig,
    block: usize,
    x: &Value,
    places: &Places<'_>,
) -> Result<Value> {
    let qkv_weight = weights.matrix(graph, &vision_block(block, "attn.qkv.weight"))?; // [3E, E]
    let qkv_bias = weights.tensor(graph, &vision_block(block, "attn.qkv.bias"))?;
    let output_weight = weights.matrix(graph, &vision_block(block, "attn.proj.weight"))?; // [E, E]
    let output_bias = weights.tensor(graph, &vision_block(block, "attn.proj.bias"))?;

    let qkv = graph.linear(x, &qkv_weight, Some(&qkv_bias)); // [N, 3E]
    let attended = if places.form.is_for_device() {
        attend_by_head(graph, config, &qkv, places)
    } else {
        attend_by_row(graph, config, &qkv, places)
    }; // [W*L, E]
    let attended = graph.gather(&attended, &places.slots.unslot); // [N, E]
    Ok(graph.linear(&attended, &output_weight, Some(&output_bias)))
}

/// In ONNX Runtime's operators: qkv `[N, 3E]` to `[W*L, E]`.
fn attend_by_row(
    graph: &mut Graph,
    config: &VisionConfig,
    qkv: &Value,
    places: &Places<'_>,
) -> Value {
    let slots = places.slots;
    let [query, key, value] = graph.split(qkv, -1, [config.hidden_size; 3]);
    let query = rotate_patches(graph, &query, &places.queries, config);
    let key = rotate_patches(graph, &key, &places.keys, config);
    let [query, key, value] = [query, key, value].map(|part| graph.gather(&part, &slots.slots)); // [W, L, E]
    let attended = match &slots.mask {
        Some(mask) => graph.attention(&query, &key, &value, mask, config.num_heads),
        None => graph.full_attention(&query, &key, &value, config.num_heads),
    }; // [W, L, E]
    graph.reshape_to(&attended, &[-1, size(config.hidden_size)])
}

/// In standard operators alone: qkv `[N, 3E]` to `[W*L, E]`. Rotation is in f32, as published.
fn attend_by_head(
    graph: &mut Graph,
    config: &VisionConfig,
    qkv: &Value,
    places: &Places<'_>,
) -> Value {
    let (slots, form) = (places.slots, places.form);
    let (num_heads, head_dim) = (config.num_heads, config.head_dim);
    let heads = [3 * num_heads, head_dim].map(size);
    let qkv = graph.gather(qkv, &slots.slots); // [W, L, 3E]
    let qkv = graph.reshape_to(&qkv, &[0, 0, heads[0], heads[1]]); // [W, L, 3H, D]
    let qkv = graph.transpose(&qkv, &[0, 2, 1, 3]); // [W, 3H, L, D]
    let [query, key, value] = graph.split(&qkv, 1, [num_heads; 3]);
    let [query, key] = [(query, &places.queries), (key, &places.keys)].map(|(x, rotation)| {
        let wide = cast(graph, &x, form.elements(), DataType::Float);
        let rotated = rotate(graph, form, &wide, rotation, head_dim);
        cast(graph, &rotated, DataType::Float, form.elements())
    });
    let heads = Heads {
        query: &query,
        key: &key,
        value: &value,
        mask: slots.mask.as_ref(),
        num_heads,
        num_kv_heads: num_heads,
        head_dim,
        num_keys: None,
    };
    attend(graph, form, &heads)
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
