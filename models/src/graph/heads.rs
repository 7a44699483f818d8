//! Rotation and attention of heads in standard operators alone, as they are or decomposed.
//!
//! `// B rows or windows, S queries, M keys, H heads, K kv heads, G = H / K, D head dim`

use super::form::Form;
use super::rope::{Rotation, cast};
use crate::onnx::{DataType, Graph, Value, size};

/// Rotates heads `[B, H, S, D]` in their own element type, which is the rotation's too.
pub fn rotate(
    graph: &mut Graph,
    form: Form,
    x: &Value,
    rotation: &Rotation,
    head_dim: usize,
) -> Value {
    let Rotation { cos, sin } = rotation; // [B, S, D/2]
    if !form.is_decomposed() {
        return graph.rotate_heads(x, cos, sin);
    }
    let [first, second] = graph.split(x, -1, [head_dim / 2; 2]);
    let cos = graph.unsqueeze(cos, &[1]); // [B, 1, S, D/2]
    let sin = graph.unsqueeze(sin, &[1]);
    let (first_cos, second_sin) = (graph.mul(&first, &cos), graph.mul(&second, &sin));
    let (second_cos, first_sin) = (graph.mul(&second, &cos), graph.mul(&first, &sin));
    let low = graph.sub(&first_cos, &second_sin);
    let high = graph.add(&second_cos, &first_sin);
    graph.concat(&[&low, &high], -1)
}

/// Queries, keys and values of heads.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// `[B, H, S, D]`, rotated and multiplied with `1 / sqrt(D)`.
    pub query: &'a Value,
    /// `[B, K, M, D]`, rotated.
    pub key: &'a Value,
    /// `[B, K, M, D]`, finite wherever the mask hides it: a share of 0 does not hide a NaN.
    pub value: &'a Value,
    /// bool `[B, 1, S, M]`; `None` when every query sees every key.
    pub mask: Option<&'a Value>,
    /// H.
    pub num_heads: usize,
    /// K, a divisor of H.
    pub num_kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// M, where it is fixed; it must be where H > K.
    pub num_keys: Option<usize>,
}

/// Attention to `[B * S, H * D]`.
pub fn attend(graph: &mut Graph, form: Form, heads: &Heads<'_>) -> Value {
    let attended = if form.is_decomposed() {
        attend_decomposed(graph, form, heads)
    } else {
        graph.attend_heads(heads.query, heads.key, heads.value, heads.mask)
    }; // [B, H, S, D]
    let attended = graph.transpose(&attended, &[0, 2, 1, 3]); // [B, S, H, D]
    graph.reshape_to(&attended, &[-1, size(heads.num_heads * heads.head_dim)])
}

/// Products and a softmax, which is f32. The queries of the G heads of a kv head are rows of one product: no key is copied.
fn attend_decomposed(graph: &mut Graph, form: Form, heads: &Heads<'_>) -> Value {
    let kv_heads = size(heads.num_kv_heads);
    let groups = size(heads.num_heads / heads.num_kv_heads);
    let head_dim = size(heads.head_dim);
    let num_keys = heads.num_keys.map_or(-1, size);
    let mut query = heads.query.clone();
    if groups > 1 {
        query = graph.reshape_to(&query, &[0, kv_heads, -1, head_dim]); // [B, K, G*S, D]
    }
    let key = graph.transpose(heads.key, &[0, 1, 3, 2]); // [B, K, D, M]
    let scores = graph.matmul(&query, &key); // [B, K, G*S, M]
    let mut scores = cast(graph, &scores, form.elements(), DataType::Float);
    if let Some(mask) = heads.mask {
        let lowest = graph.float("lowest", &[], &[f32::MIN]);
        if groups > 1 {
            scores = graph.reshape_to(&scores, &[0, kv_heads, groups, -1, num_keys]);
            let mask = graph.unsqueeze(mask, &[1]); // [B, 1, 1, S, M]
            scores = graph.choose(&mask, &scores, &lowest); // [B, K, G, S, M]
            scores = graph.reshape_to(&scores, &[0, kv_heads, -1, num_keys]);
        } else {
            scores = graph.choose(mask, &scores, &lowest);
        }
    }
    let shares = graph.softmax(&scores);
    let shares = cast(graph, &shares, DataType::Float, form.elements());
    let attended = graph.matmul(&shares, heads.value); // [B, K, G*S, D]
    if groups > 1 {
        graph.reshape_to(&attended, &[0, size(heads.num_heads), -1, head_dim])
    } else {
        attended
    }
}
