//! The gated MLP of decoder layers and vision blocks.
//!
//! `// T rows, E hidden, F intermediate`

use super::Form;
use super::linear::{Projected, linear};
use super::weights::Weights;
use crate::error::Result;
use crate::onnx::{Graph, Value};

/// `down(silu(gate(x)) * up(x))`: x f32 `[T, E]`. `name` gives the published name of a tensor of this MLP, such as
/// `gate_proj.weight`.
pub fn mlp(
    graph: &mut Graph,
    weights: Weights<'_>,
    x: &Value,
    intermediate_size: usize,
    has_bias: bool,
    form: Form,
    name: impl Fn(&str) -> String,
) -> Result<Projected> {
    let (gate_up_bias, down_bias) = if has_bias {
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
    let gate_up = linear(graph, weights, &gate_up, gate_up_bias.as_ref(), x)?; // [T, 2F]
    let hidden = match (form, &gate_up) {
        (Form::Portable, Projected::Whole(gate_up)) => {
            let [gate, up] = graph.split(gate_up, -1, [intermediate_size; 2]);
            let gate = silu(graph, &gate);
            graph.mul(&gate, &up)
        }
        (_, Projected::Whole(gate_up)) => graph.silu_mul(gate_up, None),
        (_, Projected::Scaled { rows, scales }) => graph.silu_mul(rows, Some(scales)),
    }; // [T, F]
    let down = [name("down_proj.weight")];
    linear(graph, weights, &down, down_bias.as_ref(), &hidden) // [T, E]
}

/// `x * sigmoid(x)`.
fn silu(graph: &mut Graph, x: &Value) -> Value {
    let gate = graph.sigmoid(x);
    graph.mul(x, &gate)
}
