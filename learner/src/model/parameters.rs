//! Every tensor of the model under its published name, in publication order.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use models::checkpoint::{Checkpoint, F32Layout};
use models::config::ModelConfig;
use models::names::{self, TensorSpec};
use tch::{Device, Kind, Tensor, no_grad};

/// One trainable (or frozen) tensor.
#[derive(Debug)]
pub struct Parameter {
    /// Published name and shape.
    pub spec: TensorSpec,
    /// f32 values on the model's device; a leaf of the autograd graph. The layers hold handles to this same storage,
    /// so an optimizer that writes in place (under `no_grad`) changes the model.
    pub tensor: Tensor,
}

/// The model's tensors in the order of [`names::tensors`].
#[derive(Debug)]
pub struct Parameters {
    entries: Vec<Parameter>,
    index: HashMap<String, usize>,
}

impl Parameters {
    /// Reads every tensor of a checkpoint, widened to f32; all of them trainable.
    pub fn load(config: &ModelConfig, checkpoint: &Checkpoint, device: Device) -> Result<Self> {
        checkpoint.check(config)?;
        Self::from_values(config, device, |spec| Ok(checkpoint.read_f32(&spec.name)?))
    }

    /// Builds the table from a function that gives each tensor's values, row-major.
    pub fn from_values(
        config: &ModelConfig,
        device: Device,
        mut values: impl FnMut(&TensorSpec) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let mut entries = Vec::new();
        for spec in names::tensors(config) {
            let data = values(&spec)?;
            let expected: usize = spec.shape.iter().product();
            ensure!(
                data.len() == expected,
                "{}: expected {expected} values, got {}",
                spec.name,
                data.len()
            );
            let tensor = Tensor::from_slice(&data)
                .view(dims(&spec.shape)?.as_slice())
                .to_device(device)
                .set_requires_grad(true);
            entries.push(Parameter { spec, tensor });
        }
        Ok(Self::from_entries(entries))
    }

    /// A table of any tensors: part of a model, or something beside it that the same optimizer trains.
    pub fn from_entries(entries: Vec<Parameter>) -> Self {
        let index = entries
            .iter()
            .enumerate()
            .map(|(i, parameter)| (parameter.spec.name.clone(), i))
            .collect();
        Self { entries, index }
    }

    /// A handle to the tensor of this name: same storage, same gradient.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let index = self
            .index
            .get(name)
            .with_context(|| format!("the model has no tensor named {name}"))?;
        Ok(self.entries[*index].tensor.shallow_clone())
    }

    /// All parameters, in publication order.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.entries.iter()
    }

    /// The parameters that are trained, in publication order.
    pub fn trainable(&self) -> impl Iterator<Item = &Parameter> {
        self.entries
            .iter()
            .filter(|parameter| parameter.tensor.requires_grad())
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Stops training every tensor whose name starts with `prefix` (`"visual."`: the whole vision tower).
    /// An unknown prefix is an error, since a misspelt one would train what was meant to be frozen.
    pub fn freeze(&mut self, prefix: &str) -> Result<usize> {
        let mut frozen = 0;
        for parameter in &mut self.entries {
            if parameter.spec.name.starts_with(prefix) {
                // Same tensor behind both handles: the layers see the change.
                parameter.tensor = parameter.tensor.set_requires_grad(false);
                frozen += 1;
            }
        }
        ensure!(
            frozen > 0,
            "nothing to freeze: no tensor's name starts with '{prefix}'"
        );
        Ok(frozen)
    }

    /// Whether any tensor whose name starts with `prefix` is trained.
    pub fn is_trained(&self, prefix: &str) -> bool {
        self.trainable()
            .any(|parameter| parameter.spec.name.starts_with(prefix))
    }

    /// Drops all gradients.
    pub fn zero_grad(&mut self) {
        for parameter in &mut self.entries {
            parameter.tensor.zero_grad();
        }
    }

    /// Overwrites the values in place with those of a checkpoint; the layers keep their handles.
    pub fn reload(&mut self, config: &ModelConfig, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.check(config)?;
        for parameter in &mut self.entries {
            let values = checkpoint.read_f32(&parameter.spec.name)?;
            let source = Tensor::from_slice(&values).view(dims(&parameter.spec.shape)?.as_slice());
            no_grad(|| parameter.tensor.copy_(&source));
        }
        Ok(())
    }

    /// The layout that [`Self::write_f32`] fills.
    pub fn layout(&self) -> F32Layout {
        let specs: Vec<TensorSpec> = self
            .entries
            .iter()
            .map(|parameter| parameter.spec.clone())
            .collect();
        F32Layout::new(&specs)
    }

    /// Writes header and values as one f32 safetensors file into `out` (`layout.total_bytes` long): what is published.
    pub fn write_f32(&self, layout: &F32Layout, out: &mut [u8]) -> Result<()> {
        ensure!(
            out.len() == layout.total_bytes,
            "publication: expected {} bytes, got {}",
            layout.total_bytes,
            out.len()
        );
        out[..layout.header.len()].copy_from_slice(&layout.header);
        for parameter in &self.entries {
            let name = &parameter.spec.name;
            let Some(start) = layout.offset(name) else {
                bail!("the layout has no place for {name}")
            };
            let count: usize = parameter.spec.shape.iter().product();
            let values = host_f32(&parameter.tensor);
            values.f_copy_data_u8(&mut out[start..start + count * size_of::<f32>()], count)?;
        }
        Ok(())
    }

    /// Saves the weights as a hub `model.safetensors` at `path`, f32 or (`bf16`) rounded to half the size.
    pub fn save(&self, path: &Path, bf16: bool) -> Result<()> {
        let kind = if bf16 { Kind::BFloat16 } else { Kind::Float };
        let mut buffers = Vec::with_capacity(self.entries.len());
        for parameter in &self.entries {
            let values = host_f32(&parameter.tensor).to_kind(kind);
            let count: usize = parameter.spec.shape.iter().product();
            let mut bytes = vec![0u8; count * kind.elt_size_in_bytes()];
            values.f_copy_data_u8(&mut bytes, count)?;
            buffers.push(bytes);
        }
        let dtype = if bf16 {
            safetensors::Dtype::BF16
        } else {
            safetensors::Dtype::F32
        };
        let mut views = Vec::with_capacity(buffers.len());
        for (parameter, bytes) in self.entries.iter().zip(&buffers) {
            let view =
                safetensors::tensor::TensorView::new(dtype, parameter.spec.shape.clone(), bytes)?;
            views.push((parameter.spec.name.as_str(), view));
        }
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize_to_file(views, Some(metadata), path)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The values on the host, f32, contiguous; outside the autograd graph.
fn host_f32(tensor: &Tensor) -> Tensor {
    tensor
        .detach()
        .to_device(Device::Cpu)
        .to_kind(Kind::Float)
        .contiguous()
}

/// A shape as libtorch wants it.
fn dims(shape: &[usize]) -> Result<Vec<i64>> {
    shape.iter().map(|&dim| Ok(i64::try_from(dim)?)).collect()
}
