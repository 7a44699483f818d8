//! AdamW as PyTorch computes it, with gradient clipping and the learning-rate schedule.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use shared::config::{LearnerArgs, Schedule};
use tch::{Kind, Tensor, no_grad};

use crate::model::Parameters;

/// Added to the gradient norm before dividing, as `torch.nn.utils.clip_grad_norm_` does.
const CLIP_EPSILON: f64 = 1e-6;
/// Added to the square root of the second moment.
const ADAM_EPSILON: f64 = 1e-8;

/// What the optimizer is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSettings {
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay, on every parameter.
    pub weight_decay: f64,
    /// Largest global norm of the gradient.
    pub grad_clip: f64,
    /// Shape of the learning rate over the run.
    pub schedule: Schedule,
    /// Updates over which the learning rate rises from 0.
    pub warmup_steps: u64,
    /// Updates of the whole run: where linear and cosine reach 0.
    pub total_updates: u64,
}

/// AdamW with its state in f32, on the parameters' device.
#[derive(Debug)]
pub struct AdamW {
    settings: OptimizerSettings,
    /// Updates taken; skipped ones don't count.
    num_updates: u64,
    /// Updates skipped because the gradient norm was not finite.
    num_skipped: u64,
    /// First and second moment of each trained parameter.
    moments: HashMap<String, Moments>,
}

#[derive(Debug)]
struct Moments {
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
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
            // A tensor that no backward pass has reached yet is left alone, as PyTorch does. One that was reached before
            // has a gradient of zeros here; a resumed run has none for it, which must mean the same.
            let mut gradient = match (gradient.defined(), self.moments.contains_key(name)) {
                (true, _) => gradient,
                (false, true) => parameter.tensor.zeros_like(),
                (false, false) => continue,
            };
            let _ = gradient.f_mul_scalar_(clip)?;
            let moments = self
                .moments
                .entry(name.clone())
                .or_insert_with(|| Moments::zeros(&parameter.tensor));
            moments.apply(
                &self.settings,
                lr,
                self.num_updates,
                &parameter.tensor,
                &mut gradient,
            )?;
        }
        Ok(Update {
            grad_norm,
            lr,
            is_skipped: false,
        })
    }

    /// Writes moments and counters as one safetensors file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let counters = Tensor::from_slice(&[
            i64::try_from(self.num_updates)?,
            i64::try_from(self.num_skipped)?,
        ]);
        let mut tensors = vec![("counters".to_owned(), counters)];
        for (name, moments) in &self.moments {
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
            if let (Some(exp_avg), Some(exp_avg_sq)) = (exp_avg, exp_avg_sq) {
                optimizer.moments.insert(
                    name.clone(),
                    Moments {
                        exp_avg,
                        exp_avg_sq,
                    },
                );
            }
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

impl Moments {
    fn zeros(parameter: &Tensor) -> Self {
        Self {
            exp_avg: parameter.zeros_like(),
            exp_avg_sq: parameter.zeros_like(),
        }
    }

    /// One AdamW step of one parameter, `step` counted from 1. All of it in place: the gradient's memory is used up.
    ///
    /// With m, v the moments and c1, c2 their corrections, the parameter moves by
    /// -lr / c1 m / (sqrt(v / c2) + eps) = m / (-(sqrt(v) + eps sqrt(c2)) c1 / (lr sqrt(c2))).
    fn apply(
        &mut self,
        settings: &OptimizerSettings,
        lr: f64,
        step: u64,
        parameter: &Tensor,
        gradient: &mut Tensor,
    ) -> Result<()> {
        let OptimizerSettings {
            beta1,
            beta2,
            weight_decay,
            ..
        } = *settings;
        let correction1 = 1.0 - beta1.powf(step as f64);
        let correction2 = 1.0 - beta2.powf(step as f64);
        let mut parameter = parameter.shallow_clone();
        let _ = parameter.f_mul_scalar_(1.0 - lr * weight_decay)?;
        let _ = self.exp_avg.f_lerp_(gradient, 1.0 - beta1)?;
        let _ = gradient.f_mul_scalar_((1.0 - beta2).sqrt())?;
        let _ = self
            .exp_avg_sq
            .f_mul_scalar_(beta2)?
            .f_addcmul_(gradient, gradient)?;
        let root = correction2.sqrt();
        // A rate of 0 divides by -infinity: the parameter stays.
        let divisor = self
            .exp_avg_sq
            .f_sqrt_out(gradient)?
            .f_add_scalar_(ADAM_EPSILON * root)?
            .f_mul_scalar_(-correction1 / (lr * root))?;
        let _ = parameter.f_addcdiv_(&self.exp_avg, &divisor)?;
        Ok(())
    }
}

impl OptimizerSettings {
    /// The configuration's optimizer; `updates_per_step` are the optimizer steps of one full rollout batch.
    #[must_use]
    pub fn new(args: &LearnerArgs, updates_per_step: usize) -> Self {
        Self {
            lr: args.lr,
            beta1: args.adam_beta1,
            beta2: args.adam_beta2,
            weight_decay: args.weight_decay,
            grad_clip: args.grad_clip,
            schedule: args.schedule,
            warmup_steps: args.warmup_steps,
            total_updates: args.steps.saturating_mul(updates_per_step as u64),
        }
    }

    /// The learning rate of the update that comes after `num_updates` ones: a straight rise over the warm-up that
    /// reaches the peak with its last update, then constant, or down to 0 at the end along a line or half a cosine.
    #[must_use]
    pub fn lr_at(&self, num_updates: u64) -> f64 {
        if num_updates < self.warmup_steps {
            return self.lr * (num_updates + 1) as f64 / self.warmup_steps as f64;
        }
        let after_warmup = self.total_updates.saturating_sub(self.warmup_steps).max(1);
        let progress = ((num_updates - self.warmup_steps) as f64 / after_warmup as f64).min(1.0);
        match self.schedule {
            Schedule::Constant => self.lr,
            Schedule::Linear => self.lr * (1.0 - progress),
            Schedule::Cosine => self.lr * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
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
mod tests {
    use super::*;

    fn settings(schedule: Schedule, warmup_steps: u64) -> OptimizerSettings {
        OptimizerSettings {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.01,
            grad_clip: 1.0,
            schedule,
            warmup_steps,
            total_updates: 10,
        }
    }

    #[test]
    fn three_steps_match_the_formula() {
        // AdamW(lr=0.1, weight_decay=0.01) on p = [1, -2, 0.5], its formula in f64, for the gradients below.
        let settings = settings(Schedule::Constant, 0);
        let parameter = Tensor::from_slice(&[1.0_f32, -2.0, 0.5]);
        let mut moments = Moments::zeros(&parameter);
        for (step, gradient) in [[0.1_f32, -0.2, 0.3], [0.0, 0.5, -1.0], [2.0, 0.0, 1e-9]]
            .iter()
            .enumerate()
        {
            let mut gradient = Tensor::from_slice(gradient);
            moments
                .apply(&settings, 0.1, step as u64 + 1, &parameter, &mut gradient)
                .unwrap();
        }
        let values: Vec<f32> = parameter.try_into().unwrap();
        let expected = [0.7638783, -1.9725666, 0.4909043];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{values:?}");
        }
    }

    #[test]
    fn a_rate_of_zero_changes_nothing() {
        let settings = settings(Schedule::Constant, 0);
        let parameter = Tensor::from_slice(&[1.0_f32, -2.0]);
        let mut moments = Moments::zeros(&parameter);
        let mut gradient = Tensor::from_slice(&[0.0_f32, 3.0]);
        moments
            .apply(&settings, 0.0, 1, &parameter, &mut gradient)
            .unwrap();
        let values: Vec<f32> = parameter.try_into().unwrap();
        assert_eq!(values, [1.0, -2.0]);
    }

    #[test]
    fn schedules_rise_and_fall() {
        let linear = settings(Schedule::Linear, 2);
        let rates: Vec<f64> = (0..12).map(|update| linear.lr_at(update)).collect();
        assert_eq!(rates[..3], [0.05, 0.1, 0.1]);
        assert!((rates[6] - 0.05).abs() < 1e-12 && rates[10] == 0.0 && rates[11] == 0.0);
        let cosine = settings(Schedule::Cosine, 0);
        assert!((cosine.lr_at(5) - 0.05).abs() < 1e-12 && cosine.lr_at(10) < 1e-12);
        assert_eq!(settings(Schedule::Constant, 0).lr_at(99), 0.1);
    }
}
