//! A layer of either tower: norm, attention, norm, feed-forward, each of the two added to its input.
//!
//! There are two ways through it. [`Layer::forward`] leaves the way back to libtorch's graph, which keeps about every
//! number it meets. [`Layer::forward_keeping`] keeps what [`Layer::backward`] needs and cannot work out cheaply: the
//! results of the matrix products and of attention, a third of that. Norms and the gate's product are computed again.
//!
//! N tokens, E hidden.

use anyhow::Result;
use tch::Tensor;

use super::attention::{self, Attention};
use super::linear::RmsNorm;
use super::mlp::{self, Mlp};
use super::reach::Reach;
use super::rotary::Rotary;

/// x -> y + mlp(norm2(y)), y = x + attention(norm1(x)).
#[derive(Debug)]
pub struct Layer {
    /// Before attention.
    pub norm1: RmsNorm,
    /// Attention.
    pub attention: Attention,
    /// Before the feed-forward layer.
    pub norm2: RmsNorm,
    /// The feed-forward layer.
    pub mlp: Mlp,
}

/// What the way back needs of a pass, beside the layer's input.
#[derive(Debug)]
pub struct Kept {
    attention: attention::Kept,
    middle: Tensor, // [N, E]
    mlp: mlp::Kept,
}

impl Layer {
    /// x [N, E] -> [N, E].
    pub fn forward(&self, x: &Tensor, rotary: &Rotary, reach: &Reach) -> Tensor {
        let middle = x + self
            .attention
            .forward(&self.norm1.forward(x), rotary, reach);
        &middle + self.mlp.forward(&self.norm2.forward(&middle))
    }

    /// The same without a graph, and what the way back needs.
    pub fn forward_keeping(&self, x: &Tensor, rotary: &Rotary, reach: &Reach) -> (Tensor, Kept) {
        let normal = self.norm1.forward(x);
        let (attended, attention) = self.attention.forward_keeping(&normal, rotary, reach);
        let middle = x + attended;
        let (y, mlp) = self.mlp.forward_keeping(&self.norm2.forward(&middle));
        let y = &middle + y;
        let kept = Kept {
            attention,
            middle,
            mlp,
        };
        (y, kept)
    }

    /// The way back: dL/dx [N, E] of y = forward(x), given dL/dy [N, E]. What is trained gets its gradient added.
    pub fn backward(
        &self,
        x: &Tensor,
        turns_and_reach: (&Rotary, &Reach),
        kept: Kept,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let Kept {
            attention,
            middle,
            mlp,
        } = kept;
        let by_normal = self.mlp.backward(&self.norm2.forward(&middle), mlp, dy)?;
        let by_middle = dy + self.norm2.backward(&middle, &by_normal)?;
        let normal = self.norm1.forward(x);
        let by_normal = self
            .attention
            .backward(&normal, turns_and_reach, attention, &by_middle)?;
        Ok(by_middle + self.norm1.backward(x, &by_normal)?)
    }

    /// Whether anything in it is trained.
    pub fn is_trained(&self) -> bool {
        self.norm1.is_trained()
            || self.attention.is_trained()
            || self.norm2.is_trained()
            || self.mlp.is_trained()
    }
}
