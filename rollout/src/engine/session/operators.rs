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
use crate::engine::kernel::lanes::Lanes;
use crate::engine::kernel::quantize::{MIDDLE, QuantizeRows, ScaleRows};
use crate::engine::kernel::silu::SiluMul;

/// The operators, for a session with so many threads.
pub(super) fn domain(threads: usize) -> ort::Result<OperatorDomain> {
    let row_wise = |kind| RowWiseOperator { kind, threads };
    OperatorDomain::new(TOR)?
        .add(PagedAttentionOperator { threads })?
        .add(row_wise(RowWise::SiluMul))?
        .add(row_wise(RowWise::QuantizeRows))?
        .add(row_wise(RowWise::ScaleRows))?
        .add(row_wise(RowWise::ScaleAdd))
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

/// Operators that work on each row by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowWise {
    /// `tor.SiluMul`: f32 [T, 2F], and f32 [T, 1] when given, to f32 [T, F].
    SiluMul,
    /// `tor.QuantizeRows`: f32 [T, I] to u8 [T, I] and f32 [T, 1].
    QuantizeRows,
    /// `tor.ScaleRows`: f32 [T, O], f32 [T, 1], f32 [O] to f32 [T, O].
    ScaleRows,
    /// `tor.ScaleAdd`: f32 [T, O], f32 [T, 1], f32 [T, O] to f32 [T, O].
    ScaleAdd,
}

struct RowWiseOperator {
    kind: RowWise,
    threads: usize,
}

struct RowWiseKernel {
    kind: RowWise,
    threads: usize,
}

impl Operator for RowWiseOperator {
    type Kernel<'attr> = RowWiseKernel;

    fn name(&self) -> &'static str {
        match self.kind {
            RowWise::SiluMul => "SiluMul",
            RowWise::QuantizeRows => "QuantizeRows",
            RowWise::ScaleRows => "ScaleRows",
            RowWise::ScaleAdd => "ScaleAdd",
        }
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let float = OperatorInput::required(TensorElementType::Float32);
        match self.kind {
            RowWise::SiluMul => vec![float, OperatorInput::optional(TensorElementType::Float32)],
            RowWise::QuantizeRows => vec![float],
            RowWise::ScaleRows | RowWise::ScaleAdd => {
                let more = || OperatorInput::required(TensorElementType::Float32);
                vec![float, more(), more()]
            }
        }
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let float = OperatorOutput::required(TensorElementType::Float32);
        match self.kind {
            RowWise::QuantizeRows => {
                vec![OperatorOutput::required(TensorElementType::Uint8), float]
            }
            _ => vec![float],
        }
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        Ok(RowWiseKernel {
            kind: self.kind,
            threads: self.threads,
        })
    }
}

impl Kernel for RowWiseKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let input = required(context, 0)?;
        let (shape, x) = input.try_extract_tensor::<f32>()?;
        let (tokens, columns) = (shape[0], shape[1]);
        let width = usize::try_from(columns).unwrap_or(0);
        let rows = usize::try_from(tokens).unwrap_or(0);
        if width == 0 {
            return Err(ort::Error::new("rows without elements"));
        }
        let share = rows.div_ceil(self.threads).max(1); // rows of a thread
        match self.kind {
            RowWise::SiluMul => {
                let scales = context.input(1)?;
                let scales = match &scales {
                    Some(scales) => scales.try_extract_tensor::<f32>()?.1,
                    None => &[],
                };
                let mut out = output(context, 0, [tokens, columns / 2])?;
                let (_, out) = out.try_extract_tensor_mut::<f32>()?;
                let half = width / 2;
                each(context, out.chunks_mut(half * share), |part, out| {
                    let rows = part * share..part * share + out.len() / half;
                    pulp::Arch::new().dispatch(SiluMul {
                        gate_up: &x[rows.start * width..rows.end * width],
                        out,
                        scales: scales.get(rows).unwrap_or_default(),
                        width: half,
                    });
                })
            }
            RowWise::QuantizeRows => {
                let mut integers = output(context, 0, [tokens, columns])?;
                let (_, integers) = integers.try_extract_tensor_mut::<u8>()?;
                let mut scales = output(context, 1, [tokens, 1])?;
                let (_, scales) = scales.try_extract_tensor_mut::<f32>()?;
                let parts = integers
                    .chunks_mut(width * share)
                    .zip(scales.chunks_mut(share));
                each(context, parts, |part, (integers, scales)| {
                    let start = part * share * width;
                    pulp::Arch::new().dispatch(QuantizeRows {
                        x: &x[start..start + integers.len()],
                        integers,
                        scales,
                        width,
                        middle: MIDDLE,
                    });
                })
            }
            RowWise::ScaleRows | RowWise::ScaleAdd => {
                let (scales, plus) = (required(context, 1)?, required(context, 2)?);
                let scales = scales.try_extract_tensor::<f32>()?.1;
                let plus = plus.try_extract_tensor::<f32>()?.1;
                let mut out = output(context, 0, [tokens, columns])?;
                let (_, out) = out.try_extract_tensor_mut::<f32>()?;
                each(context, out.chunks_mut(width * share), |part, out| {
                    let rows = part * share..part * share + out.len() / width;
                    let elements = rows.start * width..rows.end * width;
                    pulp::Arch::new().dispatch(ScaleRows {
                        x: &x[elements.clone()],
                        scales: &scales[rows],
                        plus: if self.kind == RowWise::ScaleAdd {
                            &plus[elements]
                        } else {
                            plus
                        },
                        out,
                        width,
                    });
                })
            }
        }
    }
}

/// Runs `work` on each part of the outputs, side by side.
fn each<T: Send>(
    context: &ComputeContext,
    parts: impl Iterator<Item = T>,
    work: impl Fn(usize, T) + Sync,
) -> ort::Result<()> {
    let parts: Vec<Mutex<Option<T>>> = parts.map(|part| Mutex::new(Some(part))).collect();
    parallel(
        |run| {
            run(parts.len(), &|index| {
                let part = parts[index].lock().ok().and_then(|mut part| part.take());
                if let Some(part) = part {
                    work(index, part);
                }
            });
        },
        context,
    )
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
    index: usize,
    shape: [i64; RANK],
) -> ort::Result<ort::value::ValueRefMut<'_>> {
    context
        .output(index, shape)?
        .ok_or_else(|| ort::Error::new(format!("output {index} is missing")))
}
