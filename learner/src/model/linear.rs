//! The two building blocks that every layer uses.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::gradient;
use super::lora::Adapter;
use super::parameters::Parameters;
use super::product::Input;
use super::weight::Weight;

/// y = x W^T + b, and an adapter's part where the layer has one.
#[derive(Debug)]
pub struct Linear {
    weight: Weight, // [out, in]
    bias: Option<Weight>,
    adapter: Option<Adapter>,
}

impl Linear {
    /// The layer whose tensors are `{name}.weight` and, where the model has one, `{name}.bias`.
    pub fn new(parameters: &Parameters, name: &str, has_bias: bool) -> Result<Self> {
        let bias = if has_bias {
            Some(parameters.weight(&format!("{name}.bias"))?)
        } else {
            None
        };
        Ok(Self {
            weight: parameters.weight(&format!("{name}.weight"))?,
            bias,
            adapter: parameters.adapter(name),
        })
    }

    /// The layer with this weight [out, in] and nothing else.
    pub fn of(weight: Weight) -> Self {
        Self {
            weight,
            bias: None,
            adapter: None,
        }
    }

    /// x [.., in] -> [.., out].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.read(&Input::new(x))
    }

    /// The same with a result in f32 of x [N, in], whatever the layer computes in.
    pub fn forward_wide(&self, x: &Tensor) -> Tensor {
        Input::new(x).times_wide(&self.weight.in_graph())
    }

    /// The same as [`Self::forward`] of an input that several layers read.
    pub fn read(&self, x: &Input) -> Tensor {
        let bias = self.bias.as_ref().map(Weight::in_graph);
        let y = x.times(&self.weight.in_graph(), bias.as_ref());
        match &self.adapter {
            Some(adapter) => y + adapter.read(x),
            None => y,
        }
    }

    /// The way back: dL/dx [N, in] of y = read(x), given dL/dy [N, out]. What is trained gets its gradient added.
    pub fn backward(&self, x: &Input, dy: &Input) -> Result<Tensor> {
        if self.weight.is_trained() {
            x.add_weight_gradient(dy, &mut gradient::of(self.weight.master())?)?;
        }
        if let Some(bias) = self.bias.as_ref().filter(|bias| bias.is_trained()) {
            gradient::add(bias.master(), &dy.bias_gradient())?;
        }
        let dx = dy.back(self.weight.value());
        match &self.adapter {
            Some(adapter) => Ok(dx + adapter.backward(x, dy)?),
            None => Ok(dx),
        }
    }

    /// Whether anything in it is trained.
    pub fn is_trained(&self) -> bool {
        let bias = self.bias.as_ref();
        self.weight.is_trained() || self.adapter.is_some() || bias.is_some_and(Weight::is_trained)
    }
}

/// Root-mean-square norm over the last axis, in f32 whatever x is; the result is of the kind of x.
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
        ((wide * scale) * &self.weight).to_kind(x.kind())
    }

    /// The way back: dL/dx [N, E] of y = forward(x), given dL/dy [N, E]; x [N, E]. The weight gets its gradient added.
    ///
    /// With n = x / rms(x): dL/dw = sum over N of dL/dy n, and dL/dx = (u - n mean(u n)) / rms(x) for u = dL/dy w.
    pub fn backward(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let wide = x.to_kind(Kind::Float);
        let scale = (wide.square().mean_dim(-1, true, Kind::Float) + self.eps).rsqrt(); // [N, 1]
        let normal = wide * &scale;
        if self.weight.requires_grad() {
            let by_weight = (dy * &normal).sum_dim_intlist(0, false, Kind::Float);
            gradient::add(&self.weight, &by_weight)?;
        }
        let inner = dy * &self.weight;
        let mean = (&inner * &normal).mean_dim(-1, true, Kind::Float); // [N, 1]
        Ok(((inner - normal * mean) * scale).to_kind(x.kind()))
    }

    /// Whether its weight is trained.
    pub fn is_trained(&self) -> bool {
        self.weight.requires_grad()
    }
}
