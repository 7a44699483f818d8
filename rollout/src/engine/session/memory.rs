//! Memory of the device that a session runs on: tensors there, and ranges of their rows.
#![allow(
    unsafe_code,
    reason = "ONNX Runtime has no tensor over a part of another, and none of bf16 numbers without one more crate feature"
)]

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use half::bf16;
use models::graph::Elements;
use models::onnx::size;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::value::{DynTensor, DynValue, TensorElementType};
use ort::{AsPointer, sys};

use super::runtime::runtime;
use crate::error::{Error, Result};

const CONTEXT: &str = "using the device's memory";

/// Memory of one device.
#[derive(Debug)]
pub(super) struct Memory {
    allocator: Allocator,
    is_host: bool,
}

/// Rows of a tensor, which stays borrowed.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// Not to be moved out: it would outlive the borrow.
    tensor: DynTensor,
    of: PhantomData<&'a mut DynTensor>,
}

impl View<'_> {
    /// The rows as a tensor.
    pub(super) fn tensor(&mut self) -> &mut DynTensor {
        &mut self.tensor
    }
}

impl Memory {
    /// The host's.
    pub(super) fn host() -> Self {
        Self {
            allocator: Allocator::default(),
            is_host: true,
        }
    }

    /// The CUDA device's that `session` runs on.
    pub(super) fn cuda(session: &Session) -> Result<Self> {
        let (device, kind) = (AllocationDevice::CUDA, AllocatorType::Device);
        let info = MemoryInfo::new(device, 0, kind, MemoryType::Default);
        let allocator = info.and_then(|info| Allocator::new(session, info));
        Ok(Self {
            allocator: allocator.map_err(runtime(CONTEXT))?,
            is_host: false,
        })
    }

    /// What an output is bound to that shall stay here.
    pub(super) fn info(&self) -> &MemoryInfo<'_> {
        self.allocator.memory_info()
    }

    /// A tensor here. What is in it is not said.
    pub(super) fn tensor(&self, elements: Elements, shape: &[usize]) -> Result<DynTensor> {
        DynTensor::new(&self.allocator, element_type(elements), shape).map_err(runtime(CONTEXT))
    }

    /// Rounds `numbers` to the elements of `tensor`, which lies here and holds as many.
    pub(super) fn write(
        &self,
        tensor: &mut DynTensor,
        elements: Elements,
        numbers: &[f32],
    ) -> Result<()> {
        if self.is_host {
            return fill(tensor, elements, numbers);
        }
        let shape: Vec<i64> = tensor.shape().to_vec();
        let staged = DynTensor::new(&Allocator::default(), element_type(elements), shape);
        let mut staged = staged.map_err(runtime(CONTEXT))?;
        fill(&mut staged, elements, numbers)?;
        self.copy(&mut staged, tensor)
    }

    /// Copies a tensor to another of its type and shape; both lie here or on the host.
    pub(super) fn copy(&self, source: &mut DynTensor, target: &mut DynTensor) -> Result<()> {
        let types = [*source.data_type(), *target.data_type()];
        if types != [TensorElementType::Bfloat16; 2] {
            return source.copy_into(target).map_err(runtime(CONTEXT));
        }
        // ONNX Runtime refuses bf16 in the graph that `ort` copies with, and takes the same bits as integers.
        let source = self.bits(source)?;
        let mut target = self.bits(target)?;
        let copied = source.tensor.copy_into(&mut target.tensor);
        copied.map_err(runtime(CONTEXT))
    }

    /// The bits of a bf16 tensor, which lies here or on the host.
    fn bits<'a>(&self, tensor: &'a mut DynTensor) -> Result<View<'a>> {
        let host = Allocator::default();
        let is_on_host = tensor.memory_info().allocation_device() == AllocationDevice::CPU;
        let allocator = if is_on_host { &host } else { &self.allocator };
        let shape: Vec<i64> = tensor.shape().to_vec();
        let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        let (data, bytes) = (tensor.data_ptr_mut().cast(), count * size_of::<bf16>());
        // SAFETY: a number of bf16 is as wide as one of 16 bits; the view keeps the tensor borrowed.
        let view = unsafe { lend(allocator, data, bytes, &shape, TensorElementType::Uint16) };
        Ok(View {
            tensor: view?,
            of: PhantomData,
        })
    }

    /// Rows of `tensor`, which lies here: those of its first axis, as a tensor of their own.
    pub(super) fn rows<'a>(
        &self,
        tensor: &'a mut DynTensor,
        rows: Range<usize>,
    ) -> Result<View<'a>> {
        Ok(View {
            tensor: self.part(tensor, rows)?,
            of: PhantomData,
        })
    }

    /// Copies row `from` of a tensor that lies here to row `to`.
    pub(super) fn copy_row(&self, tensor: &mut DynTensor, from: usize, to: usize) -> Result<()> {
        if from == to {
            return Err(problem(format!("row {from} cannot be copied to itself")));
        }
        // Two rows of one tensor lie apart, and both parts are gone before its borrow ends.
        let mut source = self.part(tensor, from..from + 1)?;
        let mut target = self.part(tensor, to..to + 1)?;
        self.copy(&mut source, &mut target)
    }

    /// Rows of `tensor` over its memory. It must be gone before the tensor is, and before the same rows are used otherwise.
    fn part(&self, tensor: &mut DynTensor, rows: Range<usize>) -> Result<DynTensor> {
        let mut shape: Vec<i64> = tensor.shape().to_vec();
        let num_rows = shape.first().copied().unwrap_or(0);
        if rows.is_empty() || size(rows.end) > num_rows {
            return Err(problem(format!(
                "rows {rows:?} of a tensor of {num_rows} rows"
            )));
        }
        let element = match tensor.data_type() {
            TensorElementType::Bfloat16 => size_of::<bf16>(),
            _ => size_of::<f32>(),
        };
        let row_elements: i64 = shape.iter().skip(1).product();
        let row_bytes = usize::try_from(row_elements).unwrap_or(0) * element;
        shape[0] = size(rows.len());
        let start = tensor.data_ptr_mut().cast::<u8>();
        // SAFETY: the rows lie within the tensor, as was checked.
        let start = unsafe { start.add(rows.start * row_bytes) };
        let bytes = rows.len() * row_bytes;
        // SAFETY: so many bytes belong to the rows; both callers keep the tensor borrowed for as long as the part lives.
        unsafe { lend(&self.allocator, start, bytes, &shape, *tensor.data_type()) }
    }

    /// One row of a tensor of f32 that lies here, on the host.
    pub(super) fn fetch_row(&self, tensor: &mut DynTensor, row: usize) -> Result<Vec<f32>> {
        let view = self.rows(tensor, row..row + 1)?;
        let shape: Vec<i64> = view.tensor.shape().to_vec();
        let copy = DynTensor::new(&Allocator::default(), TensorElementType::Float32, shape);
        let mut copy = copy.map_err(runtime(CONTEXT))?;
        view.tensor.copy_into(&mut copy).map_err(runtime(CONTEXT))?;
        let numbers = copy.try_extract_tensor::<f32>().map_err(runtime(CONTEXT))?;
        Ok(numbers.1.to_vec())
    }
}

/// Numbers on the host in a graph's element type.
pub(super) fn host_tensor(
    elements: Elements,
    shape: &[usize],
    numbers: &[f32],
) -> Result<DynTensor> {
    let mut tensor = Memory::host().tensor(elements, shape)?;
    fill(&mut tensor, elements, numbers)?;
    Ok(tensor)
}

/// The numbers of a tensor on the host.
pub(super) fn numbers(tensor: &DynValue) -> Result<Vec<f32>> {
    if let Ok((_, numbers)) = tensor.try_extract_tensor::<f32>() {
        return Ok(numbers.to_vec());
    }
    let is_half = tensor.dtype().tensor_type() == Some(TensorElementType::Bfloat16);
    let shape = tensor.dtype().tensor_shape().filter(|_| is_half);
    let shape = shape.ok_or_else(|| problem("neither f32 nor bf16 numbers".to_owned()))?;
    let count = shape.iter().product::<i64>();
    let mut data = std::ptr::null_mut();
    // SAFETY: a valid tensor; ONNX Runtime writes the pointer.
    let status =
        unsafe { (ort::api().GetTensorMutableData)(tensor.ptr().cast_mut(), &raw mut data) };
    // SAFETY: the status comes from ONNX Runtime and is handed over once.
    unsafe { ort::Error::result_from_status(status) }.map_err(runtime(CONTEXT))?;
    let count = usize::try_from(count).unwrap_or(0);
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: a tensor on the host holds as many bf16 numbers as its shape says.
    let halves = unsafe { std::slice::from_raw_parts(data.cast::<bf16>(), count) };
    Ok(halves.iter().map(|number| number.to_f32()).collect())
}

/// Fills a tensor on the host.
fn fill(tensor: &mut DynTensor, elements: Elements, numbers: &[f32]) -> Result<()> {
    let expected = tensor.shape().iter().product::<i64>();
    if size(numbers.len()) != expected {
        return Err(Error::Shape {
            tensor: "numbers of a tensor",
            expected: usize::try_from(expected).unwrap_or(0),
            got: numbers.len(),
        });
    }
    match elements {
        Elements::F32 => {
            let held = tensor.try_extract_tensor_mut::<f32>();
            held.map_err(runtime(CONTEXT))?.1.copy_from_slice(numbers);
        }
        Elements::Bf16 if numbers.is_empty() => {}
        Elements::Bf16 => {
            let data = tensor.data_ptr_mut().cast::<bf16>();
            // SAFETY: bf16 numbers on the host, as many as the shape says.
            let held = unsafe { std::slice::from_raw_parts_mut(data, numbers.len()) };
            for (held, &number) in held.iter_mut().zip(numbers) {
                *held = bf16::from_f32(number);
            }
        }
    }
    Ok(())
}

/// A tensor over memory that stays somebody else's, of the device of `allocator`.
///
/// # Safety
/// `data` must hold so many bytes, of as many elements as `shape` says, and the tensor must be gone before they are used
/// otherwise or freed.
pub(super) unsafe fn lend(
    allocator: &Allocator,
    data: *mut u8,
    bytes: usize,
    shape: &[i64],
    element_type: TensorElementType,
) -> Result<DynTensor> {
    let mut value = std::ptr::null_mut();
    // SAFETY: as the caller promises; ONNX Runtime copies `shape`.
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            allocator.memory_info().ptr(),
            data.cast(),
            bytes,
            shape.as_ptr(),
            shape.len(),
            sys::ONNXTensorElementDataType::from(element_type),
            &raw mut value,
        )
    };
    // SAFETY: the status comes from ONNX Runtime and is handed over once.
    unsafe { ort::Error::result_from_status(status) }.map_err(runtime(CONTEXT))?;
    let value = NonNull::new(value).ok_or_else(|| problem("no tensor was made".to_owned()))?;
    // SAFETY: a valid tensor that nobody else owns; it has no memory of its own for the allocator to free.
    Ok(unsafe { DynTensor::from_ptr(value, Some(allocator)) })
}

fn element_type(elements: Elements) -> TensorElementType {
    match elements {
        Elements::F32 => TensorElementType::Float32,
        Elements::Bf16 => TensorElementType::Bfloat16,
    }
}

fn problem(message: String) -> Error {
    Error::Runtime {
        context: CONTEXT,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::session::runtime::environment;

    #[test]
    fn rows_of_a_tensor_are_read_and_written_in_place() {
        environment().unwrap();
        let memory = Memory::host();
        // Exact in bf16, but for the last one.
        let given = [1.0, -2.5, 0.0, 3.0, 256.0, 1.003];
        for (elements, last) in [(Elements::F32, 1.003_f32), (Elements::Bf16, 1.0)] {
            let mut tensor = memory.tensor(elements, &[3, 2]).unwrap();
            memory.write(&mut tensor, elements, &given).unwrap();
            let mut source = host_tensor(elements, &[1, 2], &[7.0, 8.0]).unwrap();
            let mut view = memory.rows(&mut tensor, 1..2).unwrap();
            memory.copy(&mut source, &mut view.tensor).unwrap();
            let view = memory.rows(&mut tensor, 1..3).unwrap();
            assert_eq!(
                numbers(&view.tensor.into_dyn()).unwrap(),
                [7.0, 8.0, 256.0, last]
            );
            assert_eq!(
                numbers(&tensor.into_dyn()).unwrap(),
                [1.0, -2.5, 7.0, 8.0, 256.0, last]
            );
        }
    }

    #[test]
    fn a_row_is_copied_to_any_other_and_not_to_itself() {
        environment().unwrap();
        let memory = Memory::host();
        for elements in [Elements::F32, Elements::Bf16] {
            let mut tensor = memory.tensor(elements, &[3, 2]).unwrap();
            let given = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
            memory.write(&mut tensor, elements, &given).unwrap();
            memory.copy_row(&mut tensor, 2, 0).unwrap();
            memory.copy_row(&mut tensor, 0, 1).unwrap();
            let error = memory.copy_row(&mut tensor, 1, 1).unwrap_err().to_string();
            assert!(
                error.contains("row 1 cannot be copied to itself"),
                "{error}"
            );
            assert!(memory.copy_row(&mut tensor, 0, 3).is_err());
            assert!(memory.copy_row(&mut tensor, 3, 0).is_err());
            let expected = [5.0, 6.0, 5.0, 6.0, 5.0, 6.0];
            assert_eq!(numbers(&tensor.into_dyn()).unwrap(), expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        environment().unwrap();
        let memory = Memory::host();
        let mut tensor = memory.tensor(Elements::Bf16, &[3, 2]).unwrap();
        let error = memory.rows(&mut tensor, 2..4).unwrap_err().to_string();
        assert!(error.contains("rows 2..4 of a tensor of 3 rows"), "{error}");
        assert!(memory.rows(&mut tensor, 1..1).is_err());
        // Neither another type, whose bits would be others, nor another shape.
        let mut wide = memory.tensor(Elements::F32, &[3, 2]).unwrap();
        assert!(memory.copy(&mut wide, &mut tensor).is_err());
        let mut flat = memory.tensor(Elements::Bf16, &[6]).unwrap();
        assert!(memory.copy(&mut flat, &mut tensor).is_err());
        assert!(
            memory
                .write(&mut tensor, Elements::Bf16, &[0.0; 5])
                .is_err()
        );
    }
}
