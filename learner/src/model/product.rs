//! y = x W^T + b, by the faster of the two libraries for it in libtorch.
//!
//! libtorch gives f32 products on the CPU to MKL, which uses AVX-512 on Intel's processors only; on others oneDNN, which
//! asks the processor what it can do, is about twice as fast. It has a tensor layout of its own: an input is brought into it once for
//! all layers that read it.
//!
//! In bf16 the factors are bf16 and sums are f32. On a GPU a result that is to be f32 (logits, gradients by weights) comes
//! from there without being rounded, if libtorch's product for that is right on this GPU, which is tried once.

use std::sync::OnceLock;

use anyhow::Result;
use tch::{Device, Kind, Tensor, no_grad};

use crate::operator;

/// What linear layers read: their input on the way there, the gradient by their output on the way back.
#[derive(Debug)]
pub struct Input {
    plain: Tensor,
    onednn: Option<Tensor>,
}

impl Input {
    /// x [.., in].
    pub fn new(x: &Tensor) -> Self {
        let is_plain = x.device() != Device::Cpu || x.kind() != Kind::Float || x.numel() == 0;
        let is_faster = !is_plain && is_onednn_faster();
        Self::of(x, is_faster)
    }

    fn of(x: &Tensor, is_onednn: bool) -> Self {
        Self {
            plain: x.shallow_clone(),
            onednn: is_onednn.then(|| x.to_mkldnn()),
        }
    }

    /// x W^T + b, [.., out]; weight [out, in].
    pub fn times(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match &self.onednn {
            Some(x) => x.mkldnn_linear(weight, bias).to_dense(None, false),
            None => self.plain.linear(weight, bias),
        }
    }

    /// x W^T in f32, [N, out], of x [N, in]; weight [out, in] of the kind of x.
    pub fn times_wide(&self, weight: &Tensor) -> Tensor {
        let x = &self.plain;
        if x.kind() == Kind::Float {
            return self.times(weight, None);
        }
        if has_wide_products(x.device()) && !operator::is_making_graph() {
            return x.mm_dtype(&weight.tr(), Kind::Float);
        }
        x.to_kind(Kind::Float)
            .linear(&weight.to_kind(Kind::Float), None::<&Tensor>)
    }

    /// dL/dx = dL/dy W of y = x W^T + b, [N, in]; this is dL/dy [N, out].
    pub fn back(&self, weight: &Tensor) -> Tensor {
        match &self.onednn {
            Some(dy) => {
                let size = [dy.size()[0], weight.size()[1]];
                Tensor::mkldnn_linear_backward_input(size, dy, weight).to_dense(None, false)
            }
            None => self.plain.matmul(weight),
        }
    }

    /// Adds dL/dW = (dL/dy)^T x of y = x W^T to `sum`, f32 [out, in]; this is x [N, in], `dy` dL/dy [N, out].
    pub fn add_weight_gradient(&self, dy: &Self, sum: &mut Tensor) -> Result<()> {
        let _ = match (&self.onednn, &dy.onednn) {
            (Some(x), Some(dy)) => {
                // Of the weight only the shape is read.
                let (part, _) = x.mkldnn_linear_backward_weights(dy, sum, false);
                sum.f_add_(&part)?
            }
            _ => add_product(sum, &dy.plain.tr(), &self.plain)?,
        };
        Ok(())
    }

    /// Adds up dL/dy over all N: dL/db [out] of y = x W^T + b; this is dL/dy [N, out].
    pub fn bias_gradient(&self) -> Tensor {
        self.plain.sum_dim_intlist(0, false, Kind::Float)
    }
}

/// Adds a product to `sum`, f32.
fn add_product(sum: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.kind() == Kind::Float {
        return Ok(sum.f_addmm_(a, b)?);
    }
    if has_wide_products(sum.device()) {
        return add_wide_product(sum, a, b);
    }
    Ok(sum.f_add_(&a.f_matmul(b)?)?)
}

/// The same of bf16 factors, the sum never rounded to less than f32.
fn add_wide_product(sum: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    // `sum` as both what is added to and where the result goes.
    Ok(sum.f_addmm_dtype_out(sum, a, b, Kind::Float)?)
}

/// Whether products of bf16 factors give f32 there. Asked once: a process uses one GPU.
fn has_wide_products(device: Device) -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    device != Device::Cpu
        && *ANSWER.get_or_init(|| {
            let is_right = no_grad(|| try_wide_products(device)).unwrap_or(false);
            if !is_right {
                tracing::warn!(
                    "libtorch's bf16 products with f32 results fail on this GPU: logits are computed from widened factors, gradients are rounded to bf16 before they are added up"
                );
            }
            is_right
        })
}

/// Whole numbers whose products bf16 would round.
fn try_wide_products(device: Device) -> Result<bool> {
    let numbers = Tensor::arange(16 * 16, (Kind::Float, device)).view([16, 16]);
    let (a, b) = (
        numbers.to_kind(Kind::BFloat16),
        (&numbers - 100.0).to_kind(Kind::BFloat16),
    );
    let expected = a.to_kind(Kind::Double).matmul(&b.to_kind(Kind::Double));
    let start = &numbers + 0.5;
    let sum = start.copy();
    let _ = add_wide_product(&sum, &a, &b)?;
    let is_equal = |got: &Tensor, expected: &Tensor| {
        got.to_kind(Kind::Double)
            .equal(&expected.to_kind(Kind::Double))
    };
    let product = a.f_mm_dtype(&b, Kind::Float)?;
    Ok(is_equal(&product, &expected) && is_equal(&sum, &(expected + start.to_kind(Kind::Double))))
}

/// What multiplies f32 matrices on this CPU, for reports.
pub fn library() -> &'static str {
    if is_onednn_faster() { "oneDNN" } else { "MKL" }
}

/// Told by the processor, not by a measurement: a run must use the same arithmetic after a restart.
fn is_onednn_faster() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(has_avx512_not_of_intel)
}

#[cfg(target_arch = "x86_64")]
fn has_avx512_not_of_intel() -> bool {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let vendor = info.lines().find(|line| line.starts_with("vendor_id"));
    is_x86_feature_detected!("avx512f")
        && vendor.is_some_and(|line| !line.ends_with("GenuineIntel"))
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512_not_of_intel() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use tch::no_grad;

    use super::*;

    #[test]
    fn both_libraries_give_the_same_result_and_gradients() {
        tch::manual_seed(1);
        let tensor = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let (x, weight, bias) = (tensor(&[37, 24]), tensor(&[50, 24]), tensor(&[50]));
        let factor = tensor(&[37, 50]);
        let by_graph = |is_onednn: bool| -> Vec<Tensor> {
            let leaves = [&x, &weight, &bias].map(|leaf| leaf.detach().set_requires_grad(true));
            let [x, weight, bias] = &leaves;
            let y = Input::of(x, is_onednn).times(weight, Some(bias));
            (&y * &factor).sum(Kind::Float).backward();
            let gradients = leaves.iter().map(Tensor::grad);
            std::iter::once(y.detach()).chain(gradients).collect()
        };
        // The sum that the weight's gradient is added to holds something already.
        let by_hand = |is_onednn: bool| -> Vec<Tensor> {
            no_grad(|| {
                let (x, dy) = (Input::of(&x, is_onednn), Input::of(&factor, is_onednn));
                let mut sum = weight.copy();
                x.add_weight_gradient(&dy, &mut sum).unwrap();
                let y = x.times(&weight, Some(&bias));
                vec![y, dy.back(&weight), sum - &weight, dy.bias_gradient()]
            })
        };
        let plain = by_graph(false);
        for other in [by_graph(true), by_hand(false), by_hand(true)] {
            for (a, b) in plain.iter().zip(&other) {
                let difference = (a - b).abs().max().double_value(&[]);
                assert!(difference < 1e-4, "{difference}");
            }
        }
    }
}
