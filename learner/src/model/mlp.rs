//! The gated feed-forward layer of both towers.

use anyhow::Result;
use tch::Tensor;

use super::linear::Linear;
use super::parameters::Parameters;
use super::product::Input;

/// down(silu(gate(x)) * up(x)).
///
/// N tokens, E hidden, F wide
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
        self.forward_keeping(x).0
    }

    /// The same, and what the way back needs.
    pub fn forward_keeping(&self, x: &Tensor) -> (Tensor, Kept) {
        let x = Input::new(x);
        let kept = Kept {
            gate: self.gate_proj.read(&x),
            up: self.up_proj.read(&x),
        };
        let y = self.down_proj.forward(&(kept.gate.silu() * &kept.up));
        (y, kept)
    }

    /// The way back: dL/dx [N, E] of y = forward(x), given dL/dy [N, E].
    pub fn backward(&self, x: &Tensor, kept: Kept, dy: &Tensor) -> Result<Tensor> {
        let Kept { gate, up } = kept;
        let mut silu = gate.silu();
        let by_product = {
            let product = Input::new(&(&silu * &up));
            self.down_proj.backward(&product, &Input::new(dy))? // [N, F]
        };
        let by_up = Input::new(&silu.f_mul_(&by_product)?);
        let by_gate = Input::new(&gate.silu_backward(&(by_product * up)));
        drop((silu, gate));
        let x = Input::new(x);
        Ok(self.gate_proj.backward(&x, &by_gate)? + self.up_proj.backward(&x, &by_up)?)
    }

    /// Whether anything in it is trained.
    pub fn is_trained(&self) -> bool {
        let layers = [&self.gate_proj, &self.up_proj, &self.down_proj];
        layers.into_iter().any(Linear::is_trained)
    }
}

/// What the way back needs of a pass: [N, F] each.
#[derive(Debug)]
pub struct Kept {
    gate: Tensor,
    up: Tensor,
}
