//! Linear layers: by ONNX's operators or, where the matrix is packed, by the engine's own. Those do what follows the product
//! too, while the numbers are at hand.
//!
//! On 8-bit integers every token has a scale of its own, so that its result does not depend on the tokens beside it:
//! `y[t] = scale[t] * (round(x[t] / scale[t]) . W8) * weight_scale`, the product of integers exact.
//!
//! `// T tokens, I in, O out, F intermediate`

use super::Form;
use super::mlp::Mlp;
use super::weights::Weights;
use crate::error::Result;
use crate::onnx::{Graph, Value};

/// What is added to a product.
#[derive(Debug, Clone, Copy)]
pub enum Plus<'a> {
    /// Nothing.
    Nothing,
    /// The same for all tokens: `[O]`.
    Bias(&'a Value),
    /// `[T, O]`.
    Residual(&'a Value),
}

/// `x W^T + plus`: x `[T, I]` to `[T, O]`; `names` are matrices that stand one above the other.
pub fn linear(
    graph: &mut Graph,
    weights: Weights<'_>,
    names: &[String],
    x: &Value,
    plus: Plus<'_>,
) -> Result<Value> {
    if let Some(weight) = weights.packed(graph, names) {
        let plus = match plus {
            Plus::Nothing => None,
            Plus::Bias(value) | Plus::Residual(value) => Some(value),
        };
        return Ok(graph.packed_linear(x, &weight, plus));
    }
    let weight = match names {
        [name] => weights.matrix(graph, name)?,
        _ => weights.stacked(graph, names)?,
    };
    Ok(match plus {
        Plus::Nothing => graph.linear(x, &weight, None),
        Plus::Bias(bias) => graph.linear(x, &weight, Some(bias)),
        Plus::Residual(residual) => {
            let product = graph.linear(x, &weight, None);
            graph.add(residual, &product)
        }
    })
}

/// `silu(gate) * up`, `[gate, up] = x W^T + bias`: x f32 `[T, I]` to f32 `[T, F]`; `names` are the two
/// matrices.
pub fn gated(
    graph: &mut Graph,
    weights: Weights<'_>,
    names: &[String; 2],
    x: &Value,
    bias: Option<&Value>,
    mlp: Mlp,
) -> Result<Value> {
    if let Some(weight) = weights.packed(graph, names) {
        return Ok(graph.packed_linear(x, &weight, bias));
    }
    let weight = weights.stacked(graph, names)?;
    let gate_up = graph.linear(x, &weight, bias); // [T, 2F]
    Ok(match mlp.form {
        Form::Portable | Form::Trt(_) | Form::Cuda(_) => {
            let [gate, up] = graph.split(&gate_up, -1, [mlp.intermediate_size; 2]);
            let sigmoid = graph.sigmoid(&gate);
            let gate = graph.mul(&gate, &sigmoid);
            graph.mul(&gate, &up)
        }
        Form::Engine => graph.silu_mul(&gate_up),
    })
}
