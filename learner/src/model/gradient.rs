//! Gradients that are written by hand, into the tensors where libtorch itself would put them.

use anyhow::Result;
use tch::{Device, Kind, Tensor, with_grad};

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

/// Adds rows [n, ..] to those rows of `sum` [m, ..], f32, that `index` [n] names, often the same ones; in f32 whatever the
/// rows are. On a GPU in an order that does not change from run to run, which `index_add_` is free to do.
pub fn add_rows(sum: &mut Tensor, index: &Tensor, rows: &Tensor) -> Result<()> {
    let rows = rows.to_kind(Kind::Float);
    let _ = match sum.device() {
        Device::Cpu => sum.f_index_add_(0, index, &rows)?,
        _ => sum.f_index_put_(&[Some(index)], &rows, true)?,
    };
    Ok(())
}

/// Sends a gradient into the graph that a tensor has.
pub fn into_graph(y: &Tensor, by_y: &Tensor) -> Result<()> {
    with_grad(|| (y * by_y).sum(Kind::Float).f_backward())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tch::no_grad;

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
