//! The published names of the tensors, with their shapes, in the order in which weights are published.
//!
//! Matrices that are multiplied with the same input stand side by side (q, k, v; gate, up), so that one slice of the
//! weights file is the packed matrix.

// E hidden, V vocab, H heads, K kv heads, D head dim

use crate::config::ModelConfig;

/// The embedding table, `[V, E]`; also the output head of a tied model.
pub const EMBED_TOKENS: &str = "model.embed_tokens.weight";
/// The norm after the last decoder layer, `[E]`.
pub const FINAL_NORM: &str = "model.norm.weight";
/// The output head of an untied model, `[V, E]`.
pub const LM_HEAD: &str = "lm_head.weight";
/// The patch embedding, `[E_vision, channels, temporal_patch, patch, patch]`.
pub const PATCH_EMBED: &str = "visual.patch_embed.proj.weight";

/// A tensor's published name and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name on the hub.
    pub name: String,
    /// Shape; matrices are `[out, in]`.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Elements of the tensor.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Name of a tensor of decoder layer `layer`, e.g. `text_layer(0, "self_attn.q_proj.weight")`.
pub fn text_layer(layer: usize, tensor: &str) -> String {
    format!("model.layers.{layer}.{tensor}")
}

/// Name of a tensor of vision block `block`, e.g. `vision_block(0, "attn.qkv.weight")`.
pub fn vision_block(block: usize, tensor: &str) -> String {
    format!("visual.blocks.{block}.{tensor}")
}

/// Name of a tensor of the merger, e.g. `merger("mlp.0.weight")`.
pub fn merger(tensor: &str) -> String {
    format!("visual.merger.{tensor}")
}

/// The matrix that gives the logits: the embedding table where the two are tied.
#[must_use]
pub const fn head_name(is_tied: bool) -> &'static str {
    if is_tied { EMBED_TOKENS } else { LM_HEAD }
}

/// Every tensor of a model, in publication order. A tied model has no [`LM_HEAD`].
pub fn tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let mut specs = text_tensors(config);
    specs.extend(vision_tensors(config));
    specs
}

fn text_tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let text = &config.text;
    let (hidden, mlp, vocab) = (text.hidden_size, text.intermediate_size, text.vocab_size);
    let (queries, keys) = (
        text.num_heads * text.head_dim,
        text.num_kv_heads * text.head_dim,
    ); // H*D, K*D
    let mut specs = vec![spec(EMBED_TOKENS, &[vocab, hidden])];
    for layer in 0..text.num_layers {
        let mut add =
            |tensor: &str, shape: &[usize]| specs.push(spec(text_layer(layer, tensor), shape));
        add("input_layernorm.weight", &[hidden]);
        add("self_attn.q_proj.weight", &[queries, hidden]);
        add("self_attn.k_proj.weight", &[keys, hidden]);
        add("self_attn.v_proj.weight", &[keys, hidden]);
        add("self_attn.q_proj.bias", &[queries]);
        add("self_attn.k_proj.bias", &[keys]);
        add("self_attn.v_proj.bias", &[keys]);
        add("self_attn.o_proj.weight", &[hidden, queries]);
        add("post_attention_layernorm.weight", &[hidden]);
        add("mlp.gate_proj.weight", &[mlp, hidden]);
        add("mlp.up_proj.weight", &[mlp, hidden]);
        add("mlp.down_proj.weight", &[hidden, mlp]);
    }
    specs.push(spec(FINAL_NORM, &[hidden]));
    if !config.tie_word_embeddings {
        specs.push(spec(LM_HEAD, &[vocab, hidden]));
    }
    specs
}

fn vision_tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let vision = &config.vision;
    let (hidden, mlp) = (vision.hidden_size, vision.intermediate_size);
    let patch = [
        hidden,
        vision.in_channels,
        vision.temporal_patch_size,
        vision.patch_size,
        vision.patch_size,
    ];
    let mut specs = vec![spec(PATCH_EMBED, &patch)];
    for block in 0..vision.depth {
        let mut add =
            |tensor: &str, shape: &[usize]| specs.push(spec(vision_block(block, tensor), shape));
        add("norm1.weight", &[hidden]);
        add("attn.qkv.weight", &[3 * hidden, hidden]);
        add("attn.qkv.bias", &[3 * hidden]);
        add("attn.proj.weight", &[hidden, hidden]);
        add("attn.proj.bias", &[hidden]);
        add("norm2.weight", &[hidden]);
        add("mlp.gate_proj.weight", &[mlp, hidden]);
        add("mlp.up_proj.weight", &[mlp, hidden]);
        add("mlp.gate_proj.bias", &[mlp]);
        add("mlp.up_proj.bias", &[mlp]);
        add("mlp.down_proj.weight", &[hidden, mlp]);
        add("mlp.down_proj.bias", &[hidden]);
    }
    let merged = hidden * vision.spatial_merge_size.pow(2);
    specs.push(spec(merger("ln_q.weight"), &[hidden]));
    specs.push(spec(merger("mlp.0.weight"), &[merged, merged]));
    specs.push(spec(merger("mlp.0.bias"), &[merged]));
    specs.push(spec(
        merger("mlp.2.weight"),
        &[vision.out_hidden_size, merged],
    ));
    specs.push(spec(merger("mlp.2.bias"), &[vision.out_hidden_size]));
    specs
}

fn spec(name: impl Into<String>, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        shape: shape.to_vec(),
    }
}
