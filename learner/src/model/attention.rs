//! Self-attention of both towers over a flat list of tokens.
//!
//! N tokens, H heads, K kv heads, D head dim, E hidden.

use anyhow::Result;
use models::config::{TextConfig, VisionConfig};
use tch::Tensor;

use super::linear::Linear;
use super::parameters::Parameters;
use super::product::Input;
use super::reach::{self, Heads, Reach};
use super::rotary::Rotary;

/// Attention of a layer: causal and grouped-query in the decoder; full or windowed, without causality, in the vision tower.
/// Which it is, `reach` says.
#[derive(Debug)]
pub struct Attention {
    qkv: Projections,
    output: Linear,
    num_heads: i64,
    num_kv_heads: i64,
    head_dim: i64,
}

/// What makes the heads.
#[derive(Debug)]
enum Projections {
    /// q, k and v in one matrix.
    Joined(Linear),
    /// One matrix each.
    Separate(Box<[Linear; 3]>),
}

/// What the way back needs of a pass.
#[derive(Debug)]
pub struct Kept {
    heads: Heads,
    attended: reach::Kept,
}

impl Attention {
    /// The decoder's layer under `name`.
    pub fn text(parameters: &Parameters, name: &str, config: &TextConfig) -> Result<Self> {
        let linear = |part: &str, has_bias: bool| {
            Linear::new(parameters, &format!("{name}.{part}"), has_bias)
        };
        Ok(Self {
            qkv: Projections::Separate(Box::new([
                linear("q_proj", true)?,
                linear("k_proj", true)?,
                linear("v_proj", true)?,
            ])),
            output: linear("o_proj", false)?,
            num_heads: i64::try_from(config.num_heads)?,
            num_kv_heads: i64::try_from(config.num_kv_heads)?,
            head_dim: i64::try_from(config.head_dim)?,
        })
    }

    /// The vision tower's layer under `name`.
    pub fn vision(parameters: &Parameters, name: &str, config: &VisionConfig) -> Result<Self> {
        let num_heads = i64::try_from(config.num_heads)?;
        Ok(Self {
            qkv: Projections::Joined(Linear::new(parameters, &format!("{name}.qkv"), true)?),
            output: Linear::new(parameters, &format!("{name}.proj"), true)?,
            num_heads,
            num_kv_heads: num_heads,
            head_dim: i64::try_from(config.head_dim)?,
        })
    }

    /// x [N, E] -> [N, E]; the rows' tokens, one row set after the other, are the N tokens in order.
    pub fn forward(&self, x: &Tensor, rotary: &Rotary, reach: &Reach) -> Tensor {
        let heads = self.heads(x, rotary);
        self.output.forward(&reach.attend(&heads))
    }

    /// The same without a graph, and what the way back needs.
    pub fn forward_keeping(&self, x: &Tensor, rotary: &Rotary, reach: &Reach) -> (Tensor, Kept) {
        let heads = self.heads(x, rotary);
        let attended = reach.attend_keeping(&heads);
        let y = self.output.forward(&attended.output);
        (y, Kept { heads, attended })
    }

    /// The way back: dL/dx [N, E] of y = forward(x), given dL/dy [N, E].
    pub fn backward(
        &self,
        x: &Tensor,
        (rotary, reach): (&Rotary, &Reach),
        Kept { heads, attended }: Kept,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let output = Input::new(&attended.output);
        let by_output = self.output.backward(&output, &Input::new(dy))?; // [N, H*D]
        let by = reach.backward(&heads, &attended, &by_output)?;
        let [q, k, v] = [rotary.back(&by.q), rotary.back(&by.k), by.v].map(|x| x.flatten(1, 2));
        let x = Input::new(x);
        match &self.qkv {
            Projections::Joined(qkv) => {
                qkv.backward(&x, &Input::new(&Tensor::cat(&[q, k, v], 1))) // [N, 3*H*D]
            }
            Projections::Separate(parts) => {
                let [of_q, of_k, of_v] = parts.as_ref();
                let by_q = of_q.backward(&x, &Input::new(&q))?;
                let by_k = of_k.backward(&x, &Input::new(&k))?;
                Ok(by_q + by_k + of_v.backward(&x, &Input::new(&v))?)
            }
        }
    }

    /// Whether anything in it is trained.
    pub fn is_trained(&self) -> bool {
        let is_qkv_trained = match &self.qkv {
            Projections::Joined(qkv) => qkv.is_trained(),
            Projections::Separate(parts) => parts.iter().any(Linear::is_trained),
        };
        is_qkv_trained || self.output.is_trained()
    }

    /// q and k turned.
    fn heads(&self, x: &Tensor, rotary: &Rotary) -> Heads {
        let x = Input::new(x);
        let [q, k, v] = match &self.qkv {
            Projections::Joined(qkv) => {
                let qkv = qkv.read(&x).view([-1, 3, self.num_heads, self.head_dim]); // [N, 3, H, D]
                let [q, k, v] = [0, 1, 2].map(|part| qkv.select(1, part)); // [N, H, D]
                // q and k are new tensors once they are turned; a view would keep all three for v.
                [q, k, v.contiguous()]
            }
            Projections::Separate(parts) => {
                let [q, k, v] = parts.as_ref();
                let kv = |layer: &Linear| {
                    let size = [-1, self.num_kv_heads, self.head_dim];
                    layer.read(&x).view(size) // [N, K, D]
                };
                let q = q.read(&x).view([-1, self.num_heads, self.head_dim]); // [N, H, D]
                [q, kv(k), kv(v)]
            }
        };
        Heads {
            q: rotary.apply(&q),
            k: rotary.apply(&k),
            v,
        }
    }
}
