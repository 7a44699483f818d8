//! `decoder.onnx`: the language model over new tokens and a cache.
//!
//! `// B rows, S new tokens per row, T = B*S, N image tokens, R rows of logits, E hidden, V vocab`
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
//! What each form says of earlier tokens is documented where it is declared: [`super::cache`].

use super::Form;
use super::attention::{Pass, text_attention};
use super::cache::Cache;
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
    let cache = Cache::declare(graph, form, text, &input_ids)?;
    let pass = Pass {
        rotation,
        cache,
        form,
    };
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
        form: pass.form,
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
