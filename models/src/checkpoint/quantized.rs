//! The decoder's matrices in 8 bits, as they lie side by side in memory.
//!
//! `w[o, i] = scale[o] * integer[i, o]`: symmetric, a scale per output channel, transposed as integer products want it.

use super::F32Layout;
use crate::config::ModelConfig;
use crate::names::text_layer;

/// Matrices and scales begin at multiples of this.
const ALIGNMENT: usize = 64;

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
    /// Where the i8 `[in, out]` begin.
    pub integers: usize,
    /// Where the f32 `[out]` begin.
    pub scales: usize,
}

/// All linear layers of the decoder but the head.
#[derive(Debug, Clone)]
pub struct QuantizedLayout {
    /// In the order of the layers.
    pub matrices: Vec<QuantizedMatrix>,
    /// Size of the whole.
    pub total_bytes: usize,
}

impl QuantizedLayout {
    /// The layout for a model whose published weights lie as `layout` says.
    #[must_use]
    pub fn new(config: &ModelConfig, layout: &F32Layout) -> Self {
        let text = &config.text;
        let queries = text.num_heads * text.head_dim;
        let keys = text.num_kv_heads * text.head_dim;
        let (hidden, mlp) = (text.hidden_size, text.intermediate_size);
        let mut matrices = Vec::new();
        let mut end = 0_usize;
        for layer in 0..text.num_layers {
            for (parts, in_features, out_features) in [
                (
                    &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"][..],
                    hidden,
                    queries + 2 * keys,
                ),
                (&["self_attn.o_proj"], queries, hidden),
                (&["mlp.gate_proj", "mlp.up_proj"], hidden, 2 * mlp),
                (&["mlp.down_proj"], mlp, hidden),
            ] {
                let names: Vec<String> = parts
                    .iter()
                    .map(|part| text_layer(layer, &format!("{part}.weight")))
                    .collect();
                let Some(source) = names.first().and_then(|name| layout.offset(name)) else {
                    continue; // a layout of another model: its graph then finds no such matrix
                };
                let integers = end.next_multiple_of(ALIGNMENT);
                let scales = (integers + in_features * out_features).next_multiple_of(ALIGNMENT);
                end = scales + out_features * size_of::<f32>();
                matrices.push(QuantizedMatrix {
                    names,
                    in_features,
                    out_features,
                    source,
                    integers,
                    scales,
                });
            }
        }
        Self {
            matrices,
            total_bytes: end,
        }
    }
}
