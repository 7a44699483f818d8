//! Every tensor of the model under its published name, in publication order; and what is trained in place of some.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use models::checkpoint::{Checkpoint, F32Layout};
use models::config::ModelConfig;
use models::names::{self, TensorSpec};
use safetensors::{Dtype, View};
use tch::{Device, Kind, Tensor, no_grad};

use super::lora::{Adapter, Lora, LoraSettings};
use super::patterns;
use super::weight::Weight;

/// One trainable (or frozen) tensor.
#[derive(Debug)]
pub struct Parameter {
    /// Published name and shape.
    pub spec: TensorSpec,
    /// f32 values on the model's device; a leaf of the autograd graph. The layers hold handles to this same storage,
    /// so an optimizer that writes in place (under `no_grad`) changes the model. Of a frozen tensor, what products read.
    pub tensor: Tensor,
    /// Where products read something else: the values rounded to what the model computes in.
    compute: Option<Tensor>,
}

/// The model's tensors in the order of [`names::tensors`].
#[derive(Debug)]
pub struct Parameters {
    entries: Vec<Parameter>,
    index: HashMap<String, usize>,
    /// What is trained in their place, if anything.
    lora: Option<Lora>,
    /// What products compute in.
    kind: Kind,
}

impl Parameters {
    /// Reads every tensor of a checkpoint, widened to f32; all of them trainable.
    pub fn load(config: &ModelConfig, checkpoint: &Checkpoint, device: Device) -> Result<Self> {
        checkpoint.check(config)?;
        Self::from_values(config, device, |spec| Ok(checkpoint.read_f32(&spec.name)?))
    }

    /// The same, all of them frozen, and stored as products in `kind` read them.
    pub fn load_frozen(
        config: &ModelConfig,
        checkpoint: &Checkpoint,
        device: Device,
        kind: Kind,
    ) -> Result<Self> {
        checkpoint.check(config)?;
        let mut entries = Vec::new();
        for spec in names::tensors(config) {
            let values = Tensor::from_slice(&checkpoint.read_f32(&spec.name)?)
                .view(dims(&spec.shape)?.as_slice());
            let tensor = values.to_kind(stored_as(&spec, kind)).to_device(device);
            entries.push(Parameter::new(spec, tensor));
        }
        let mut parameters = Self::from_entries(entries);
        parameters.kind = kind;
        Ok(parameters)
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
            entries.push(Parameter::new(spec, tensor));
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
        Self {
            entries,
            index,
            lora: None,
            kind: Kind::Float,
        }
    }

    /// What products compute in; f32 until [`Self::compute_in`].
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Has products compute in `kind`, f32 or bf16. What is trained keeps its f32 values, what is frozen does not; norms stay as
    /// they are. Before layers are built over it, and after all is chosen that is trained.
    pub fn compute_in(&mut self, kind: Kind) {
        let factors = self.lora.iter_mut().flat_map(Lora::factors_mut);
        for parameter in self.entries.iter_mut().chain(factors) {
            let stored = stored_as(&parameter.spec, kind);
            if !parameter.tensor.requires_grad() {
                parameter.tensor = parameter.tensor.to_kind(stored);
            } else if stored != Kind::Float {
                parameter.compute = Some(parameter.tensor.detach().to_kind(stored));
            }
        }
        self.kind = kind;
    }

    /// Makes what products read from the values anew. After every change of the values.
    pub fn refresh(&mut self) {
        let factors = self.lora.iter_mut().flat_map(Lora::factors_mut);
        for parameter in self.entries.iter_mut().chain(factors) {
            if let Some(compute) = &mut parameter.compute {
                no_grad(|| compute.copy_(&parameter.tensor));
            }
        }
    }

    /// A handle to the tensor of this name: same storage, same gradient.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let index = self
            .index
            .get(name)
            .with_context(|| format!("the model has no tensor named {name}"))?;
        Ok(self.entries[*index].tensor.shallow_clone())
    }

    /// The same with what products read of it.
    pub fn weight(&self, name: &str) -> Result<Weight> {
        let index = self
            .index
            .get(name)
            .with_context(|| format!("the model has no tensor named {name}"))?;
        Ok(self.entries[*index].weight())
    }

    /// The model's own parameters, in publication order.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.entries.iter()
    }

    /// The same and the adapters' factors.
    pub fn all(&self) -> impl Iterator<Item = &Parameter> {
        let factors = self.lora.iter().flat_map(Lora::factors);
        self.entries.iter().chain(factors)
    }

    /// The parameters that are trained, in publication order; an adapter's factors come last.
    pub fn trainable(&self) -> impl Iterator<Item = &Parameter> {
        self.all()
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

    /// Stops training every tensor that a pattern stands for (`visual.`: the whole vision tower); see [`patterns`].
    pub fn freeze(&mut self, pattern: &str) -> Result<usize> {
        let names: Vec<&str> = self.entries.iter().map(|p| p.spec.name.as_str()).collect();
        let frozen = patterns::matching(pattern, &names)?.len();
        for parameter in &mut self.entries {
            if patterns::is_match(pattern, &parameter.spec.name) {
                parameter.freeze();
            }
        }
        Ok(frozen)
    }

    /// Freezes everything and gives these layers adapters, which are trained instead. Before layers are built over it.
    pub fn add_lora(&mut self, settings: LoraSettings, layers: &[String]) -> Result<()> {
        let mut lora = Lora::new(settings);
        for layer in layers {
            let name = format!("{layer}.weight");
            let number = *self
                .index
                .get(&name)
                .with_context(|| format!("the model has no tensor named {name}"))?;
            lora.add(layer, number as u64, &self.entries[number])?;
        }
        self.entries.iter_mut().for_each(Parameter::freeze);
        self.lora = Some(lora);
        Ok(())
    }

    /// The adapters, if there are any.
    pub fn lora(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }

    /// The same, to overwrite.
    pub fn lora_mut(&mut self) -> Option<&mut Lora> {
        self.lora.as_mut()
    }

    /// The adapter of a layer, if it has one.
    pub fn adapter(&self, layer: &str) -> Option<Adapter> {
        self.lora.as_ref()?.adapter(layer)
    }

    /// The same tensors without adapters: handles, no copies.
    #[must_use]
    pub fn base(&self) -> Self {
        let mut base = Self::from_entries(self.entries.iter().map(Parameter::handle).collect());
        base.kind = self.kind;
        base
    }

    /// What a matrix lacks of the policy: (alpha / R) B A; `None` where the tensor has no adapter.
    pub fn adapted(&self, name: &str) -> Option<Tensor> {
        let adapter = self.adapter(name.strip_suffix(".weight")?)?;
        Some(adapter.product())
    }

    /// A tensor as the policy has it, with its adapter's part, on the host.
    fn merged(&self, parameter: &Parameter) -> Tensor {
        match self.adapted(&parameter.spec.name) {
            Some(part) => host_f32(&(parameter.tensor.detach() + part)),
            None => host_f32(&parameter.tensor),
        }
    }

    /// Whether any tensor whose name starts with `prefix` is trained.
    pub fn is_trained(&self, prefix: &str) -> bool {
        self.trainable()
            .any(|parameter| parameter.spec.name.starts_with(prefix))
    }

    /// Drops all gradients.
    pub fn zero_grad(&mut self) {
        let factors = self.lora.iter_mut().flat_map(Lora::factors_mut);
        for parameter in self.entries.iter_mut().chain(factors) {
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
        self.refresh();
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
    /// Adapters are merged matrix by matrix.
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
            let values = self.merged(parameter);
            values.f_copy_data_u8(&mut out[start..start + count * size_of::<f32>()], count)?;
        }
        Ok(())
    }

    /// Saves the weights as a hub `model.safetensors` at `path`, f32 or (`bf16`) rounded to half the size.
    pub fn save(&self, path: &Path, bf16: bool) -> Result<()> {
        let kind = if bf16 { Kind::BFloat16 } else { Kind::Float };
        let tensors = self
            .entries
            .iter()
            .map(|parameter| (&parameter.spec, move || self.merged(parameter)));
        write_safetensors(tensors, kind, path)
    }
}

impl Parameter {
    /// A tensor that products read as it is.
    pub fn new(spec: TensorSpec, tensor: Tensor) -> Self {
        Self {
            spec,
            tensor,
            compute: None,
        }
    }

    /// Another handle to the same tensors.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self {
            spec: self.spec.clone(),
            tensor: self.tensor.shallow_clone(),
            compute: self.compute.as_ref().map(Tensor::shallow_clone),
        }
    }

    /// The tensor as layers hold it.
    pub fn weight(&self) -> Weight {
        let Self {
            tensor, compute, ..
        } = self.handle();
        Weight::new(tensor, compute)
    }

    /// Bytes of what products read beside the values.
    pub fn copy_bytes(&self) -> usize {
        let compute = self.compute.iter();
        compute
            .map(|copy| copy.numel() * copy.kind().elt_size_in_bytes())
            .sum()
    }

    /// Same tensor behind all handles: the layers see the change.
    fn freeze(&mut self) {
        self.tensor = self.tensor.set_requires_grad(false);
    }
}

/// Writes tensors as one file that Python's libraries take for PyTorch's; f32 or bf16. The values of each are asked for when
/// its turn comes.
pub fn write_safetensors<'a, F: Fn() -> Tensor>(
    tensors: impl Iterator<Item = (&'a TensorSpec, F)>,
    kind: Kind,
    path: &Path,
) -> Result<()> {
    let dtype = match kind {
        Kind::BFloat16 => Dtype::BF16,
        Kind::Float => Dtype::F32,
        other => bail!("{}: cannot write {other:?}", path.display()),
    };
    let views = tensors.map(|(spec, values)| {
        let view = Written {
            shape: &spec.shape,
            values,
            kind,
            dtype,
        };
        (&spec.name, view)
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A tensor of a file. Its bytes exist while they are written, not before.
struct Written<'a, F> {
    shape: &'a [usize],
    values: F,
    kind: Kind,
    dtype: Dtype,
}

impl<F: Fn() -> Tensor> View for Written<'_, F> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        let values = host_f32(&(self.values)()).to_kind(self.kind);
        values.copy_data_u8(&mut bytes, values.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.kind.elt_size_in_bytes()
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

/// What a tensor is stored as for products in `kind`. Norms multiply in f32, and are next to nothing.
pub fn stored_as(spec: &TensorSpec, kind: Kind) -> Kind {
    let is_norm = spec.shape.len() == 1 && spec.name.ends_with(".weight");
    if is_norm { Kind::Float } else { kind }
}

/// A shape as libtorch wants it.
fn dims(shape: &[usize]) -> Result<Vec<i64>> {
    shape.iter().map(|&dim| Ok(i64::try_from(dim)?)).collect()
}
