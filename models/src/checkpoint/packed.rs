//! Matrices of the decoder as the engine's own products read them, made anew from each version of the weights.
//!
//! # Layout
//! Panels of [`PANEL`] output channels. In f32: for every input channel, the numbers of the panel's output channels side by
//! side, f32 `[panels, in, PANEL]`. In 8 bits: for every [`GROUP`] input channels, those integers of each output channel side by
//! side, i8 `[panels, groups, PANEL, GROUP]`, with `w[o, i] = scale[o] * integer[o, i]`: symmetric, a scale per output channel.
//! What is missing at the end is zero. A gated matrix has half a panel of gates and then their partners.

use super::F32Layout;
use crate::config::ModelConfig;
use crate::names::{head_name, text_layer};

/// Output channels of a panel.
pub const PANEL: usize = 64;
/// Input channels that lie side by side: what one lane of an integer dot product takes.
pub const GROUP: usize = 4;

/// What a matrix is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// f32.
    Float,
    /// 8-bit integers, with a scale per output channel.
    Int8,
}

/// Matrices that stand one above the other in the weights file, as one.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    /// Their published names.
    pub names: Vec<String>,
    /// Columns of the published matrices.
    pub in_features: usize,
    /// Rows of all of them.
    pub out_features: usize,
    /// Whether its first half are gates, to be joined with the second half: `silu(gate) * up`.
    pub is_gated: bool,
    /// What it is packed to.
    pub numbers: Numbers,
    /// Where the first begins in the weights file (f32 `[out, in]`), in bytes.
    pub source: usize,
}

impl PackedMatrix {
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

    /// The packed numbers: f32 `[panels, in, PANEL]` or i8 `[panels, groups, PANEL, GROUP]`.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        match self.numbers {
            Numbers::Float => vec![self.num_panels(), self.in_features, PANEL],
            Numbers::Int8 => vec![self.num_panels(), self.num_groups(), PANEL, GROUP],
        }
    }

    /// Name of the packed numbers in the graph.
    #[must_use]
    pub fn panels_name(&self) -> String {
        format!("{}.panels", self.names.join("+"))
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

/// All linear layers of the decoder, in 8 bits but for the head, of a model whose published weights lie as `layout` says.
#[must_use]
pub fn packed_matrices(
    config: &ModelConfig,
    layout: &F32Layout,
    head: Numbers,
) -> Vec<PackedMatrix> {
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
    let matrix = |names: Vec<String>, in_features, out_features, is_gated, numbers| {
        // A layout of another model has no such tensor, and its graph no such layer.
        let source = names.first().and_then(|name| layout.offset(name))?;
        Some(PackedMatrix {
            names,
            in_features,
            out_features,
            is_gated,
            numbers,
            source,
        })
    };
    let layers = (0..text.num_layers).flat_map(|layer| {
        shapes.map(|(parts, in_features, out_features, is_gated)| {
            let name = |part: &&str| text_layer(layer, &format!("{part}.weight"));
            let names = parts.iter().map(name).collect();
            matrix(names, in_features, out_features, is_gated, Numbers::Int8)
        })
    });
    let name = head_name(config.tie_word_embeddings).to_owned();
    let head = matrix(vec![name], hidden, text.vocab_size, false, head);
    layers.chain([head]).flatten().collect()
}
