//! The two building blocks that every layer uses.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::lora::Adapter;
use super::parameters::Parameters;
use super::product::Input;

/// y = x W^T + b, and an adapter's part where the layer has one.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor, // [out, in]
    bias: Option<Tensor>,
    adapter: Option<Adapter>,
}

impl Linear {
    /// The layer whose tensors are `{name}.weight` and, where the model has one, `{name}.bias`.
    pub fn new(parameters: &Parameters, name: &str, has_bias: bool) -> Result<Self> {
        let bias = if has_bias {
            Some(parameters.get(&format!("{name}.bias"))?)
        } else {
            None
        };
        Ok(Self {
            weight: parameters.get(&format!("{name}.weight"))?,
            bias,
            adapter: parameters.adapter(name),
        })
    }

    /// x [.., in] -> [.., out].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.read(&Input::new(x))
    }

    /// The same of an input that several layers read.
    pub fn read(&self, x: &Input) -> Tensor {
        let y = x.times(&self.weight, self.bias.as_ref());
        match &self.adapter {
            Some(adapter) => y + adapter.read(x),
            None => y,
        }
    }
}

/// Root-mean-square norm over the last axis, in f32.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Tensor, // [E]
    eps: f64,
}

impl RmsNorm {
    /// The norm whose tensor is `{name}.weight`.
    pub fn new(parameters: &Parameters, name: &str, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: parameters.get(&format!("{name}.weight"))?,
            eps,
        })
    }

    /// x [.., E] -> [.., E].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let wide = x.to_kind(Kind::Float);
        let scale = (wide.square().mean_dim(-1, true, Kind::Float) + self.eps).rsqrt();
        (wide * scale).to_kind(x.kind()) * &self.weight
    }
}
