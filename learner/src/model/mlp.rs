//! The gated feed-forward layer of both towers.

use anyhow::Result;
use tch::Tensor;

use super::linear::Linear;
use super::parameters::Parameters;
use super::product::Input;

/// down(silu(gate(x)) * up(x)).
#[derive(Debug)]
pub struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    /// The layer under `name`; the vision tower's has biases, the decoder's none.
    pub fn new(parameters: &Parameters, name: &str, has_bias: bool) -> Result<Self> {
        let linear = |part: &str| Linear::new(parameters, &format!("{name}.{part}"), has_bias);
        Ok(Self {
            gate_proj: linear("gate_proj")?,
            up_proj: linear("up_proj")?,
            down_proj: linear("down_proj")?,
        })
    }

    /// x [N, E] -> [N, E].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = Input::new(x);
        self.down_proj
            .forward(&(self.gate_proj.read(&x).silu() * self.up_proj.read(&x)))
    }
}
