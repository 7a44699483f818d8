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
use ort::value::{DynTensorValueType, TensorElementType, ValueRef};

use crate::engine::cache::CacheLayout;
use crate::engine::kernel::attention::{Inputs, PagedAttention};
use crate::engine::kernel::int8_linear::{self, Int8Linear};
use crate::engine::kernel::lanes::Lanes;
use crate::engine::kernel::linear::{self, Linear};
use crate::engine::kernel::panels::{Plus, Shape};
use crate::engine::kernel::parallel::{Parallel, each};
use crate::engine::kernel::silu::SiluMul;

/// The operators, for a session with so many threads.
pub(super) fn domain(threads: usize) -> ort::Result<OperatorDomain> {
    let linear = |is_int8| LinearOperator { is_int8, threads };
    OperatorDomain::new(TOR)?
        .add(PagedAttentionOperator { threads })?
        .add(SiluMulOperator { threads })?
        .add(linear(false))?
        .add(linear(true))
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
        let cache = required(context, 3)?.downcast::<DynTensorValueType>()?;
        let cache_shape = cache.shape();
        let layout = CacheLayout {
            num_layers: usize::try_from(cache_shape[1]).unwrap_or(0),
            ..self.layout
        };
        let length = cache_shape.num_elements();
        let cache = cache.data_ptr().cast::<f32>().cast_mut();
        // SAFETY: ONNX Runtime's own pointer to `length` f32: a `KvCache` lent mutably for this run (`Bindings::bind_cache`). The
        // graph's nodes run one after the other, each works on its own layer, and nothing else reads it while they do.
        let cache = unsafe { std::slice::from_raw_parts_mut(cache, length) };
        let Ok(cache) = bytemuck::try_cast_slice_mut::<f32, Lanes>(cache) else {
            return Err(ort::Error::new("the cache is not aligned"));
        };
        let width = self.num_heads * layout.head_dim;
        let mut out = output(context, 0, [tokens, models::onnx::size(width)])?;
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

/// `tor.SiluMul`: f32 [T, 2F] to f32 [T, F].
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
        let (tokens, half) = (shape[0], shape[1] / 2);
        let mut out = output(context, 0, [tokens, half])?;
        let (_, out) = out.try_extract_tensor_mut::<f32>()?;
        let width = usize::try_from(half).unwrap_or(0);
        if width == 0 {
            return Err(ort::Error::new("rows without elements"));
        }
        let share = (out.len() / width).div_ceil(self.threads).max(1) * width;
        let parts = gate_up.chunks(2 * share).zip(out.chunks_mut(share));
        let work = |_, (gate_up, out)| {
            pulp::Arch::new().dispatch(SiluMul {
                gate_up,
                out,
                width,
            });
        };
        parallel(|run| each(run, parts, work), context)
    }
}

/// `tor.Linear`, `tor.Int8Linear`: see [`crate::engine::kernel::linear`] and [`crate::engine::kernel::int8_linear`].
struct LinearOperator {
    is_int8: bool,
    threads: usize,
}

struct LinearKernel {
    layer: Layer,
    width: i64,
}

enum Layer {
    Float(Linear),
    Int8(Int8Linear),
}

impl Operator for LinearOperator {
    type Kernel<'attr> = LinearKernel;

    fn name(&self) -> &'static str {
        if self.is_int8 { "Int8Linear" } else { "Linear" }
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::{Float32, Int8, Int32};
        let needed: &[TensorElementType] = match self.is_int8 {
            true => &[Float32, Int8, Float32, Int32],
            false => &[Float32, Float32],
        };
        let needed = needed.iter().copied().map(OperatorInput::required);
        needed.chain([OperatorInput::optional(Float32)])
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(
        &self,
        context: &KernelContext<'attr>,
    ) -> ort::Result<Self::Kernel<'attr>> {
        let (shape, width) = shape(context, self.threads)?;
        let layer = match self.is_int8 {
            true => Layer::Int8(Int8Linear::new(shape)),
            false => Layer::Float(Linear::new(shape)),
        };
        Ok(LinearKernel { layer, width })
    }
}

impl Kernel for LinearKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let [x, panels] = [required(context, 0)?, required(context, 1)?];
        let (shape, x) = x.try_extract_tensor::<f32>()?;
        let in_features = usize::try_from(shape[1]).unwrap_or(0);
        let mut out = output(context, 0, [shape[0], self.width])?;
        let (_, out) = out.try_extract_tensor_mut::<f32>()?;
        let mut done = Ok(());
        match &mut self.layer {
            Layer::Float(layer) => {
                let plus = context.input(2)?;
                let inputs = linear::Inputs {
                    x,
                    in_features,
                    panels: panels.try_extract_tensor::<f32>()?.1,
                    plus: addend(plus.as_ref())?,
                };
                parallel(|run| done = layer.run(&inputs, out, run), context)?;
            }
            Layer::Int8(layer) => {
                let [scales, sums] = [required(context, 2)?, required(context, 3)?];
                let plus = context.input(4)?;
                let inputs = int8_linear::Inputs {
                    x,
                    in_features,
                    integers: panels.try_extract_tensor::<i8>()?.1,
                    scales: scales.try_extract_tensor::<f32>()?.1,
                    sums: sums.try_extract_tensor::<i32>()?.1,
                    plus: addend(plus.as_ref())?,
                };
                parallel(|run| done = layer.run(&inputs, out, run), context)?;
            }
        }
        done.map_err(ort::Error::new)
    }
}

/// The columns that a linear operator's attributes ask for, and their number as ONNX has it.
fn shape(context: &KernelContext<'_>, threads: usize) -> ort::Result<(Shape, i64)> {
    let (width, is_gated) = context
        .get::<i64>("width")
        .zip(context.get::<i64>("gated"))
        .ok_or_else(|| ort::Error::new("a linear operator wants `width` and `gated`"))?;
    let shape = Shape {
        width: usize::try_from(width).unwrap_or(0),
        is_gated: is_gated != 0,
        threads,
    };
    Ok((shape, width))
}

/// What is added to a product: its rank tells a bias from a residual.
fn addend<'a>(plus: Option<&'a ValueRef<'_>>) -> ort::Result<Plus<'a>> {
    Ok(match plus {
        None => Plus::Nothing,
        Some(plus) => match plus.try_extract_tensor::<f32>()? {
            (shape, bias) if shape.len() == 1 => Plus::Bias(bias),
            (_, residual) => Plus::Residual(residual),
        },
    })
}

/// Gives `work` ONNX Runtime's threads.
fn parallel(work: impl FnOnce(&Parallel<'_>), context: &ComputeContext) -> ort::Result<()> {
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
    index: usize,
    shape: [i64; RANK],
) -> ort::Result<ort::value::ValueRefMut<'_>> {
    context
        .output(index, shape)?
        .ok_or_else(|| ort::Error::new(format!("output {index} is missing")))
}
