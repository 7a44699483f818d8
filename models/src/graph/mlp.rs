//! The gated MLP of decoder layers and vision blocks.
//!
//! `// T rows, E hidden, F intermediate`

use super::Form;
use super::linear::{Plus, gated, linear};
use super::weights::Weights;
use crate::error::Result;
use crate::onnx::{Graph, Value};

/// Dimensions of an MLP, and what it is made of.
#[derive(Debug, Clone, Copy)]
pub struct Mlp {
    /// F.
    pub intermediate_size: usize,
    /// Whether its layers have biases.
    pub has_bias: bool,
    /// Operators that it is made of.
    pub form: Form,
}

/// `residual + down(silu(gate(x)) * up(x))`: x, residual `[T, E]`. `name` gives the published name of a tensor of this MLP,
/// such as `gate_proj.weight`.
pub fn mlp(
    graph: &mut Graph,
    weights: Weights<'_>,
    x: &Value,
    residual: &Value,
    kind: Mlp,
    name: impl Fn(&str) -> String,
) -> Result<Value> {
    let (gate_up_bias, down_bias) = if kind.has_bias {
        let gate_up_bias =
            weights.stacked(graph, &[name("gate_proj.bias"), name("up_proj.bias")])?;
        (
            Some(gate_up_bias),
            Some(weights.tensor(graph, &name("down_proj.bias"))?),
        )
    } else {
        (None, None)
    };
    let gate_up = [name("gate_proj.weight"), name("up_proj.weight")];
    let hidden = gated(graph, weights, &gate_up, x, gate_up_bias.as_ref(), kind)?; // [T, F]
    let down = [name("down_proj.weight")];
    match &down_bias {
        None => linear(graph, weights, &down, &hidden, Plus::Residual(residual)),
        Some(bias) => {
            let down = linear(graph, weights, &down, &hidden, Plus::Bias(bias))?;
            Ok(graph.add(residual, &down))
        }
    } // [T, E]
}
