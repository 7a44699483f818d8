//! A safetensors file of reference values as plain arrays.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// An array in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<T> {
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements.
    pub data: Vec<T>,
}

/// A safetensors file, read whole.
#[derive(Debug)]
pub struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    /// Reads a file.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        SafeTensors::deserialize(&bytes).with_context(|| path.display().to_string())?;
        Ok(Self {
            path: path.to_path_buf(),
            bytes,
        })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self
            .file()?
            .names()
            .into_iter()
            .map(str::to_owned)
            .collect();
        names.sort();
        Ok(names)
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.file().is_ok_and(|file| file.tensor(name).is_ok())
    }

    /// A tensor of f32.
    pub fn f32(&self, name: &str) -> Result<Array<f32>> {
        self.array(name, Dtype::F32, |bytes: &[u8; 4]| {
            f32::from_le_bytes(*bytes)
        })
    }

    /// A tensor of i64.
    pub fn i64(&self, name: &str) -> Result<Array<i64>> {
        self.array(name, Dtype::I64, |bytes: &[u8; 8]| {
            i64::from_le_bytes(*bytes)
        })
    }

    /// A tensor of i32.
    pub fn i32(&self, name: &str) -> Result<Array<i32>> {
        self.array(name, Dtype::I32, |bytes: &[u8; 4]| {
            i32::from_le_bytes(*bytes)
        })
    }

    /// A tensor of u8.
    pub fn u8(&self, name: &str) -> Result<Array<u8>> {
        self.array(name, Dtype::U8, |bytes: &[u8; 1]| bytes[0])
    }

    /// A vector of token ids, stored as i64.
    pub fn ids(&self, name: &str) -> Result<Vec<u32>> {
        self.i64(name)?
            .data
            .into_iter()
            .map(|id| u32::try_from(id).context("a negative token id"))
            .collect()
    }

    fn array<T, const SIZE: usize>(
        &self,
        name: &str,
        dtype: Dtype,
        parse: impl Fn(&[u8; SIZE]) -> T,
    ) -> Result<Array<T>> {
        let view = self.view(name)?;
        let got = view.dtype();
        ensure!(
            got == dtype,
            "{}: `{name}` is {got:?}, not {dtype:?}",
            self.path.display()
        );
        Ok(Array {
            shape: view.shape().to_vec(),
            data: view.data().as_chunks().0.iter().map(parse).collect(),
        })
    }

    fn view(&self, name: &str) -> Result<TensorView<'_>> {
        self.file()?
            .tensor(name)
            .with_context(|| format!("{}: `{name}`", self.path.display()))
    }

    fn file(&self) -> Result<SafeTensors<'_>> {
        Ok(SafeTensors::deserialize(&self.bytes)?)
    }
}
