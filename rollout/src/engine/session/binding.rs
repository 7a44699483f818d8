//! Tensors handed to ONNX Runtime, and one run over them.
#![allow(
    unsafe_code,
    reason = "the key/value cache is lent to ONNX Runtime by pointer, to be written by our own operator"
)]

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ptr::NonNull;

use models::onnx::size;
use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::{IoBinding, Session};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor};

use super::runtime::runtime;
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
unsafe fn view(buffer: &mut [f32], shape: [usize; 5]) -> Result<DynValue> {
    const CONTEXT: &str = "lending the cache";
    debug_assert_eq!(buffer.len(), shape.iter().product::<usize>());
    let allocator = Allocator::default();
    let info = MemoryInfo::default();
    let shape = shape.map(size);
    let mut value = std::ptr::null_mut();
    // SAFETY: `buffer` holds as many f32 as `shape` says, on the CPU; ONNX Runtime copies `shape`.
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            info.ptr(),
            buffer.as_mut_ptr().cast(),
            size_of_val(buffer),
            shape.as_ptr(),
            shape.len(),
            ort::sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
            &raw mut value,
        )
    };
    // SAFETY: the status comes from ONNX Runtime and is handed over once.
    unsafe { ort::Error::result_from_status(status) }.map_err(runtime(CONTEXT))?;
    let value = NonNull::new(value).ok_or_else(|| Error::Runtime {
        context: CONTEXT,
        message: "no tensor was made".to_owned(),
    })?;
    // SAFETY: a valid tensor that nobody else owns; it has no memory of its own for the allocator to free.
    Ok(unsafe { DynValue::from_ptr(value, Some(&allocator)) })
}
