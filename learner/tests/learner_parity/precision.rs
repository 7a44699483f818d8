//! The reference's losses and gradients on other devices and in bf16: on a CPU where its bf16 products work, on a GPU where
//! there is one.
//!
//! The set's model is random and steep, so what bf16 does to its weights and what bf16 does to a pass are told apart: the expected
//! pass is one in f32 over weights that bf16 holds. And a ratio that crosses the clip by rounding changes a token's gradient as
//! a whole: gradients are compared for the same derivatives by the logprobs.

use std::path::Path;

use learner::logprobs::PolicyLogprobs;
use learner::model::{Model, Parameters};
use learner::{device, doctor};
use tch::{Device, Kind, Tensor, no_grad};

use crate::policy::Policy;
use crate::reference::{Reference, each};
use crate::{LOSSES, gradient_difference, values};

/// How far a pass may be from one on a CPU in f32.
struct Allowed {
    /// Mean absolute difference of the logprobs, and mean difference.
    logprob: f64,
    bias: f64,
    /// Norm of all gradients' difference over their norm.
    gradient: f64,
    /// How long the gradient is along the expected one, less 1.
    stretch: f64,
}

const F32: Allowed = Allowed {
    logprob: 1e-4,
    bias: 1e-4,
    gradient: 2e-3,
    stretch: 1e-3,
};
/// The first set's model makes ten times as much of rounding as the second one's, where gradients are off by 0.03.
const BF16: Allowed = Allowed {
    logprob: 0.2,
    bias: 2e-2,
    gradient: 0.3,
    stretch: 8e-2,
};

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
fn pass(policy: &Policy, model: &mut Model, derivatives: Option<&[f32]>) -> (Vec<f32>, Vec<f32>) {
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

fn assert_near(reference: &Reference, device: Device, kind: Kind, allowed: &Allowed) {
    let policy = Policy::open(reference);
    let mut here = model(&policy, Device::Cpu, Kind::Float);
    let mut there = model(&policy, device, kind);
    let (expected, _) = pass(&policy, &mut here, None);
    let mut far = Vec::new();
    for name in LOSSES {
        let (loss, derivatives) = reference.loss(name, &expected);
        let (_, wanted) = pass(&policy, &mut here, Some(&derivatives));
        let (logprobs, got) = pass(&policy, &mut there, Some(&derivatives));
        let differences = logprobs
            .iter()
            .zip(&expected)
            .map(|(a, b)| f64::from(a - b));
        let mean = |sum: f64| sum / expected.len() as f64;
        let (logprob, bias) = (
            mean(differences.clone().map(f64::abs).sum()),
            mean(differences.sum()),
        );
        let (gradient, _) = gradient_difference(&got, &wanted);
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
            products.sum()
        };
        let stretch = dot(&got, &wanted) / dot(&wanted, &wanted) - 1.0;
        println!(
            "{name} in {kind:?} on {device:?}: loss {:.6} and {loss:.6}, logprobs off by {logprob:.1e}, mean {bias:.1e}, gradient by {gradient:.1e}, stretch {stretch:.1e}",
            reference.loss(name, &logprobs).0
        );
        let is_near = logprob < allowed.logprob
            && bias.abs() < allowed.bias
            && gradient < allowed.gradient
            && stretch.abs() < allowed.stretch;
        if !is_near {
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
    each(|reference| assert_near(reference, Device::Cpu, Kind::BFloat16, &BF16));
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
        assert_near(reference, gpu, Kind::Float, &F32);
        assert_near(reference, gpu, Kind::BFloat16, &BF16);
    });
}
