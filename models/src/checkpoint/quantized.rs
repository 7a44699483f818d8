//! Which matrices of the decoder are computed in 8 bits, and where they come from.
//!
//! `w[o, i] = scale[o] * integer[i, o]`: symmetric, a scale per output channel, transposed as integer products want it.

use super::F32Layout;
use crate::config::ModelConfig;
use crate::names::{head_name, text_layer};

/// Matrices that stand one above the other in the weights file, as one.
#[derive(Debug, Clone)]
pub struct QuantizedMatrix {
    /// Their published names.
    pub names: Vec<String>,
    /// Columns of the published matrices.
    pub in_features: usize,
    /// Rows of all of them.
    pub out_features: usize,
    /// Where the first begins in the weights file (f32 `[out, in]`), in bytes.
    pub source: usize,
}

impl QuantizedMatrix {
    /// Name of the i8 `[in, out]` in the graph.
    #[must_use]
    pub fn integers_name(&self) -> String {
        format!("{}.int8", self.names.join("+"))
    }

    /// Name of the f32 `[out]` in the graph.
    #[must_use]
    pub fn scales_name(&self) -> String {
        format!("{}.scales", self.names.join("+"))
    }
}

/// All linear layers of the decoder, the head only if asked for, of a model whose published weights lie as `layout` says.
#[must_use]
pub fn quantized_matrices(
    config: &ModelConfig,
    layout: &F32Layout,
    with_head: bool,
) -> Vec<QuantizedMatrix> {
    let text = &config.text;
    let queries = text.num_heads * text.head_dim;
    let keys = text.num_kv_heads * text.head_dim;
    let (hidden, mlp) = (text.hidden_size, text.intermediate_size);
    let shapes = [
        (
            &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"][..],
            hidden,
            queries + 2 * keys,
        ),
        (&["self_attn.o_proj"], queries, hidden),
        (&["mlp.gate_proj", "mlp.up_proj"], hidden, 2 * mlp),
        (&["mlp.down_proj"], mlp, hidden),
    ];
    let matrix = |names: Vec<String>, in_features, out_features| {
        // A layout of another model has no such tensor, and its graph no such layer.
        let source = names.first().and_then(|name| layout.offset(name))?;
        Some(QuantizedMatrix {
            names,
            in_features,
            out_features,
            source,
        })
    };
    let layers = (0..text.num_layers).flat_map(|layer| {
        shapes.map(|(parts, in_features, out_features)| {
            let name = |part: &&str| text_layer(layer, &format!("{part}.weight"));
            matrix(parts.iter().map(name).collect(), in_features, out_features)
        })
    });
    let head = with_head.then(|| {
        let name = head_name(config.tie_word_embeddings);
        matrix(vec![name.to_owned()], hidden, text.vocab_size)
    });
    layers.chain(head).flatten().collect()
}
