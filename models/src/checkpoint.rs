//! Reading a published checkpoint: one safetensors file, or shards with their index, memory-mapped.
//!
//! The files are untrusted: headers are bounded and checked against the size of the file before any tensor is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::config::ModelConfig;
use crate::names;
use crate::{Error, Result};

mod index;
mod layout;
mod mapped;
mod packed;
mod widen;
mod write;

use mapped::Mapped;

pub use layout::F32Layout;
pub use packed::{GROUP, Numbers, PANEL, PackedMatrix, packed_matrices};
pub use write::{write_f32, write_f32_watched};

/// Longest header that is parsed; the one of a 72B model is below 1 MB.
const MAX_HEADER_BYTES: usize = 32 << 20;

/// A checkpoint whose tensors are read where they lie. Names are the published ones of [`names`]; those that
/// transformers 5 writes (`model.language_model.*`, `model.visual.*`) are translated.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    shards: Vec<Shard>,
    /// Tensor name -> shard and place.
    tensors: BTreeMap<String, (usize, TensorInfo)>,
}

#[derive(Debug)]
struct Shard {
    bytes: Mapped,
    /// Where the tensors' bytes begin.
    data_start: usize,
}

impl Checkpoint {
    /// Opens a model folder (`model.safetensors`, or shards named by `model.safetensors.index.json`) or one
    /// safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        let single = if path.is_dir() {
            path.join("model.safetensors")
        } else {
            path.to_path_buf()
        };
        if single.exists() {
            checkpoint.add_shard(&single, None)?;
            return Ok(checkpoint);
        }
        let Some(index) = index::read(path)? else {
            return Err(Error::NotAModel {
                path: path.to_path_buf(),
                missing: "model.safetensors",
            });
        };
        for (file, tensors) in &index {
            checkpoint.add_shard(file, Some(tensors))?;
        }
        Ok(checkpoint)
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.find(name)?.1.shape)
    }

    /// Whether every tensor that `config` calls for is there, readable and of the right shape.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        for names::TensorSpec { name, shape } in names::tensors(config) {
            let Some((_, info)) = self.tensors.get(&name) else {
                return Err(Error::MissingTensor {
                    name,
                    expected: shape,
                    path: self.path.clone(),
                });
            };
            if info.shape != shape {
                let (got, path) = (info.shape.clone(), self.path.clone());
                return Err(Error::WrongShape {
                    name,
                    expected: shape,
                    got,
                    path,
                });
            }
            self.raw(&name)?;
        }
        Ok(())
    }

    /// The elements of a tensor, widened to f32.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let (bytes, dtype) = self.raw(name)?;
        // The bytes are there, so this is at most twice the file.
        let mut out = vec![0.0; bytes.len() / dtype.size()];
        widen::widen(bytes, dtype, &mut out);
        Ok(out)
    }

    /// [`Self::read_f32`] into `out`, whose length must be the tensor's.
    pub fn read_f32_into(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let (bytes, dtype) = self.raw(name)?;
        let got = self.shape(name)?;
        if bytes.len() / dtype.size() != out.len() {
            let (name, got, path) = (name.to_string(), got.to_vec(), self.path.clone());
            return Err(Error::WrongShape {
                name,
                expected: vec![out.len()],
                got,
                path,
            });
        }
        widen::widen(bytes, dtype, out);
        Ok(())
    }

    /// Bytes of a tensor and the float type they are in.
    fn raw(&self, name: &str) -> Result<(&[u8], widen::Float)> {
        let (shard, info) = self.find(name)?;
        let dtype = match info.dtype {
            Dtype::F32 => widen::Float::F32,
            Dtype::F16 => widen::Float::F16,
            Dtype::BF16 => widen::Float::BF16,
            other => {
                let got = format!("{other:?}").to_lowercase();
                return Err(Error::WrongDtype {
                    name: name.into(),
                    got,
                    path: self.path.clone(),
                });
            }
        };
        let (begin, end) = info.data_offsets;
        let bytes = self
            .shards
            .get(*shard)
            .and_then(|shard| shard.bytes.get(shard.data_start..)?.get(begin..end));
        let out_of_file = || Error::Checkpoint {
            path: self.path.clone(),
            problem: format!("tensor `{name}` lies outside its file; download or copy it again"),
        };
        Ok((bytes.ok_or_else(out_of_file)?, dtype))
    }

    fn find(&self, name: &str) -> Result<&(usize, TensorInfo)> {
        self.tensors.get(name).ok_or_else(|| Error::MissingTensor {
            name: name.into(),
            expected: Vec::new(),
            path: self.path.clone(),
        })
    }

    /// Maps one file and takes the tensors that the index (if there is one) places in it.
    fn add_shard(&mut self, file: &Path, placed: Option<&BTreeSet<String>>) -> Result<()> {
        let bytes = Mapped::open(file)?;
        let (data_start, metadata) = read_header(file, &bytes)?;
        let problem = |problem| Error::Checkpoint {
            path: file.to_path_buf(),
            problem,
        };
        let mut infos = metadata.tensors();
        let taken = match placed {
            None => infos.keys().cloned().collect(),
            Some(names) => names.clone(),
        };
        for name in taken {
            let info = infos.remove(&name).ok_or_else(|| {
                problem(format!("tensor `{name}` is not in this file although the index places it here; use the index of these files"))
            })?;
            let hub_name = hub_name(&name);
            if self
                .tensors
                .insert(hub_name.clone(), (self.shards.len(), info.clone()))
                .is_some()
            {
                return Err(problem(format!(
                    "tensor `{hub_name}` is there twice; use a checkpoint in one naming"
                )));
            }
        }
        self.shards.push(Shard { bytes, data_start });
        Ok(())
    }
}

/// Start of the data and the table of tensors, checked to cover the file exactly.
///
/// The safetensors crate's own `read_metadata` adds untrusted 64-bit sizes unchecked, so only its table parser is used.
fn read_header(file: &Path, bytes: &[u8]) -> Result<(usize, Metadata)> {
    let problem = |problem: String| Error::Checkpoint {
        path: file.to_path_buf(),
        problem,
    };
    let size = bytes.len();
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(problem(format!(
            "truncated: {size} bytes; download or copy it again"
        )));
    };
    let length = usize::try_from(u64::from_le_bytes(*length))
        .ok()
        .filter(|&length| length <= MAX_HEADER_BYTES);
    let Some(length) = length else {
        return Err(problem(
            "not a safetensors file (its header length is out of bounds)".into(),
        ));
    };
    let Some(header) = rest.get(..length) else {
        return Err(problem(format!(
            "truncated: expected a header of {length} bytes, got {}; download or copy it again",
            rest.len()
        )));
    };
    let metadata: Metadata = serde_json::from_slice(header).map_err(|error| {
        problem(format!(
            "not a valid safetensors header: {error}; download or copy it again"
        ))
    })?;
    let data_start = 8 + length;
    let expected = metadata.data_len().checked_add(data_start);
    if expected != Some(size) {
        let last = metadata.offset_keys().pop().unwrap_or_default();
        let expected = expected.map_or("more than 2^64".into(), |bytes| bytes.to_string());
        return Err(problem(format!(
            "truncated or damaged: expected {expected} bytes up to the end of tensor `{last}`, got {size}; download or copy it again"
        )));
    }
    Ok((data_start, metadata))
}

/// The hub's name of a tensor that transformers 5 may have named.
fn hub_name(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("model.language_model.") {
        format!("model.{rest}")
    } else if let Some(rest) = name.strip_prefix("model.visual.") {
        format!("visual.{rest}")
    } else {
        name.to_string()
    }
}

#[cfg(test)]
mod tests;
