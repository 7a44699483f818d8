//! `vision.onnx`: patches of images to embeddings of image tokens.
//!
//! `// N patches, P = channels*temporal_patch*patch*patch, W windows, L patches of the longest window`
//! `// I images of K patches each, E vision hidden, G = spatial_merge_size^2 patches per token`
//!
//! Patches are put in window order first, so that a window's patches, and an image's, lie side by side.
//!
//! | input | type | |
//! |---|---|---|
//! | `pixel_values` | f32 `[N, P]` | in the processor's order |
//! | `patch_order` | i64 `[N]` | row of `pixel_values` at each place in window order |
//! | `rope_positions` | i64 `[N, 2]` | row and column, in window order |
//! | `window_slots` | i64 `[W, L]` | patch (window order) in each slot; 0 for padding |
//! | `window_mask` | bool `[W, L]` | true for a patch, false for padding |
//! | `window_unslot` | i64 `[N]` | flat slot of each patch |
//! | `image_slots` | i64 `[I, K]` | patch (window order) in each slot; images of one call have K patches each |
//! | `image_unslot` | i64 `[N]` | flat slot of each patch |
//! | `token_order` | i64 `[N/G]` | merged row of each image token |
//!
//! Output: `image_embeds` `[N/G, text hidden]`, in the order of the image tokens and in the form's element type.

use super::Form;
use super::attention::{Places, Slots, vision_attention};
use super::mlp::{Mlp, mlp};
use super::rope::{cast, vision_rotation};
use super::weights::Weights;
use crate::checkpoint::F32Layout;
use crate::config::{ModelConfig, VisionConfig};
use crate::error::Result;
use crate::names::{PATCH_EMBED, merger, vision_block};
use crate::onnx::{DataType, Graph, Value, size};

/// Epsilon of every norm of the vision tower: the published code has it fixed.
const NORM_EPSILON: f32 = 1e-6;

/// The graph's bytes.
pub fn build(config: &ModelConfig, layout: &F32Layout, form: Form) -> Result<Vec<u8>> {
    let vision = &config.vision;
    let weights = form.weights(layout, &[]);
    let mut graph = Graph::new("vision", super::WEIGHTS_FILE);
    let graph = &mut graph;

    let patch_dim =
        vision.in_channels * vision.temporal_patch_size * vision.patch_size * vision.patch_size;
    let pixel_values = graph.input(
        "pixel_values",
        DataType::Float,
        &["patches".into(), patch_dim.into()],
    );
    let patch_order = graph.input("patch_order", DataType::Int64, &["patches".into()]);
    let rope_positions = graph.input(
        "rope_positions",
        DataType::Int64,
        &["patches".into(), 2.into()],
    );
    let windows = Slots::windows(graph);
    let images = Slots::images(graph);
    let token_order = graph.input("token_order", DataType::Int64, &["image_tokens".into()]);

    let mut hidden = patch_embed(graph, weights, form, &pixel_values, &patch_order)?; // [N, E]
    let rotation = vision_rotation(graph, &rope_positions, vision);
    let [windows, images] = [&windows, &images]
        .map(|slots| Places::new(graph, form, slots, &rotation, vision.head_dim));
    for block in 0..vision.depth {
        let places = if vision.full_attention_blocks.contains(&block) {
            &images
        } else {
            &windows
        };
        hidden = vision_layer(graph, weights, vision, block, &hidden, places)?;
    }
    let tokens = merge(graph, weights, vision, &hidden)?; // [N/G, text hidden], window order
    let tokens = graph.gather(&tokens, &token_order);
    let tokens = graph.rename(&tokens, "image_embeds");
    graph.output(
        &tokens,
        form.elements(),
        &["image_tokens".into(), vision.out_hidden_size.into()],
    );
    Ok(std::mem::replace(graph, Graph::new("", "")).into_bytes())
}

/// The patch convolution, whose stride is its size, as a matrix product: `[N, P]` to `[N, E]` in window order.
fn patch_embed(
    graph: &mut Graph,
    weights: Weights<'_>,
    form: Form,
    pixel_values: &Value,
    patch_order: &Value,
) -> Result<Value> {
    graph.scope("patch_embed");
    let weight = weights.matrix(graph, PATCH_EMBED)?; // [E, P]
    let patches = graph.gather(pixel_values, patch_order);
    let patches = cast(graph, &patches, DataType::Float, form.elements());
    Ok(graph.linear(&patches, &weight, None))
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
fn vision_layer(
    graph: &mut Graph,
    weights: Weights<'_>,
    config: &VisionConfig,
    block: usize,
    hidden: &Value,
    places: &Places<'_>,
) -> Result<Value> {
    graph.scope(format!("blocks.{block}.attention"));
    let normed = norm(graph, weights, &vision_block(block, "norm1.weight"), hidden)?;
    let attended = vision_attention(graph, weights, config, block, &normed, places)?;
    let hidden = graph.add(hidden, &attended);

    graph.scope(format!("blocks.{block}.mlp"));
    let normed = norm(
        graph,
        weights,
        &vision_block(block, "norm2.weight"),
        &hidden,
    )?;
    let name = |tensor: &str| vision_block(block, &format!("mlp.{tensor}"));
    let kind = Mlp {
        intermediate_size: config.intermediate_size,
        has_bias: true,
        form: places.form(),
    };
    mlp(graph, weights, &normed, &hidden, kind, name)
}

/// The merger: G neighbouring patches become one token of the language model.
fn merge(
    graph: &mut Graph,
    weights: Weights<'_>,
    config: &VisionConfig,
    hidden: &Value,
) -> Result<Value> {
    graph.scope("merger");
    let normed = norm(graph, weights, &merger("ln_q.weight"), hidden)?;
    let merged_size = config.hidden_size * config.spatial_merge_size * config.spatial_merge_size;
    let merged = graph.reshape_to(&normed, &[-1, size(merged_size)]); // [N/G, G*E]
    let first_weight = weights.matrix(graph, &merger("mlp.0.weight"))?;
    let first_bias = weights.tensor(graph, &merger("mlp.0.bias"))?;
    let second_weight = weights.matrix(graph, &merger("mlp.2.weight"))?;
    let second_bias = weights.tensor(graph, &merger("mlp.2.bias"))?;
    let merged = graph.linear(&merged, &first_weight, Some(&first_bias));
    let merged = graph.gelu(&merged);
    Ok(graph.linear(&merged, &second_weight, Some(&second_bias)))
}

fn norm(graph: &mut Graph, weights: Weights<'_>, name: &str, x: &Value) -> Result<Value> {
    let weight = weights.tensor(graph, name)?;
    Ok(graph.rms_norm(x, &weight, NORM_EPSILON))
}
