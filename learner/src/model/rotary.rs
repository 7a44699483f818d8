//! Rotary position embeddings: the multimodal one of the decoder and the two-axis one of the vision tower.
//!
//! N tokens, H heads, D head dim.

use anyhow::Result;
use models::config::{TextConfig, VisionConfig};
use tch::{Device, Kind, Tensor};

/// Base of the vision tower's frequencies; Qwen2.5-VL has no key for it.
const VISION_THETA: f64 = 10_000.0;

/// Cosine and sine of every token's angles.
#[derive(Debug)]
pub struct Rotary {
    cos: Tensor, // f32 [N, 1, D]
    sin: Tensor, // f32 [N, 1, D]
}

impl Rotary {
    /// M-RoPE: the first `mrope_section[0]` frequencies turn with the temporal position, the next with the row, the rest with the column.
    pub fn text(positions: &[Vec<i64>; 3], config: &TextConfig, device: Device) -> Result<Self> {
        let mut axis_of_frequency = Vec::with_capacity(config.head_dim / 2);
        for (axis, &count) in (0i64..).zip(&config.mrope_section) {
            axis_of_frequency.extend(std::iter::repeat_n(axis, count));
        }
        let axes = Tensor::stack(
            &positions.each_ref().map(|axis| Tensor::from_slice(axis)),
            0,
        ); // [3, N]
        let positions = axes.index_select(0, &Tensor::from_slice(&axis_of_frequency)); // [D/2, N]
        let frequencies = inverse_frequencies(config.rope_theta, config.head_dim);
        Ok(Self::new(
            &(positions.transpose(0, 1).to_kind(Kind::Float) * frequencies),
            device,
        ))
    }

    /// The vision tower: half of the frequencies turn with the row, half with the column; `positions` [N][2] = (row, column).
    pub fn vision(positions: &[[i64; 2]], config: &VisionConfig, device: Device) -> Result<Self> {
        let flat: Vec<i64> = positions.iter().flatten().copied().collect();
        let positions = Tensor::from_slice(&flat)
            .view([-1, 2, 1])
            .to_kind(Kind::Float);
        let frequencies = inverse_frequencies(VISION_THETA, config.head_dim / 2); // [D/4]
        Ok(Self::new(&(positions * frequencies).flatten(1, 2), device)) // [N, D/2]
    }

    /// From the angles [N, D/2]; both halves of a head turn by the same ones.
    fn new(angles: &Tensor, device: Device) -> Self {
        let angles = Tensor::cat(&[angles, angles], -1)
            .unsqueeze(1)
            .to_device(device); // [N, 1, D]
        Self {
            cos: angles.cos(),
            sin: angles.sin(),
        }
    }

    /// Turns x [N, H, D], in f32; the result is of the kind of x.
    pub fn apply(&self, x: &Tensor) -> Tensor {
        (x * &self.cos + quarter_turn(x) * &self.sin).to_kind(x.kind())
    }

    /// Turns x [N, H, D] back: the gradient by what was turned, given that by the result.
    pub fn back(&self, x: &Tensor) -> Tensor {
        (x * &self.cos - quarter_turn(x) * &self.sin).to_kind(x.kind())
    }
}

/// (a, b) -> (-b, a), the halves of the last axis.
fn quarter_turn(x: &Tensor) -> Tensor {
    let halves = x.chunk(2, -1);
    Tensor::cat(&[halves[1].neg(), halves[0].shallow_clone()], -1)
}

/// theta^(-2j/dim) for j in 0..dim/2, f32 [dim/2].
fn inverse_frequencies(theta: f64, dim: usize) -> Tensor {
    let frequencies: Vec<f64> = (0..dim / 2)
        .map(|j| theta.powf(-((2 * j) as f64) / dim as f64))
        .collect();
    Tensor::from_slice(&frequencies).to_kind(Kind::Float)
}
