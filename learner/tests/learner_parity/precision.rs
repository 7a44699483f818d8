//! The reference's losses and gradients on other devices and in bf16: on a CPU where its bf16 products work, on a GPU where
//! there is one.
//!
//! The set's model is random and steep: it makes much of a small change. So the expected pass is one in f32 over weights that bf16
//! holds, and what the pass in bf16 may be off is measured by what rounding the weights alone does. And a ratio that crosses the
//! clip by rounding changes a token's gradient as a whole: gradients are compared for the same derivatives by the logprobs.

use std::path::Path;

use learner::logprobs::PolicyLogprobs;
use learner::model::{Model, Parameters};
use learner::{device, doctor};
use tch::{Device, Kind, Tensor, no_grad};

use crate::policy::Policy;
use crate::reference::{Reference, each};
use crate::{LOSSES, gradient_difference, values};

/// How far a pass is from another, or may be.
#[derive(Debug, Clone, Copy)]
struct Distance {
    /// Mean absolute difference of the logprobs, and mean difference.
    logprob: f64,
    bias: f64,
    /// Norm of all gradients' difference over their norm.
    gradient: f64,
    /// How long the gradient is along the expected one, less 1.
    stretch: f64,
}

const F32: Distance = Distance {
    logprob: 1e-4,
    bias: 1e-4,
    gradient: 2e-3,
    stretch: 1e-3,
};

impl Distance {
    fn of((logprobs, gradient): &Pass, (expected, wanted): &Pass) -> Self {
        let pairs = logprobs.iter().zip(expected);
        let differences = pairs.map(|(a, b)| f64::from(a - b));
        let mean = |sum: f64| sum / expected.len() as f64;
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
            products.sum()
        };
        Self {
            logprob: mean(differences.clone().map(f64::abs).sum()),
            bias: mean(differences.sum()),
            gradient: gradient_difference(gradient, wanted).0,
            stretch: dot(gradient, wanted) / dot(wanted, wanted) - 1.0,
        }
    }

    /// Twice what rounding the weights alone does, of bias what so few tokens have by chance; and a little where the weights are
    /// such as bf16 holds.
    fn around(rounding: Self) -> Self {
        Self {
            logprob: 0.04 + 2.0 * rounding.logprob,
            bias: 5e-3 + 0.3 * rounding.logprob,
            gradient: 0.05 + 2.0 * rounding.gradient,
            stretch: 0.01 + 0.5 * rounding.gradient,
        }
    }

    fn is_within(self, allowed: Self) -> bool {
        self.logprob < allowed.logprob
            && self.bias.abs() < allowed.bias
            && self.gradient < allowed.gradient
            && self.stretch.abs() < allowed.stretch
    }
}

/// Logprobs of all tokens, and all gradients.
type Pass = (Vec<f32>, Vec<f32>);

/// The set's model over weights that bf16 holds.
fn model(policy: &Policy, device: Device, kind: Kind) -> Model {
    let mut parameters = Parameters::load(&policy.config, &policy.checkpoint, device).unwrap();
    for parameter in parameters.iter() {
        let rounded = parameter.tensor.to_kind(Kind::BFloat16);
        no_grad(|| parameter.tensor.shallow_clone().copy_(&rounded));
    }
    parameters.compute_in(kind);
    Model::new(&policy.config, parameters, device).unwrap()
}

/// Logprobs of all tokens, and the gradients for a loss's derivatives by them.
fn pass(policy: &Policy, model: &mut Model, derivatives: Option<&[f32]>) -> Pass {
    let mut logprobs = Vec::new();
    for micro_batch in policy.micro_batches(5) {
        let pass = PolicyLogprobs::forward(model, &micro_batch, 1.0).unwrap();
        let first = logprobs.len();
        logprobs.extend(values(&pass.logprobs));
        if let Some(derivatives) = derivatives {
            let own = Tensor::from_slice(&derivatives[first..logprobs.len()]);
            pass.backward(model, &own).unwrap();
        }
    }
    let mut gradients = Vec::new();
    if derivatives.is_some() {
        for parameter in model.parameters().iter() {
            gradients.extend(values(&parameter.tensor.grad()));
        }
    }
    model.parameters_mut().zero_grad();
    (logprobs, gradients)
}

fn assert_near(reference: &Reference, device: Device, kind: Kind) {
    let policy = Policy::open(reference);
    let (mut exact, mut here) = (policy.model(), model(&policy, Device::Cpu, Kind::Float));
    let mut there = model(&policy, device, kind);
    let (logprobs, _) = pass(&policy, &mut here, None);
    let mut far = Vec::new();
    for name in LOSSES {
        let (loss, derivatives) = reference.loss(name, &logprobs);
        let run = |model: &mut Model| pass(&policy, model, Some(&derivatives));
        let (exact, expected, got) = (run(&mut exact), run(&mut here), run(&mut there));
        let rounding = Distance::of(&expected, &exact);
        let distance = Distance::of(&got, &expected);
        println!(
            "{name} in {kind:?} on {device:?}: loss {:.6} and {loss:.6}; {distance:?}; rounding the weights alone: {rounding:?}",
            reference.loss(name, &got.0).0
        );
        let allowed = match kind {
            Kind::Float => F32,
            _ => Distance::around(rounding),
        };
        if !distance.is_within(allowed) {
            far.push(name);
        }
    }
    assert!(far.is_empty(), "too far off: {far:?}");
}

#[test]
fn losses_and_gradients_in_bf16_are_near_those_in_f32() {
    if let Err(reason) = doctor::probe(Path::new(env!("CARGO_BIN_EXE_learner"))) {
        println!("skipped: bf16 on this CPU: {reason}");
        return;
    }
    each(|reference| assert_near(reference, Device::Cpu, Kind::BFloat16));
}

#[test]
fn losses_and_gradients_on_a_gpu_are_near_those_on_a_cpu() {
    let gpu = match device::open(shared::config::Device::Cuda(0)) {
        Ok(gpu) => gpu,
        Err(error) => {
            println!("skipped: no GPU: {error:#}");
            return;
        }
    };
    each(|reference| {
        assert_near(reference, gpu, Kind::Float);
        assert_near(reference, gpu, Kind::BFloat16);
    });
}
