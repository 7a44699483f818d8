//! AdamW as PyTorch computes it, with gradient clipping and the learning-rate schedule.
//!
//! Each parameter counts its own updates, as in PyTorch: one whose first gradient comes late (images after text, a tensor that was
//! frozen before a resume) begins with the bias corrections of a first update. The learning rate goes by the run's count.
//!
//! A parameter that no backward pass has ever reached is left alone. One that was reached moves with every update from then
//! on, by its momentum and the decay where its gradient is zero: PyTorch with `zero_grad(set_to_none=False)`. With the
//! default there it would stand still whenever this update's backward pass passed it by; whether it does depends here on which
//! responses are left out because their gradient is zero, and once a parameter has been reached leaving them out must not
//! change the result.
//!
//! - `settings`: what it is told, the learning rate
//! - `moments`: one parameter's state and step

mod moments;
mod settings;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor, no_grad};

use crate::model::{Parameter, Parameters};
use moments::Moments;
pub use settings::OptimizerSettings;

/// Added to the gradient norm before dividing, as `torch.nn.utils.clip_grad_norm_` does.
const CLIP_EPSILON: f64 = 1e-6;
/// A parameter's count in a file, under PyTorch's name for it.
const STEP: &str = "step";

/// AdamW with its state in f32, on the parameters' device.
#[derive(Debug)]
pub struct AdamW {
    settings: OptimizerSettings,
    /// Updates taken: what the learning rate goes by. Skipped ones don't count.
    num_updates: u64,
    /// Updates skipped because the gradient norm was not finite.
    num_skipped: u64,
    /// Of each parameter that a gradient has reached.
    moments: HashMap<String, Moments>,
}

/// What one update did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub lr: f64,
    /// Whether the norm was not finite, and nothing changed.
    pub is_skipped: bool,
}

impl AdamW {
    /// An optimizer that has taken no update yet.
    #[must_use]
    pub fn new(settings: OptimizerSettings) -> Self {
        Self {
            settings,
            num_updates: 0,
            num_skipped: 0,
            moments: HashMap::new(),
        }
    }

    /// Updates taken so far.
    #[must_use]
    pub fn num_updates(&self) -> u64 {
        self.num_updates
    }

    /// Updates skipped so far.
    #[must_use]
    pub fn num_skipped(&self) -> u64 {
        self.num_skipped
    }

    /// Bytes of the moments.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        let of = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
        let moments = self.moments.values();
        moments.map(|m| of(&m.exp_avg) + of(&m.exp_avg_sq)).sum()
    }

    /// Clips the gradients, takes one step, and clears them. A gradient that is not finite changes nothing.
    pub fn step(&mut self, parameters: &mut Parameters) -> Result<Update> {
        let update = no_grad(|| self.clip_and_step(parameters))?;
        parameters.zero_grad();
        parameters.refresh();
        Ok(update)
    }

    fn clip_and_step(&mut self, parameters: &Parameters) -> Result<Update> {
        let lr = self.settings.lr_at(self.num_updates);
        let grad_norm = grad_norm(parameters)?;
        if !grad_norm.is_finite() {
            self.num_skipped += 1;
            // Reached is reached, also by a gradient that is not taken: from here on it has one of zeros.
            for parameter in parameters.trainable() {
                if parameter.tensor.grad().defined() {
                    self.moments_of(parameter);
                }
            }
            return Ok(Update {
                grad_norm,
                lr,
                is_skipped: true,
            });
        }
        let clip = (self.settings.grad_clip / (grad_norm + CLIP_EPSILON)).min(1.0);
        self.num_updates += 1;
        for parameter in parameters.trainable() {
            let name = &parameter.spec.name;
            let gradient = parameter.tensor.grad();
            // One that was reached before has a gradient of zeros here; a resumed run has none for it, which must mean the same.
            let mut gradient = match (gradient.defined(), self.moments.contains_key(name)) {
                (true, _) => gradient,
                (false, true) => parameter.tensor.zeros_like(),
                (false, false) => continue,
            };
            let _ = gradient.f_mul_scalar_(clip)?;
            let settings = self.settings;
            let moments = self.moments_of(parameter);
            moments.apply(&settings, lr, &parameter.tensor, &mut gradient)?;
        }
        Ok(Update {
            grad_norm,
            lr,
            is_skipped: false,
        })
    }

    fn moments_of(&mut self, parameter: &Parameter) -> &mut Moments {
        self.moments
            .entry(parameter.spec.name.clone())
            .or_insert_with(|| Moments::zeros(&parameter.tensor))
    }

    /// Writes moments and counters as one safetensors file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let counters = Tensor::from_slice(&[
            i64::try_from(self.num_updates)?,
            i64::try_from(self.num_skipped)?,
        ]);
        let mut tensors = vec![("counters".to_owned(), counters)];
        for (name, moments) in &self.moments {
            let count = Tensor::from_slice(&[i64::try_from(moments.num_updates)?]);
            tensors.push((format!("{STEP}.{name}"), count));
            tensors.push((
                format!("exp_avg.{name}"),
                moments.exp_avg.to_device(tch::Device::Cpu),
            ));
            tensors.push((
                format!("exp_avg_sq.{name}"),
                moments.exp_avg_sq.to_device(tch::Device::Cpu),
            ));
        }
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        Tensor::write_safetensors(&tensors, path)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads what [`Self::save`] wrote; `parameters` give shapes and device.
    pub fn load(settings: OptimizerSettings, path: &Path, parameters: &Parameters) -> Result<Self> {
        let tensors = Tensor::read_safetensors(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
        let mut optimizer = Self::new(settings);
        let counters = tensors
            .remove("counters")
            .with_context(|| format!("{}: no tensor counters", path.display()))?;
        ensure!(
            counters.size() == [2],
            "{}: counters: expected 2 numbers, got shape {:?}",
            path.display(),
            counters.size()
        );
        optimizer.num_updates = u64::try_from(counters.int64_value(&[0]))?;
        optimizer.num_skipped = u64::try_from(counters.int64_value(&[1]))?;
        for parameter in parameters.all() {
            let name = &parameter.spec.name;
            let mut take = |moment: &str| -> Result<Option<Tensor>> {
                let Some(tensor) = tensors.remove(&format!("{moment}.{name}")) else {
                    return Ok(None);
                };
                let (expected, got) = (parameter.tensor.size(), tensor.size());
                ensure!(
                    expected == got,
                    "{}: {moment}.{name}: expected shape {expected:?}, got {got:?}",
                    path.display()
                );
                Ok(Some(tensor.to_device(parameter.tensor.device())))
            };
            let (exp_avg, exp_avg_sq) = (take("exp_avg")?, take("exp_avg_sq")?);
            ensure!(
                exp_avg.is_some() == exp_avg_sq.is_some(),
                "{}: {name}: one of its two moments is missing",
                path.display()
            );
            let count = tensors.remove(&format!("{STEP}.{name}"));
            let (Some(exp_avg), Some(exp_avg_sq)) = (exp_avg, exp_avg_sq) else {
                ensure!(
                    count.is_none(),
                    "{}: {STEP}.{name}: a count without moments",
                    path.display()
                );
                continue;
            };
            // Before there was a count for each, all of them had the run's.
            let all = optimizer.num_updates;
            let num_updates = match &count {
                Some(count) if count.size() == [1] => u64::try_from(count.int64_value(&[0])).ok(),
                Some(_) => None,
                None => Some(all),
            };
            let num_updates = num_updates.filter(|&own| own <= all).with_context(|| {
                format!(
                    "{}: {STEP}.{name}: expected one number from 0 to {all}",
                    path.display()
                )
            })?;
            let moments = Moments {
                num_updates,
                exp_avg,
                exp_avg_sq,
            };
            optimizer.moments.insert(name.clone(), moments);
        }
        ensure!(
            tensors.is_empty(),
            "{}: state of {} tensors that the model has not",
            path.display(),
            tensors.len()
        );
        Ok(optimizer)
    }
}

/// Euclidean norm of all gradients together. Summed in f64 and in the table's order: a parameter that has a gradient of
/// zeros here and none after a resume must not change a bit of it.
fn grad_norm(parameters: &Parameters) -> Result<f64> {
    let gradients = parameters.trainable().map(|p| p.tensor.grad());
    let norms: Vec<Tensor> = gradients
        .filter(Tensor::defined)
        .map(|gradient| gradient.norm().to_kind(Kind::Double))
        .collect();
    if norms.is_empty() {
        return Ok(0.0);
    }
    // Brought from the device at once.
    let norms: Vec<f64> = Tensor::stack(&norms, 0)
        .to_device(tch::Device::Cpu)
        .try_into()?;
    Ok(norms.iter().map(|norm| norm.powi(2)).sum::<f64>().sqrt())
}

#[cfg(test)]
mod tests;
