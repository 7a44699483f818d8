//! `decoder.onnx`: the language model over new tokens and a cache.
//!
//! `// B rows, S new tokens per row, T = B*S, N image tokens, R rows of logits, E hidden, V vocab`
//!
//! | input of all forms | type | |
//! |---|---|---|
//! | `input_ids` | i64 `[B, S]` | |
//! | `position_ids` | i64 `[3, B, S]` | temporal, height, width |
//! | `logit_positions` | i64 `[R]` | flat `b * S + s` |
//!
//! Output: `logits` f32 `[R, V]`.
//!
//! A form says in ways of its own which tokens are images ([`super::embed`]) and what came before ([`super::cache`]). Those for
//! a device have their weights as inputs too ([`crate::onnx::weight_inputs`]), and may go on to what the host needs of the
//! logits ([`super::head`]).

use super::Form;
use super::attention::{Pass, text_attention};
use super::cache::Cache;
use super::embed::Images;
use super::head::statistics;
use super::linear::{Plus, linear};
use super::mlp::{Mlp, mlp};
use super::rope::{cast, text_rotation};
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
    let weights = form.weights(layout, packed);
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
    let images = Images::declare(graph, form, text);
    let logit_positions = graph.input("logit_positions", DataType::Int64, &["logit_rows".into()]);

    let embeddings = weights.tensor(graph, EMBED_TOKENS)?; // [V, E]
    let mut hidden = images.embed(graph, &embeddings, &input_ids); // [T, E]
    let rotation = text_rotation(graph, &position_ids, text)?;
    let cache = Cache::declare(graph, form, text, &input_ids, &rotation)?;
    let pass = Pass {
        rotation: rotation.cast(graph, form.elements()),
        cache,
        form,
    };
    for layer in 0..text.num_layers {
        hidden = decoder_layer(graph, weights, text, layer, &hidden, &pass)?;
    }

    graph.scope("head");
    let wanted = graph.gather(&hidden, &logit_positions); // [R, E]
    // In f32 from here on: logits of 8 significant bits lie a tenth of a nat beside the learner's.
    let wanted = cast(graph, &wanted, form.elements(), DataType::Float);
    let weights = weights.wide();
    let wanted = norm(graph, weights, text, FINAL_NORM, &wanted)?;
    let head = [head_name(config.tie_word_embeddings).to_owned()];
    let logits = linear(graph, weights, &head, &wanted, Plus::Nothing)?; // [R, V]
    let shape = ["logit_rows".into(), text.vocab_size.into()];
    let logits = graph.give(&logits, "logits", DataType::Float, &shape);
    if let Some(candidates) = form.candidates() {
        statistics(graph, &logits, text.vocab_size, candidates)?;
    }
    Ok(std::mem::replace(graph, Graph::new("", "")).into_bytes())
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
