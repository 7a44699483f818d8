//! y = x W^T + b, by the faster of the two libraries for it in libtorch.
//!
//! libtorch gives f32 products on the CPU to MKL, which uses AVX-512 on Intel's processors only; on others oneDNN, which
//! asks the processor what it can do, is about twice as fast. It has a tensor layout of its own: an input is brought into it once for
//! all layers that read it.

use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};

/// What linear layers read.
#[derive(Debug)]
pub struct Input(Tensor);

impl Input {
    /// x [.., in].
    pub fn new(x: &Tensor) -> Self {
        let is_plain = x.device() != Device::Cpu || x.kind() != Kind::Float || x.numel() == 0;
        if is_plain || !is_onednn_faster() {
            Self(x.shallow_clone())
        } else {
            Self(x.to_mkldnn())
        }
    }

    /// x W^T + b, [.., out]; weight [out, in].
    pub fn times(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        if self.0.is_mkldnn() {
            self.0.mkldnn_linear(weight, bias).to_dense(None, false)
        } else {
            self.0.linear(weight, bias)
        }
    }
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
    use super::*;

    #[test]
    fn both_libraries_give_the_same_result_and_gradients() {
        tch::manual_seed(1);
        let tensor = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let (x, weight, bias) = (tensor(&[37, 24]), tensor(&[50, 24]), tensor(&[50]));
        let factor = tensor(&[37, 50]);
        let through = |input: fn(&Tensor) -> Input| -> Vec<Tensor> {
            let leaves = [&x, &weight, &bias].map(|leaf| leaf.detach().set_requires_grad(true));
            let [x, weight, bias] = &leaves;
            let y = input(x).times(weight, Some(bias));
            (&y * &factor).sum(Kind::Float).backward();
            let gradients = leaves.iter().map(Tensor::grad);
            std::iter::once(y.detach()).chain(gradients).collect()
        };
        let plain = through(|x| Input(x.shallow_clone()));
        let onednn = through(|x| Input(x.to_mkldnn()));
        for (a, b) in plain.iter().zip(&onednn) {
            let difference = (a - b).abs().max().double_value(&[]);
            assert!(difference < 1e-4, "{difference}");
        }
    }
}
