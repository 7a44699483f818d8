//! A pass through a stack of layers that remembers only what each layer read (`--checkpoint-layers`).
//!
//! The way back computes a layer again, with a graph of its own, takes the gradient through it, and drops the graph before
//! the layer below: memory holds one layer's activations, for about a third more time. The gradients are the same.

use anyhow::Result;
use tch::{Kind, Tensor, no_grad};

/// What was remembered.
#[derive(Debug)]
pub struct Trace {
    /// What the first layer read, with its graph.
    start: Tensor,
    /// What each layer read, without any.
    inputs: Vec<Tensor>,
}

impl Trace {
    /// Sends `start` through `num_layers` layers, `layer(i, x)` being the i-th. The result is a leaf that takes a gradient.
    pub fn forward(
        start: Tensor,
        num_layers: usize,
        layer: impl Fn(usize, &Tensor) -> Tensor,
    ) -> (Tensor, Self) {
        let mut inputs = Vec::with_capacity(num_layers);
        let mut x = start.detach();
        no_grad(|| {
            for index in 0..num_layers {
                let y = layer(index, &x);
                inputs.push(std::mem::replace(&mut x, y));
            }
        });
        (x.set_requires_grad(true), Self { start, inputs })
    }

    /// Adds the gradient of a loss to the parameters, given that by the result. The same `layer` as on the way there.
    pub fn backward(
        self,
        gradient: Tensor,
        layer: impl Fn(usize, &Tensor) -> Tensor,
    ) -> Result<()> {
        let mut gradient = gradient;
        for (index, x) in self.inputs.into_iter().enumerate().rev() {
            let x = x.set_requires_grad(true);
            (layer(index, &x) * gradient)
                .sum(Kind::Float)
                .f_backward()?;
            gradient = x.grad();
        }
        if self.start.requires_grad() {
            (self.start * gradient).sum(Kind::Float).f_backward()?;
        }
        Ok(())
    }
}
