//! Tensors handed to ONNX Runtime, and one run over them.
#![allow(
    unsafe_code,
    reason = "the key/value cache is lent to ONNX Runtime by pointer, to be written by our own operator"
)]

use std::fmt::Debug;
use std::marker::PhantomData;

use models::onnx::size;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::{IoBinding, Session};
use ort::value::{DynTensor, DynValue, PrimitiveTensorElementType, Tensor, TensorElementType};

use super::memory::lend;
use super::runtime::runtime;
use super::weights::Weights;
use crate::engine::cache::KvCache;
use crate::error::{Error, Result};

/// One run of a session under preparation: its inputs, and for the decoder the cache, which stays borrowed until the
/// run is over.
pub(super) struct Bindings<'a> {
    binding: IoBinding,
    context: &'static str,
    cache: PhantomData<&'a mut KvCache>,
}

impl<'a> Bindings<'a> {
    /// No input yet. `context` says what is being done, for messages.
    pub(super) fn new(session: &Session, context: &'static str) -> Result<Self> {
        let binding = session.create_binding().map_err(runtime(context))?;
        Ok(Self {
            binding,
            context,
            cache: PhantomData,
        })
    }

    /// Binds an input.
    pub(super) fn bind<T, const RANK: usize>(
        &mut self,
        name: &str,
        shape: [usize; RANK],
        values: Vec<T>,
    ) -> Result<()>
    where
        T: PrimitiveTensorElementType + Debug + Clone + 'static,
    {
        let tensor = Tensor::from_array((shape, values)).map_err(runtime(self.context))?;
        self.binding
            .bind_input(name, &tensor)
            .map_err(runtime(self.context))
    }

    /// Binds weights that are inputs.
    pub(super) fn bind_weights(&mut self, weights: &Weights) -> Result<()> {
        weights.bind(&mut self.binding)
    }

    /// Lends the cache: the new keys and values are written in place.
    pub(super) fn bind_cache(&mut self, cache: &'a mut KvCache) -> Result<()> {
        let shape = cache.shape();
        // SAFETY: `self` keeps the cache borrowed for as long as the binding, which alone holds the view.
        let view = unsafe { view(cache.values_mut(), shape) }?;
        self.binding
            .bind_input("cache", &view)
            .map_err(runtime(self.context))
    }

    /// Runs, and gives the one output that is not the cache.
    pub(super) fn run(mut self, session: &mut Session, output: &str) -> Result<DynValue> {
        let context = self.context;
        self.binding
            .bind_output_to_device(output, &MemoryInfo::default())
            .map_err(runtime(context))?;
        let mut outputs = session
            .run_binding(&self.binding)
            .map_err(runtime(context))?;
        outputs.remove(output).ok_or_else(|| Error::Runtime {
            context,
            message: format!("the graph has no output `{output}`"),
        })
    }
}

/// A tensor over memory that stays ours.
///
/// # Safety
/// The tensor must be gone before `buffer` is used again or freed.
unsafe fn view(buffer: &mut [f32], shape: [usize; 5]) -> Result<DynTensor> {
    debug_assert_eq!(buffer.len(), shape.iter().product::<usize>());
    let (data, bytes) = (buffer.as_mut_ptr().cast(), size_of_val(buffer));
    let (shape, of_f32) = (shape.map(size), TensorElementType::Float32);
    // SAFETY: `buffer` holds as many f32 as `shape` says, on the CPU; the caller keeps the promise about the tensor.
    unsafe { lend(&Allocator::default(), data, bytes, &shape, of_f32) }
}
