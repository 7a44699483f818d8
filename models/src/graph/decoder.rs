//! `decoder.onnx`: the language model over new tokens and a cache.
//!
//! `// B rows, S new tokens per row, T = B*S, M cache slots, N image tokens, R rows of logits, E hidden, V vocab`
//!
//! | input of both forms | type | |
//! |---|---|---|
//! | `input_ids` | i64 `[B, S]` | |
//! | `position_ids` | i64 `[3, B, S]` | temporal, height, width |
//! | `image_embeds` | f32 `[N, E]` | N may be 0 |
//! | `image_positions` | i64 `[N]` | flat `b * S + s` of the token that each replaces |
//! | `logit_positions` | i64 `[R]` | flat `b * S + s` |
//!
//! Output: `logits` f32 `[R, V]`.
//!
//! | input of [`Form::Portable`] | type | |
//! |---|---|---|
//! | `seqlens_k` | i32 `[B]` | length of the row after the pass, minus 1 |
//! | `total_length` | i32 | length of the longest row after the pass; S for a first prompt |
//! | `past_key.i`, `past_value.i` | f32 `[B, K, M, D]` | |
//!
//! Its further outputs `present_key.i`, `present_value.i` are meant to be bound to the memory of the past. `S > 1` only
//! as a first prompt, padded on the right; `S = 1` adds a token to rows of any length.
//!
//! | input of [`Form::Engine`] | type | |
//! |---|---|---|
//! | `cache` | f32 `[blocks, L, 2, K, block]` | keys and values, written in place |
//! | `sequences` | i32 `[sequences, 4]` | first new token, new tokens, tokens of the prefix, own tokens in the cache |
//! | `block_table` | i32 `[sequences, M]` | blocks of the prefix, then its own |
//!
//! Here the new tokens of all sequences follow each other: B = 1, S = T.

use super::Form;
use super::attention::{Cache, Pass, text_attention};
use super::linear::{Plus, linear};
use super::mlp::{Mlp, mlp};
use super::rope::text_rotation;
use super::weights::Weights;
use crate::checkpoint::{F32Layout, PackedMatrix};
use crate::config::{ModelConfig, TextConfig};
use crate::error::Result;
use crate::names::{EMBED_TOKENS, FINAL_NORM, head_name, text_layer};
use crate::onnx::{DataType, Graph, Value};

/// The graph's bytes.
pub fn build(
    config: &ModelConfig,
    layout: &F32Layout,
    packed: &[PackedMatrix],
    form: Form,
) -> Result<Vec<u8>> {
    let text = &config.text;
    let weights = Weights::new(layout).with_packed(packed);
    let mut graph = Graph::new("decoder", super::WEIGHTS_FILE);
    let graph = &mut graph;

    let input_ids = graph.input(
        "input_ids",
        DataType::Int64,
        &["rows".into(), "width".into()],
    );
    let position_ids = graph.input(
        "position_ids",
        DataType::Int64,
        &[3.into(), "rows".into(), "width".into()],
    );
    let image_embeds = graph.input(
        "image_embeds",
        DataType::Float,
        &["image_tokens".into(), text.hidden_size.into()],
    );
    let image_positions = graph.input("image_positions", DataType::Int64, &["image_tokens".into()]);
    let logit_positions = graph.input("logit_positions", DataType::Int64, &["logit_rows".into()]);

    let embeddings = weights.tensor(graph, EMBED_TOKENS)?; // [V, E]
    let mut hidden = embed(
        graph,
        &embeddings,
        &input_ids,
        &image_embeds,
        &image_positions,
    ); // [T, E]
    let rotation = text_rotation(graph, &position_ids, text)?;
    let cache = match form {
        Form::Portable => Cache::Rows {
            row_shape: row_shape(graph, &input_ids),
            last_slots: graph.input("seqlens_k", DataType::Int32, &["rows".into()]),
            total_length: graph.input("total_length", DataType::Int32, &[]),
        },
        Form::Engine => block_cache(graph, text),
    };
    let pass = Pass { rotation, cache };
    for layer in 0..text.num_layers {
        hidden = decoder_layer(graph, weights, text, layer, &hidden, &pass)?;
    }

    graph.scope("head");
    let wanted = graph.gather(&hidden, &logit_positions); // [R, E]
    let wanted = norm(graph, weights, text, FINAL_NORM, &wanted)?;
    let head = [head_name(config.tie_word_embeddings).to_owned()];
    let logits = linear(graph, weights, &head, &wanted, Plus::Nothing)?; // [R, V]
    let logits = graph.rename(&logits, "logits");
    graph.output(
        &logits,
        DataType::Float,
        &["logit_rows".into(), text.vocab_size.into()],
    );
    Ok(std::mem::replace(graph, Graph::new("", "")).into_bytes())
}

/// Token embeddings `[T, E]`, those at image tokens replaced by the images'.
fn embed(
    graph: &mut Graph,
    embeddings: &Value,
    input_ids: &Value,
    image_embeds: &Value,
    image_positions: &Value,
) -> Value {
    graph.scope("embed");
    let flat_ids = graph.reshape_to(input_ids, &[-1]); // [T]
    let hidden = graph.gather(embeddings, &flat_ids); // [T, E]
    let image_rows = graph.unsqueeze(image_positions, &[-1]); // [N, 1]
    graph.scatter_rows(&hidden, &image_rows, image_embeds)
}

/// `(B, S, -1)`.
fn row_shape(graph: &mut Graph, input_ids: &Value) -> Value {
    let rows = graph.shape(input_ids);
    let rest = graph.int64(&[1], &[-1]);
    graph.concat(&[&rows, &rest], 0)
}

/// The inputs of a cache in blocks.
fn block_cache(graph: &mut Graph, text: &TextConfig) -> Cache {
    let shape = [
        "blocks".into(),
        text.num_layers.into(),
        2.into(),
        text.num_kv_heads.into(),
        "block".into(),
    ];
    Cache::Blocks {
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

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
fn decoder_layer(
    graph: &mut Graph,
    weights: Weights<'_>,
    config: &TextConfig,
    layer: usize,
    hidden: &Value,
    pass: &Pass,
) -> Result<Value> {
    graph.scope(format!("layers.{layer}.attention"));
    let normed = norm(
        graph,
        weights,
        config,
        &text_layer(layer, "input_layernorm.weight"),
        hidden,
    )?;
    let hidden = text_attention(graph, weights, config, layer, &normed, hidden, pass)?;

    graph.scope(format!("layers.{layer}.mlp"));
    let normed = norm(
        graph,
        weights,
        config,
        &text_layer(layer, "post_attention_layernorm.weight"),
        &hidden,
    )?;
    let name = |tensor: &str| text_layer(layer, &format!("mlp.{tensor}"));
    let kind = Mlp {
        intermediate_size: config.intermediate_size,
        has_bias: false,
        form: match pass.cache {
            Cache::Rows { .. } => Form::Portable,
            Cache::Blocks { .. } => Form::Engine,
        },
    };
    mlp(graph, weights, &normed, &hidden, kind, name)
}

fn norm(
    graph: &mut Graph,
    weights: Weights<'_>,
    config: &TextConfig,
    name: &str,
    x: &Value,
) -> Result<Value> {
    let weight = weights.tensor(graph, name)?;
    Ok(graph.rms_norm(x, &weight, super::to_f32(config.rms_norm_eps)))
}
