//! Gradients that are written by hand, into the tensors where libtorch itself would put them.

use anyhow::Result;
use tch::{Kind, Tensor, with_grad};

/// A parameter's gradient, to add to; zeros where there was none.
pub fn of(parameter: &Tensor) -> Result<Tensor> {
    let gradient = parameter.grad();
    if gradient.defined() {
        return Ok(gradient);
    }
    // Only a backward pass can give a tensor its gradient: here that of 0 times its first number.
    with_grad(|| {
        let first = parameter.flatten(0, -1).narrow(0, 0, 1);
        (first * 0.0).sum(Kind::Float).f_backward()
    })?;
    Ok(parameter.grad())
}

/// Adds to a parameter's gradient.
pub fn add(parameter: &Tensor, part: &Tensor) -> Result<()> {
    let _ = of(parameter)?.f_add_(part)?;
    Ok(())
}

/// Sends a gradient into the graph that a tensor has.
pub fn into_graph(y: &Tensor, by_y: &Tensor) -> Result<()> {
    with_grad(|| (y * by_y).sum(Kind::Float).f_backward())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tch::{Device, no_grad};

    use super::*;

    #[test]
    fn parts_add_up_with_and_without_a_graph_around() {
        let start = Tensor::from_slice(&[f32::INFINITY, 1.0_f32]);
        let parameter = start.set_requires_grad(true);
        assert!(!parameter.grad().defined());
        let part = Tensor::from_slice(&[0.5_f32, -2.0]);
        no_grad(|| add(&parameter, &part)).unwrap();
        no_grad(|| add(&parameter, &part)).unwrap();
        (&parameter * &part).sum(Kind::Float).backward();
        let sum: Vec<f32> = parameter.grad().try_into().unwrap();
        assert_eq!(sum, [1.5, -6.0]);
        assert_eq!(parameter.grad().device(), Device::Cpu);
    }
}
