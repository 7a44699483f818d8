//! The engine's kernels as operators of the domain `tor`, for ONNX Runtime's CPU provider and on its threads.
#![allow(
    unsafe_code,
    reason = "attention writes the cache, one of its inputs, in place"
)]

use std::sync::Mutex;

use models::onnx::TOR;
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::{TensorElementType, ValueRef};

use crate::engine::cache::CacheLayout;
use crate::engine::kernel::attention::{Inputs, PagedAttention};
use crate::engine::kernel::lanes::Lanes;
use crate::engine::kernel::silu::SiluMul;

/// The operators, for a session with so many threads.
pub(super) fn domain(threads: usize) -> ort::Result<OperatorDomain> {
    OperatorDomain::new(TOR)?
        .add(PagedAttentionOperator { threads })?
        .add(SiluMulOperator { threads })
}

/// `tor.PagedAttention`: see [`crate::engine::kernel::attention`].
struct PagedAttentionOperator {
    threads: usize,
}

struct PagedAttentionKernel {
    kernel: PagedAttention,
    layout: CacheLayout,
    layer: usize,
    num_heads: usize,
}

impl Operator for PagedAttentionOperator {
    type Kernel<'attr> = PagedAttentionKernel;

    fn name(&self) -> &'static str {
        "PagedAttention"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::{Float32, Int32};
        [Float32, Float32, Float32, Float32, Int32, Int32].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(
        &self,
        context: &KernelContext<'attr>,
    ) -> ort::Result<Self::Kernel<'attr>> {
        let size = |name: &str| -> ort::Result<usize> {
            let value = context.get::<i64>(name);
            value
                .and_then(|value| usize::try_from(value).ok())
                .ok_or_else(|| ort::Error::new(format!("PagedAttention wants `{name}`")))
        };
        Ok(PagedAttentionKernel {
            kernel: PagedAttention::new(self.threads),
            layout: CacheLayout {
                // Known from the cache when it runs.
                num_layers: 0,
                num_kv_heads: size("num_kv_heads")?,
                head_dim: size("head_dim")?,
            },
            layer: size("layer")?,
            num_heads: size("num_heads")?,
        })
    }
}

impl Kernel for PagedAttentionKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let inputs: Vec<ValueRef<'_>> = (0..6)
            .map(|index| required(context, index))
            .collect::<ort::Result<_>>()?;
        let (shape, qkv) = inputs[0].try_extract_tensor::<f32>()?;
        let tokens = shape[0];
        let (cache_shape, cache) = inputs[3].try_extract_tensor::<f32>()?;
        let layout = CacheLayout {
            num_layers: usize::try_from(cache_shape[1]).unwrap_or(0),
            ..self.layout
        };
        // SAFETY: the memory is a `KvCache` lent mutably for this run (`Bindings::bind_cache`), the graph's nodes run one after
        // the other, and nothing else reads it while they do.
        let cache =
            unsafe { std::slice::from_raw_parts_mut(cache.as_ptr().cast_mut(), cache.len()) };
        let Ok(cache) = bytemuck::try_cast_slice_mut::<f32, Lanes>(cache) else {
            return Err(ort::Error::new("the cache is not aligned"));
        };
        let width = self.num_heads * layout.head_dim;
        let mut out = output(context, [tokens, models::onnx::size(width)])?;
        let (_, out) = out.try_extract_tensor_mut::<f32>()?;
        let inputs = Inputs {
            layer: self.layer,
            num_heads: self.num_heads,
            qkv,
            cos: inputs[1].try_extract_tensor::<f32>()?.1,
            sin: inputs[2].try_extract_tensor::<f32>()?.1,
            sequences: inputs[4].try_extract_tensor::<i32>()?.1,
            block_table: inputs[5].try_extract_tensor::<i32>()?.1,
        };
        parallel(
            |run| self.kernel.run(&layout, &inputs, cache, out, run),
            context,
        )
    }
}

/// `tor.SiluMul`: [T, 2F] to [T, F].
struct SiluMulOperator {
    threads: usize,
}

struct SiluMulKernel {
    threads: usize,
}

impl Operator for SiluMulOperator {
    type Kernel<'attr> = SiluMulKernel;

    fn name(&self) -> &'static str {
        "SiluMul"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        Ok(SiluMulKernel {
            threads: self.threads,
        })
    }
}

impl Kernel for SiluMulKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let input = required(context, 0)?;
        let (shape, gate_up) = input.try_extract_tensor::<f32>()?;
        let (tokens, width) = (shape[0], usize::try_from(shape[1] / 2).unwrap_or(0));
        let mut out = output(context, [tokens, shape[1] / 2])?;
        let (_, out) = out.try_extract_tensor_mut::<f32>()?;
        let rows = usize::try_from(tokens).unwrap_or(0);
        let share = rows.div_ceil(self.threads).max(1);
        let parts: Vec<_> = gate_up
            .chunks(2 * width * share)
            .zip(out.chunks_mut(width * share))
            .map(|(gate_up, out)| (gate_up, Mutex::new(out)))
            .collect();
        parallel(
            |run| {
                run(parts.len(), &|part| {
                    let (gate_up, out) = &parts[part];
                    let Ok(mut out) = out.lock() else { return };
                    pulp::Arch::new().dispatch(SiluMul {
                        gate_up,
                        out: &mut out,
                        width,
                    });
                });
            },
            context,
        )
    }
}

/// Gives `work` ONNX Runtime's threads.
fn parallel(
    work: impl FnOnce(&crate::engine::kernel::attention::Parallel<'_>),
    context: &ComputeContext,
) -> ort::Result<()> {
    let error = Mutex::new(None);
    work(&|count, each| {
        let result = match count {
            0 => Ok(()),
            1 => {
                each(0);
                Ok(())
            }
            _ => context.par_for(count, 0, each),
        };
        if let (Err(found), Ok(mut error)) = (result, error.lock()) {
            *error = Some(found);
        }
    });
    match error.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => Ok(()),
    }
}

fn required(context: &ComputeContext, index: usize) -> ort::Result<ValueRef<'_>> {
    context
        .input(index)?
        .ok_or_else(|| ort::Error::new(format!("input {index} is missing")))
}

fn output<const RANK: usize>(
    context: &ComputeContext,
    shape: [i64; RANK],
) -> ort::Result<ort::value::ValueRefMut<'_>> {
    context
        .output(0, shape)?
        .ok_or_else(|| ort::Error::new("the output is missing"))
}
