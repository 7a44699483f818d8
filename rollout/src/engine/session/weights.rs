//! Weights that are inputs of a graph: tensors of the device, written in place.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use models::graph::Elements;
use models::onnx::{DataType, WeightInput, weight_inputs};
use ort::session::IoBinding;
use ort::value::DynTensor;

use super::memory::{Memory, host_tensor};
use super::runtime::runtime;
use crate::error::{Error, Result};

const CONTEXT: &str = "binding the weights";

/// Numbers read of the file at a time. Those of a tensor are gathered on the host before they are written.
const CHUNK: usize = 1 << 16;

/// The weights of a graph. Sessions of the same graph share them.
#[derive(Debug)]
pub(super) struct Weights(Vec<Weight>);

/// The same on the host, in the device's numbers.
#[derive(Debug)]
pub(super) struct HostWeights(Vec<DynTensor>);

#[derive(Debug)]
struct Weight {
    input: WeightInput,
    tensor: DynTensor,
}

impl Weights {
    /// Tensors for the weights of `graph`, the bytes of one; there is nothing in them yet.
    pub(super) fn new(graph: &[u8], memory: &Memory) -> Result<Self> {
        let make = |input: WeightInput| {
            Ok(Weight {
                tensor: memory.tensor(elements(&input), &input.shape)?,
                input,
            })
        };
        let inputs = weight_inputs(graph)?.into_iter();
        inputs.map(make).collect::<Result<_>>().map(Self)
    }

    /// Reads all of them from the weights file at `path`, whose layout has been checked.
    pub(super) fn read(&mut self, memory: &Memory, path: &Path) -> Result<()> {
        let mut file = WeightsFile::open(path)?;
        for weight in &mut self.0 {
            let numbers = file.read(&weight.input)?;
            memory.write(&mut weight.tensor, elements(&weight.input), numbers)?;
        }
        Ok(())
    }

    /// Whether these are of the same graph.
    pub(super) fn takes(&self, new: &HostWeights) -> bool {
        let is_like = |(weight, new): (&Weight, &DynTensor)| weight.tensor.dtype() == new.dtype();
        self.0.len() == new.0.len() && self.0.iter().zip(&new.0).all(is_like)
    }

    /// Writes new ones over them.
    pub(super) fn replace(&mut self, memory: &Memory, new: &mut HostWeights) -> Result<()> {
        let mut pairs = self.0.iter_mut().zip(&mut new.0);
        pairs.try_for_each(|(weight, new)| memory.copy(new, &mut weight.tensor))
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

impl HostWeights {
    /// Reads the weights of `graph` from the file at `path`, whose layout has been checked.
    pub(super) fn read(graph: &[u8], path: &Path) -> Result<Self> {
        let mut file = WeightsFile::open(path)?;
        let read = |input: &WeightInput| {
            let numbers = file.read(input)?;
            host_tensor(elements(input), &input.shape, numbers)
        };
        let inputs = weight_inputs(graph)?;
        inputs.iter().map(read).collect::<Result<_>>().map(Self)
    }
}

/// A weights file that is being read.
struct WeightsFile<'a> {
    file: File,
    path: &'a Path,
    bytes: Vec<u8>,
    numbers: Vec<f32>,
}

impl<'a> WeightsFile<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        Ok(Self {
            file: File::open(path).map_err(|error| refused(path, &error))?,
            path,
            bytes: vec![0_u8; CHUNK * size_of::<f32>()],
            numbers: Vec::new(),
        })
    }

    fn read(&mut self, input: &WeightInput) -> Result<&[f32]> {
        self.numbers.clear();
        self.numbers.reserve(input.length / size_of::<f32>());
        for from in (0..input.length).step_by(self.bytes.len()) {
            let length = (input.length - from).min(self.bytes.len());
            let chunk = &mut self.bytes[..length];
            let offset = super::super::to_u64(input.offset + from);
            let read = self.file.read_exact_at(chunk, offset);
            read.map_err(|error| refused(self.path, &error))?;
            let words = chunk.as_chunks().0.iter();
            self.numbers
                .extend(words.map(|&word| f32::from_le_bytes(word)));
        }
        Ok(&self.numbers)
    }
}

fn elements(input: &WeightInput) -> Elements {
    match input.data_type {
        DataType::Bfloat16 => Elements::Bf16,
        _ => Elements::F32,
    }
}

fn refused(path: &Path, error: &std::io::Error) -> Error {
    Error::Weights {
        path: path.to_path_buf(),
        reason: error.to_string(),
    }
}
