//! `products`: the matrix products of one pass of the decoder and nothing else, each with an input of its own. What they
//! take is the least that a pass can take: the floor that `rollout bench` holds the engine against.
//!
//! `// T tokens, R rows of logits, E hidden, H heads, D head dim, F intermediate, V vocab`
//!
//! Inputs: `hidden` f32 `[T, E]`, `attended` `[T, H*D]`, `gated` `[T, F]`, `wanted` `[R, E]`. Outputs: one per product.

use super::weights::Weights;
use crate::checkpoint::F32Layout;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::names::{head_name, text_layer};
use crate::onnx::{DataType, Graph};

/// The graph's bytes, and the names of its outputs.
pub fn build(config: &ModelConfig, layout: &F32Layout) -> Result<(Vec<u8>, Vec<String>)> {
    let text = &config.text;
    let weights = Weights::new(layout);
    let mut graph = Graph::new("products", super::WEIGHTS_FILE);
    let mut input = |name: &str, rows: &'static str, width: usize| {
        graph.input(name, DataType::Float, &[rows.into(), width.into()])
    };
    let queries = text.num_heads * text.head_dim;
    let keys = text.num_kv_heads * text.head_dim;
    let hidden = input("hidden", "tokens", text.hidden_size);
    let attended = input("attended", "tokens", queries);
    let gated = input("gated", "tokens", text.intermediate_size);
    let wanted = input("wanted", "logit_rows", text.hidden_size);
    let mut outputs = Vec::new();
    for layer in 0..text.num_layers {
        let name = |tensor: &str| text_layer(layer, tensor);
        let qkv = ["q", "k", "v"].map(|part| name(&format!("self_attn.{part}_proj.weight")));
        let gate_up = ["gate", "up"].map(|part| name(&format!("mlp.{part}_proj.weight")));
        let products = [
            (
                &hidden,
                weights.stacked(&mut graph, &qkv)?,
                queries + 2 * keys,
            ),
            (
                &attended,
                weights.matrix(&mut graph, &name("self_attn.o_proj.weight"))?,
                text.hidden_size,
            ),
            (
                &hidden,
                weights.stacked(&mut graph, &gate_up)?,
                2 * text.intermediate_size,
            ),
            (
                &gated,
                weights.matrix(&mut graph, &name("mlp.down_proj.weight"))?,
                text.hidden_size,
            ),
        ];
        for (x, weight, width) in products {
            let product = graph.linear(x, &weight, None);
            let name = format!("product.{}", outputs.len());
            let product = graph.rename(&product, name.clone());
            graph.output(&product, DataType::Float, &["tokens".into(), width.into()]);
            outputs.push(name);
        }
    }
    let head = weights.tensor(&mut graph, head_name(config.tie_word_embeddings))?;
    let logits = graph.linear(&wanted, &head, None);
    let logits = graph.rename(&logits, "logits");
    graph.output(
        &logits,
        DataType::Float,
        &["logit_rows".into(), text.vocab_size.into()],
    );
    outputs.push("logits".to_owned());
    Ok((graph.into_bytes(), outputs))
}
