//! Linear layers in f32, or on 8-bit integers.
//!
//! On integers every token has a scale of its own, so that its result does not depend on the tokens beside it:
//! `y[t] = scale[t] * (round(x[t] / scale[t]) . W8) * weight_scale`, the product of integers exact.
//!
//! `// T tokens, I in, O out`

use super::weights::Weights;
use crate::error::Result;
use crate::onnx::{Graph, Value};

/// What a linear layer gives: f32 `[T, O]`.
#[derive(Debug)]
pub enum Projected {
    /// The result.
    Whole(Value),
    /// Rows that must still be multiplied with their scales `[T, 1]`: done by whatever reads them next.
    Scaled {
        /// f32 `[T, O]`.
        rows: Value,
        /// f32 `[T, 1]`.
        scales: Value,
    },
}

/// `x W^T + b`: x f32 `[T, I]`; `names` are matrices that stand one above the other. With 8-bit weights when `weights`
/// has those; a bias is then added at once.
pub fn linear(
    graph: &mut Graph,
    weights: Weights<'_>,
    names: &[String],
    bias: Option<&Value>,
    x: &Value,
) -> Result<Projected> {
    let Some((weight, weight_scales)) = weights.quantized(graph, names)? else {
        let weight = match names {
            [name] => weights.matrix(graph, name)?,
            _ => weights.stacked(graph, names)?,
        };
        return Ok(Projected::Whole(graph.linear(x, &weight, bias)));
    };
    let [integers, scales] = graph.quantize_rows(x);
    let rows = graph.integer_product(&integers, &weight, &weight_scales);
    Ok(match bias {
        Some(bias) => Projected::Whole(graph.scale_rows(&rows, &scales, bias)),
        None => Projected::Scaled { rows, scales },
    })
}

impl Projected {
    /// `residual + self`.
    pub fn plus(&self, graph: &mut Graph, residual: &Value) -> Value {
        match self {
            Self::Whole(value) => graph.add(residual, value),
            Self::Scaled { rows, scales } => graph.scale_add(rows, scales, residual),
        }
    }
}
