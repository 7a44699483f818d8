//! Terms of a loss that depend on whole distributions, entropy and full KL: their values against the definition, their
//! gradients against central differences through the network.

use learner::logprobs::{Frozen, LossGradient, PolicyLogprobs};
use learner::model::{MicroBatch, Model};
use tch::{Kind, Tensor, no_grad};

use crate::policy::Policy;
use crate::reference::{Reference, each};

const TEMPERATURE: f64 = 0.7;
/// Moved along its own gradient; all logits depend on it.
const PARAMETER: &str = "model.norm.weight";

/// Factors of logprob, entropy and KL of token t: d loss / d each.
fn factors(len: usize) -> [Tensor; 3] {
    let values = |seed: usize| -> Vec<f32> {
        (0..len)
            .map(|t| [0.3, 0.0, -0.2, 0.5, 0.0][(t * (seed + 1) + seed) % 5])
            .collect()
    };
    [0, 1, 2].map(|seed| Tensor::from_slice(&values(seed)))
}

/// The loss by the passes' own values, in f64.
fn loss(model: &Model, frozen_model: &Model, batch: &MicroBatch<'_>) -> f64 {
    let pass = PolicyLogprobs::forward(model, batch, TEMPERATURE).unwrap();
    let frozen = Frozen::forward(frozen_model, batch, TEMPERATURE).unwrap();
    let kl = pass.full_kl(model, &frozen).unwrap();
    let [of_logprobs, of_entropies, of_kl] = factors(pass.logprobs.numel());
    let sum = |values: &Tensor, factors: &Tensor| -> f64 {
        (values.to_kind(Kind::Double) * factors)
            .sum(Kind::Double)
            .double_value(&[])
    };
    sum(&pass.logprobs, &of_logprobs) + sum(&pass.entropies, &of_entropies) + sum(&kl, &of_kl)
}

fn shift(model: &mut Model, by: &Tensor) {
    let parameter = model.parameters_mut().get(PARAMETER).unwrap();
    let _ = no_grad(|| parameter.shallow_clone().f_add_(by).unwrap());
}

fn check(reference: &Reference) {
    let policy = Policy::open(reference);
    let mut model = policy.model();
    let mut frozen_model = policy.model();
    let size = model.parameters().get(PARAMETER).unwrap().size();
    tch::manual_seed(1);
    let noise = Tensor::randn(&size, (Kind::Float, tch::Device::Cpu)) * 0.05;
    shift(&mut frozen_model, &noise);
    let batch = &policy.micro_batches(3)[0];

    let pass = PolicyLogprobs::forward(&model, batch, TEMPERATURE).unwrap();
    let frozen = Frozen::forward(&frozen_model, batch, TEMPERATURE).unwrap();
    let kl: Vec<f32> = pass.full_kl(&model, &frozen).unwrap().try_into().unwrap();
    assert!(kl.iter().all(|&kl| kl > -1e-6) && kl.iter().any(|&kl| kl > 1e-5));
    let own = Frozen::forward(&model, batch, TEMPERATURE).unwrap();
    let zero: Vec<f32> = pass.full_kl(&model, &own).unwrap().try_into().unwrap();
    assert!(zero.iter().all(|kl| kl.abs() < 1e-6));

    let [of_logprobs, of_entropies, of_kl] = factors(kl.len());
    pass.backward_all(
        &model,
        &LossGradient {
            logprobs: &of_logprobs,
            entropies: Some(&of_entropies),
            kl: Some((&frozen, &of_kl)),
        },
    )
    .unwrap();
    let gradient = model.parameters().get(PARAMETER).unwrap().grad().copy();
    let norm = gradient.norm().to_kind(Kind::Double).double_value(&[]);
    assert!(norm > 1e-3, "{norm}");
    // Along its own direction the loss must rise by the norm.
    let step = 1e-2;
    let direction = &gradient * (step / norm);
    shift(&mut model, &direction);
    let above = loss(&model, &frozen_model, batch);
    shift(&mut model, &(&direction * -2.0));
    let below = loss(&model, &frozen_model, batch);
    let numeric = (above - below) / (2.0 * step);
    assert!(
        (numeric / norm - 1.0).abs() < 1e-2,
        "{numeric} instead of {norm}"
    );
}

#[test]
fn entropy_and_full_kl_have_the_gradient_of_their_values() {
    each(check);
}
