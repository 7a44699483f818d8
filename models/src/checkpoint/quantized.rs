//! Which matrices of the decoder are computed in 8 bits, and where they come from.
//!
//! `w[o, i] = scale[o] * integer[o, i]`: symmetric, a scale per output channel.
//!
//! # Layout
//! As the engine's product reads it: panels of [`PANEL`] output channels; in a panel, for every [`GROUP`] input channels, those
//! integers of each output channel side by side: i8 `[panels, groups, PANEL, GROUP]`. What is missing at the end of either is
//! zero. A gated matrix has half a panel of gates and then the other factors of the same channels.

use super::F32Layout;
use crate::config::ModelConfig;
use crate::names::{head_name, text_layer};

/// Output channels of a panel.
pub const PANEL: usize = 64;
/// Input channels that lie side by side: what one lane of an integer dot product takes.
pub const GROUP: usize = 4;

/// Matrices that stand one above the other in the weights file, as one.
#[derive(Debug, Clone)]
pub struct QuantizedMatrix {
    /// Their published names.
    pub names: Vec<String>,
    /// Columns of the published matrices.
    pub in_features: usize,
    /// Rows of all of them.
    pub out_features: usize,
    /// Whether its first half are gates, to be joined with the second half: `silu(gate) * up`.
    pub is_gated: bool,
    /// Where the first begins in the weights file (f32 `[out, in]`), in bytes.
    pub source: usize,
}

impl QuantizedMatrix {
    /// Columns of the product: output channels, or pairs of gate and factor.
    #[must_use]
    pub fn width(&self) -> usize {
        if self.is_gated {
            self.out_features / 2
        } else {
            self.out_features
        }
    }

    /// Columns of the product that a panel makes.
    #[must_use]
    pub fn panel_width(&self) -> usize {
        if self.is_gated { PANEL / 2 } else { PANEL }
    }

    /// Panels, the last one perhaps partly empty.
    #[must_use]
    pub fn num_panels(&self) -> usize {
        self.width().div_ceil(self.panel_width())
    }

    /// Groups of input channels, the last one perhaps partly empty.
    #[must_use]
    pub fn num_groups(&self) -> usize {
        self.in_features.div_ceil(GROUP)
    }

    /// Name of the integers in the graph: i8 `[panels, groups, PANEL, GROUP]`.
    #[must_use]
    pub fn integers_name(&self) -> String {
        format!("{}.int8", self.names.join("+"))
    }

    /// Name of the scales in the graph: f32 `[panels, PANEL]`.
    #[must_use]
    pub fn scales_name(&self) -> String {
        format!("{}.scales", self.names.join("+"))
    }

    /// Name of the sum of each output channel's integers in the graph: i32 `[panels, PANEL]`.
    #[must_use]
    pub fn sums_name(&self) -> String {
        format!("{}.sums", self.names.join("+"))
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
            false,
        ),
        (&["self_attn.o_proj"], queries, hidden, false),
        (&["mlp.gate_proj", "mlp.up_proj"], hidden, 2 * mlp, true),
        (&["mlp.down_proj"], mlp, hidden, false),
    ];
    let matrix = |names: Vec<String>, in_features, out_features, is_gated| {
        // A layout of another model has no such tensor, and its graph no such layer.
        let source = names.first().and_then(|name| layout.offset(name))?;
        Some(QuantizedMatrix {
            names,
            in_features,
            out_features,
            is_gated,
            source,
        })
    };
    let layers = (0..text.num_layers).flat_map(|layer| {
        shapes.map(|(parts, in_features, out_features, is_gated)| {
            let name = |part: &&str| text_layer(layer, &format!("{part}.weight"));
            let names = parts.iter().map(name).collect();
            matrix(names, in_features, out_features, is_gated)
        })
    });
    let head = with_head.then(|| {
        let name = head_name(config.tie_word_embeddings);
        matrix(vec![name.to_owned()], hidden, text.vocab_size, false)
    });
    layers.chain(head).flatten().collect()
}
