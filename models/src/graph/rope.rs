//! Rotary positions: the cosines and sines that attention turns queries and keys by, in f32.
//!
//! `// B rows, S tokens, N patches, D head dim`

use crate::config::{TextConfig, VisionConfig};
use crate::error::{Error, Result};
use crate::onnx::{DataType, Graph, Value};

/// Base of the vision tower's frequencies.
const VISION_THETA: f32 = 10_000.0;

/// Cosines and sines of one pass, f32 where nothing else is said.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// `[B, S, D/2]`.
    pub cos: Value,
    /// `[B, S, D/2]`.
    pub sin: Value,
}

impl Rotation {
    /// Rotation and a factor of `1 / sqrt(D)`: for queries, so that their scores need none.
    pub fn scaled(&self, graph: &mut Graph, head_dim: usize) -> Self {
        let factor = 1.0 / (head_dim as f32).sqrt();
        let factor = graph.float(&format!("score_factor.{head_dim}"), &[], &[factor]);
        self.map(|value| graph.mul(value, &factor))
    }

    /// In another element type than f32.
    pub fn cast(&self, graph: &mut Graph, to: DataType) -> Self {
        self.map(|value| cast(graph, value, DataType::Float, to))
    }

    /// Of each of both.
    pub fn map(&self, mut of: impl FnMut(&Value) -> Value) -> Self {
        Self {
            cos: of(&self.cos),
            sin: of(&self.sin),
        }
    }
}

/// `x` of type `from` as `to`; itself where they are the same.
pub fn cast(graph: &mut Graph, x: &Value, from: DataType, to: DataType) -> Value {
    if from == to {
        x.clone()
    } else {
        graph.cast(x, to)
    }
}

/// M-RoPE: frequency `j` turns with the temporal, height or width position, as `mrope_section` deals the `D/2`
/// frequencies out. `position_ids` is i64 `[3, B, S]`.
pub fn text_rotation(
    graph: &mut Graph,
    position_ids: &Value,
    config: &TextConfig,
) -> Result<Rotation> {
    let half = config.head_dim / 2;
    if config.mrope_section.iter().sum::<usize>() != half {
        return Err(Error::Graph(format!(
            "mrope_section {:?} must sum to half the head dim, {half}",
            config.mrope_section
        )));
    }
    graph.scope("rope");
    let frequencies = inverse_frequencies(config.head_dim, super::to_f32(config.rope_theta));
    let mut by_axis = vec![0.0; 3 * half]; // [3, 1, 1, D/2], zero where another axis has the frequency
    let axes = config
        .mrope_section
        .iter()
        .enumerate()
        .flat_map(|(axis, &count)| std::iter::repeat_n(axis, count));
    for (index, axis) in axes.enumerate() {
        by_axis[axis * half + index] = frequencies[index];
    }
    let frequencies = graph.float("rope.inverse_frequencies", &[3, 1, 1, half], &by_axis);
    let positions = graph.cast(position_ids, DataType::Float);
    let positions = graph.unsqueeze(&positions, &[-1]); // [3, B, S, 1]
    let angles = graph.mul(&positions, &frequencies); // [3, B, S, D/2]
    let angles = graph.reduce_sum(&angles, 0); // [B, S, D/2], each a sum with zeros: exact
    Ok(Rotation {
        cos: graph.cos(&angles),
        sin: graph.sin(&angles),
    })
}

/// Two-dimensional rotation of patches: the first half of the frequencies turns with the row, the second with the
/// column. `rope_positions` is i64 `[N, 2]`; the rotation has B = 1, S = N.
pub fn vision_rotation(
    graph: &mut Graph,
    rope_positions: &Value,
    config: &VisionConfig,
) -> Rotation {
    graph.scope("rope");
    let frequencies = inverse_frequencies(config.head_dim / 2, VISION_THETA);
    let frequencies = graph.float(
        "rope.inverse_frequencies",
        &[frequencies.len()],
        &frequencies,
    ); // [D/4]
    let positions = graph.cast(rope_positions, DataType::Float);
    let positions = graph.unsqueeze(&positions, &[0, -1]); // [1, N, 2, 1]
    let angles = graph.mul(&positions, &frequencies); // [1, N, 2, D/4]
    let angles = graph.reshape_to(&angles, &[0, 0, -1]); // [1, N, D/2]
    Rotation {
        cos: graph.cos(&angles),
        sin: graph.sin(&angles),
    }
}

/// `theta^(-2j/dim)` for `j` in `0..dim/2`, rounded to f32 at each step as PyTorch does.
fn inverse_frequencies(dim: usize, theta: f32) -> Vec<f32> {
    (0..dim)
        .step_by(2)
        .map(|even| 1.0 / theta.powf(even as f32 / dim as f32))
        .collect()
}
