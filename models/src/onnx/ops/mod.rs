//! One function per operator. Shapes are those of the operator's documentation; standard operators are of set 23 (TensorScatter of 24),
//! `com.microsoft` is ONNX Runtime's own domain, `tor` that of the operators which `rollout` brings along.

mod attention;

pub use attention::{BlockAttention, CachedAttention, PagedAttention};

use super::builder::{Graph, TOR, Value, float, int, ints, size};
use super::proto::{AttributeProto, DataType};

impl Graph {
    /// `a + b`.
    pub fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.standard("Add", &[a, b])
    }

    /// `a * b`.
    pub fn mul(&mut self, a: &Value, b: &Value) -> Value {
        self.standard("Mul", &[a, b])
    }

    /// `a - b`.
    pub fn sub(&mut self, a: &Value, b: &Value) -> Value {
        self.standard("Sub", &[a, b])
    }

    /// `a / b`.
    pub fn div(&mut self, a: &Value, b: &Value) -> Value {
        self.standard("Div", &[a, b])
    }

    /// The larger of `a` and `b`.
    pub fn max(&mut self, a: &Value, b: &Value) -> Value {
        self.standard("Max", &[a, b])
    }

    /// `a < b`, bool.
    pub fn less(&mut self, a: &Value, b: &Value) -> Value {
        self.standard("Less", &[a, b])
    }

    /// `a <= b`, bool.
    pub fn less_or_equal(&mut self, a: &Value, b: &Value) -> Value {
        self.standard("LessOrEqual", &[a, b])
    }

    /// `a >= b`, bool.
    pub fn greater_or_equal(&mut self, a: &Value, b: &Value) -> Value {
        self.standard("GreaterOrEqual", &[a, b])
    }

    /// `a` where the condition holds, else `b`.
    pub fn choose(&mut self, condition: &Value, a: &Value, b: &Value) -> Value {
        self.standard("Where", &[condition, a, b])
    }

    /// Matrix product over the last two dimensions.
    pub fn matmul(&mut self, a: &Value, b: &Value) -> Value {
        self.standard("MatMul", &[a, b])
    }

    /// Softmax over the last dimension.
    pub fn softmax(&mut self, x: &Value) -> Value {
        self.one("", "Softmax", &[Some(x)], vec![int("axis", -1)])
    }

    /// `e^x`.
    pub fn exp(&mut self, x: &Value) -> Value {
        self.standard("Exp", &[x])
    }

    /// Natural logarithm.
    pub fn log(&mut self, x: &Value) -> Value {
        self.standard("Log", &[x])
    }

    /// `1 / (1 + exp(-x))`.
    pub fn sigmoid(&mut self, x: &Value) -> Value {
        self.standard("Sigmoid", &[x])
    }

    /// `x * Phi(x)`, the exact form.
    pub fn gelu(&mut self, x: &Value) -> Value {
        self.standard("Gelu", &[x])
    }

    /// Cosine.
    pub fn cos(&mut self, x: &Value) -> Value {
        self.standard("Cos", &[x])
    }

    /// Sine.
    pub fn sin(&mut self, x: &Value) -> Value {
        self.standard("Sin", &[x])
    }

    /// Converts the element type.
    pub fn cast(&mut self, x: &Value, to: DataType) -> Value {
        self.one(
            "",
            "Cast",
            &[Some(x)],
            vec![int("to", i64::from(i32::from(to)))],
        )
    }

    /// The shape, i64.
    pub fn shape(&mut self, x: &Value) -> Value {
        self.standard("Shape", &[x])
    }

    /// Another shape for the same elements; -1 is what is left, 0 copies the dimension.
    pub fn reshape(&mut self, x: &Value, shape: &Value) -> Value {
        self.standard("Reshape", &[x, shape])
    }

    /// [`Self::reshape`] to a shape known now.
    pub fn reshape_to(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.int64(&[shape.len()], shape);
        self.reshape(x, &shape)
    }

    /// Repeats dimensions of size 1.
    pub fn expand(&mut self, x: &Value, shape: &Value) -> Value {
        self.standard("Expand", &[x, shape])
    }

    /// Reorders dimensions: dimension `i` of the result is dimension `order[i]` of `x`.
    pub fn transpose(&mut self, x: &Value, order: &[i64]) -> Value {
        self.one("", "Transpose", &[Some(x)], vec![ints("perm", order)])
    }

    /// Inserts dimensions of size 1.
    pub fn unsqueeze(&mut self, x: &Value, axes: &[i64]) -> Value {
        let axes = self.int64(&[axes.len()], axes);
        self.standard("Unsqueeze", &[x, &axes])
    }

    /// Joins along `axis`.
    pub fn concat(&mut self, parts: &[&Value], axis: i64) -> Value {
        let inputs: Vec<_> = parts.iter().map(|&part| Some(part)).collect();
        self.one("", "Concat", &inputs, vec![int("axis", axis)])
    }

    /// Cuts along `axis` into pieces of the sizes given.
    pub fn split<const PARTS: usize>(
        &mut self,
        x: &Value,
        axis: i64,
        sizes: [usize; PARTS],
    ) -> [Value; PARTS] {
        let sizes = self.int64(&[PARTS], &sizes.map(size));
        let outputs = self.node(
            "",
            "Split",
            &[Some(x), Some(&sizes)],
            PARTS,
            vec![int("axis", axis)],
        );
        array(outputs)
    }

    /// Rows of `x` by index along the first axis.
    pub fn gather(&mut self, x: &Value, indices: &Value) -> Value {
        self.gather_along(x, indices, 0)
    }

    /// Parts of `x` by index along `axis`; a negative index counts from the end.
    pub fn gather_along(&mut self, x: &Value, indices: &Value, axis: i64) -> Value {
        let inputs = [Some(x), Some(indices)];
        self.one("", "Gather", &inputs, vec![int("axis", axis)])
    }

    /// Of each row of `x` `[R, V]` the elements at `indices` `[R, n]`.
    pub fn gather_elements(&mut self, x: &Value, indices: &Value) -> Value {
        let inputs = [Some(x), Some(indices)];
        self.one("", "GatherElements", &inputs, vec![int("axis", 1)])
    }

    /// The `count` largest of each row, in falling order, and their indices (i64).
    pub fn top_k(&mut self, x: &Value, count: usize) -> [Value; 2] {
        let count = self.int64(&[1], &[size(count)]);
        let attributes = vec![int("axis", -1), int("largest", 1), int("sorted", 1)];
        array(self.node("", "TopK", &[Some(x), Some(&count)], 2, attributes))
    }

    /// A copy of `x` with the rows at `indices` (`[n, 1]`) replaced by `updates` (`[n, ...]`).
    pub fn scatter_rows(&mut self, x: &Value, indices: &Value, updates: &Value) -> Value {
        self.standard("ScatterND", &[x, indices, updates])
    }

    /// Sum over `axis`, which goes away.
    pub fn reduce_sum(&mut self, x: &Value, axis: i64) -> Value {
        self.reduce("ReduceSum", x, axis, false)
    }

    /// Sum or largest over the last dimension, which becomes 1.
    pub fn reduce_last(&mut self, reduction: Reduction, x: &Value) -> Value {
        let op_type = match reduction {
            Reduction::Sum => "ReduceSum",
            Reduction::Max => "ReduceMax",
        };
        self.reduce(op_type, x, -1, true)
    }

    /// Of each element of the last of two dimensions the sum of those before it.
    pub fn sum_before(&mut self, x: &Value) -> Value {
        let axis = self.int64(&[], &[1]);
        self.one(
            "",
            "CumSum",
            &[Some(x), Some(&axis)],
            vec![int("exclusive", 1)],
        )
    }

    fn reduce(&mut self, op_type: &str, x: &Value, axis: i64, keeps_dimension: bool) -> Value {
        let axes = self.int64(&[1], &[axis]);
        let attributes = vec![int("keepdims", keeps_dimension.into())];
        self.one("", op_type, &[Some(x), Some(&axes)], attributes)
    }

    /// `x W^T + b`: x `[n, in]`, weight `[out, in]` as checkpoints store it, bias `[out]`.
    pub fn linear(&mut self, x: &Value, weight: &Value, bias: Option<&Value>) -> Value {
        self.one(
            "",
            "Gemm",
            &[Some(x), Some(weight), bias],
            vec![int("transB", 1)],
        )
    }

    /// `x / sqrt(mean(x^2) + epsilon) * weight` over the last axis, in f32.
    pub fn rms_norm(&mut self, x: &Value, weight: &Value, epsilon: f32) -> Value {
        let attributes = vec![int("axis", -1), float("epsilon", epsilon)];
        self.one("", "RMSNormalization", &[Some(x), Some(weight)], attributes)
    }

    /// `silu(gate) * up` (`tor`): gate_up `[T, 2F]`, gate in the first half of a row, to `[T, F]`.
    pub fn silu_mul(&mut self, gate_up: &Value) -> Value {
        self.one(TOR, "SiluMul", &[Some(gate_up)], Vec::new())
    }

    /// A product with a packed matrix (`tor`): x f32 `[T, I]` to `[T, O]`, `plus` `[O]` or `[T, O]` added; or, gated, to `[T, O/2]`.
    /// The operators' own documentation is in `rollout` (`engine::kernel::linear`, `int8_linear`).
    pub fn packed_linear(&mut self, x: &Value, weight: &Packed, plus: Option<&Value>) -> Value {
        let mut inputs = vec![Some(x), Some(&weight.panels)];
        inputs.extend(weight.scales.iter().flatten().map(Some));
        inputs.push(plus);
        let attributes = vec![
            int("width", size(weight.width)),
            int("gated", i64::from(weight.is_gated)),
        ];
        let operator = match weight.scales {
            None => "Linear",
            Some(_) => "Int8Linear",
        };
        self.one(TOR, operator, &inputs, attributes)
    }

    fn standard(&mut self, op_type: &str, inputs: &[&Value]) -> Value {
        let inputs: Vec<_> = inputs.iter().map(|&input| Some(input)).collect();
        self.one("", op_type, &inputs, Vec::new())
    }

    fn one(
        &mut self,
        domain: &str,
        op_type: &str,
        inputs: &[Option<&Value>],
        attributes: Vec<AttributeProto>,
    ) -> Value {
        // A trailing input that is left out is not written at all.
        let used = inputs
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |last| last + 1);
        self.node(domain, op_type, &inputs[..used], 1, attributes)
            .remove(0)
    }
}

/// What [`Graph::reduce_last`] makes of a dimension.
#[derive(Debug, Clone, Copy)]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// A packed matrix; see [`crate::checkpoint::PackedMatrix`].
#[derive(Debug, Clone)]
pub struct Packed {
    /// f32 `[panels, in, PANEL]` or i8 `[panels, groups, PANEL, GROUP]`.
    pub panels: Value,
    /// Of a matrix in 8 bits: scale and sum of each output channel, f32 and i32 `[panels, PANEL]`.
    pub scales: Option<[Value; 2]>,
    /// Columns of the product.
    pub width: usize,
    /// Whether the first half of the output channels are gates of the second.
    pub is_gated: bool,
}

/// The outputs of a node that was asked for as many.
fn array<const N: usize>(outputs: Vec<Value>) -> [Value; N] {
    let mut outputs = outputs.into_iter();
    std::array::from_fn(|_| outputs.next().unwrap_or_else(|| Value(String::new())))
}
