//! Weights that are inputs of a graph: tensors of the device, written in place.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use models::graph::Elements;
use models::onnx::{DataType, WeightInput, weight_inputs};
use ort::session::IoBinding;
use ort::value::DynTensor;

use super::memory::Memory;
use super::runtime::runtime;
use crate::error::{Error, Result};

const CONTEXT: &str = "binding the weights";

/// Numbers read of the file at a time: what is on the way stays in the host's cache.
const CHUNK: usize = 1 << 16;

/// The weights of a graph. Sessions of the same graph share them.
#[derive(Debug)]
pub(super) struct Weights(Vec<Weight>);

#[derive(Debug)]
struct Weight {
    input: WeightInput,
    elements: Elements,
    tensor: DynTensor,
}

impl Weights {
    /// Tensors for the weights of `graph`, the bytes of one; there is nothing in them yet.
    pub(super) fn new(graph: &[u8], memory: &Memory) -> Result<Self> {
        let make = |input: WeightInput| {
            let elements = match input.data_type {
                DataType::Bfloat16 => Elements::Bf16,
                _ => Elements::F32,
            };
            Ok(Weight {
                tensor: memory.tensor(elements, &input.shape)?,
                elements,
                input,
            })
        };
        let inputs = weight_inputs(graph)?.into_iter();
        inputs.map(make).collect::<Result<_>>().map(Self)
    }

    /// Reads all of them from the weights file at `path`, whose layout has been checked. After an error some are new, some old.
    pub(super) fn read(&mut self, memory: &Memory, path: &Path) -> Result<()> {
        let refused = |error: std::io::Error| Error::Weights {
            path: path.to_path_buf(),
            reason: error.to_string(),
        };
        let file = File::open(path).map_err(refused)?;
        let mut bytes = vec![0_u8; CHUNK * size_of::<f32>()];
        let mut numbers: Vec<f32> = Vec::new();
        for weight in &mut self.0 {
            let (start, length) = (weight.input.offset, weight.input.length);
            numbers.clear();
            numbers.reserve(length / size_of::<f32>());
            for from in (0..length).step_by(bytes.len()) {
                let chunk = &mut bytes[..(length - from).min(CHUNK * size_of::<f32>())];
                let offset = super::super::to_u64(start + from);
                file.read_exact_at(chunk, offset).map_err(refused)?;
                let words = chunk.as_chunks().0.iter();
                numbers.extend(words.map(|&word| f32::from_le_bytes(word)));
            }
            memory.write(&mut weight.tensor, weight.elements, &numbers)?;
        }
        Ok(())
    }

    /// Makes them inputs of a run.
    pub(super) fn bind(&self, io: &mut IoBinding) -> Result<()> {
        for weight in &self.0 {
            io.bind_input(weight.input.name.as_str(), &weight.tensor)
                .map_err(runtime(CONTEXT))?;
        }
        Ok(())
    }
}
