//! A pass through a stack of layers that can go back without libtorch's graph.
//!
//! It keeps little: by default the results of the products, or (`--checkpoint-layers`) only what each layer read. Then the way
//! back computes a layer again before it goes through it: memory holds one layer's products, for about a third more
//! time. The gradients are the same. Below the lowest layer that is trained nothing is kept, and no way goes back.
//!
//! N tokens, E hidden.

use anyhow::Result;
use tch::Tensor;

use super::layer::{Kept, Layer};
use super::reach::Reach;
use super::rotary::Rotary;

/// What a pass keeps of each layer for the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// What it read, and the results of its products.
    Products,
    /// What it read.
    Inputs,
}

/// The layers of a tower, and where in its list of tokens each of them looks.
#[derive(Debug, Clone, Copy)]
pub struct Stack<'a, R> {
    /// In order.
    pub layers: &'a [Layer],
    /// The positions' angles.
    pub rotary: &'a Rotary,
    /// What sees what in the layer of that index.
    pub reach: R,
}

/// What was kept.
#[derive(Debug)]
pub struct Trace {
    /// The layer that the way back ends with.
    lowest: usize,
    /// From that layer on: what it read [N, E], and more of it.
    kept: Vec<(Tensor, Option<Kept>)>,
}

impl<'a, R: Fn(usize) -> &'a Reach> Stack<'a, R> {
    /// x [N, E] -> [N, E].
    pub fn forward(&self, x: Tensor) -> Tensor {
        let layers = self.layers.iter().enumerate();
        layers.fold(x, |x, (index, layer)| {
            layer.forward(&x, self.rotary, (self.reach)(index))
        })
    }

    /// The same without a graph; `needs_gradient`: whether the way back has to reach x.
    pub fn trace(&self, x: Tensor, needs_gradient: bool, keep: Keep) -> (Tensor, Trace) {
        let trained = self.layers.iter().position(Layer::is_trained);
        let lowest = match needs_gradient {
            true => 0,
            false => trained.unwrap_or(self.layers.len()),
        };
        let mut kept = Vec::with_capacity(self.layers.len() - lowest);
        let mut x = x;
        for (index, layer) in self.layers.iter().enumerate() {
            let reach = (self.reach)(index);
            let (y, more) = match keep {
                Keep::Products if index >= lowest => {
                    let (y, more) = layer.forward_keeping(&x, self.rotary, reach);
                    (y, Some(more))
                }
                _ => (layer.forward(&x, self.rotary, reach), None),
            };
            let x = std::mem::replace(&mut x, y);
            if index >= lowest {
                kept.push((x, more));
            }
        }
        (x, Trace { lowest, kept })
    }

    /// The way back: the gradient by what the lowest traced layer read [N, E], given that by the result [N, E]. What is
    /// trained gets its gradient added.
    pub fn backward(&self, trace: Trace, by_result: Tensor) -> Result<Tensor> {
        let Trace { lowest, kept } = trace;
        let mut gradient = by_result;
        for (offset, (x, kept)) in kept.into_iter().enumerate().rev() {
            let index = lowest + offset;
            let (layer, reach) = (&self.layers[index], (self.reach)(index));
            let kept = match kept {
                Some(kept) => kept,
                None => layer.forward_keeping(&x, self.rotary, reach).1,
            };
            gradient = layer.backward(&x, (self.rotary, reach), kept, &gradient)?;
        }
        Ok(gradient)
    }
}

impl Trace {
    /// Whether the way back has anything to do.
    pub fn needs_gradient(&self) -> bool {
        !self.kept.is_empty()
    }
}
