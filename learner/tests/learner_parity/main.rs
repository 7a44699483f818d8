//! The algorithm against the reference values of `learner.safetensors`: advantages, ToR sets, losses with their
//! derivatives, gradients of the whole network, and one AdamW step. The fixtures' README says how each was made.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test binary"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "counts of the fixtures are small"
)]

use std::ops::Range;

use learner::advantage::advantages;
use learner::logprobs::PolicyLogprobs;
use learner::loss::LossSettings;
use learner::model::Model;
use learner::optimizer::{AdamW, OptimizerSettings};
use learner::token_weights::{Ties, TokenWeights, TorSettings};
use shared::config::{Advantage, PerceptionSignal, Schedule, TorScope};
use tch::{Device, Tensor};
use tests::assert_close;

use policy::Policy;
use reference::{Reference, Streams, each, spans, weights_of};

mod distribution;
mod policy;
mod precision;
mod reference;

const LOSSES: [&str; 6] = [
    "grpo_plain",
    "grpo_tor",
    "grpo_tor_wsum",
    "dapo_plain",
    "dapo_tor",
    "dapo_tor_wsum",
];

#[test]
fn advantages_match() {
    each(|reference| {
        let group_size =
            reference.spans.len() / reference.json["learner_prompts"].as_array().unwrap().len();
        let rewards = reference.f32("rewards");
        let groups: Vec<Range<usize>> = (0..rewards.len())
            .step_by(group_size)
            .map(|start| start..start + group_size)
            .collect();
        let lens = vec![1; rewards.len()];
        assert_close(
            "advantages",
            &advantages(Advantage::Grpo, &rewards, &groups, &lens, 1, &[]),
            &reference.f32("advantages_sample_std"),
            1e-6,
        );
    });
}

#[test]
fn tor_sets_are_exactly_the_reference_ones() {
    each(|reference| {
        let rho = reference.number("/rho");
        let settings = TorSettings {
            alpha: reference.number("/alpha"),
            beta: reference.number("/beta"),
            overlap: reference.number("/alpha"),
            rho_reasoning: rho,
            rho_perception: rho,
            signal: PerceptionSignal::LogpDiff,
            scope: TorScope::Batch,
            ties: Ties::LowerIndex,
            shaping: None,
        };
        let entropies = reference.f32("nucleus_entropy");
        let sensitivities = reference.f32("visual_sensitivity");
        let tor =
            TokenWeights::from_scores(&entropies, &sensitivities, &reference.spans, &settings);
        let mask = |name: &str| -> Vec<bool> {
            reference
                .tensors
                .u8(name)
                .unwrap()
                .data
                .iter()
                .map(|&m| m != 0)
                .collect()
        };
        assert_eq!(tor.is_reasoning, mask("reasoning_mask"));
        assert_eq!(tor.is_perception, mask("perception_mask"));
        assert_eq!(tor.weights, reference.weights);
        let count = reference.weights.len() as f64;
        let shares = tor.shares.unwrap();
        assert_eq!(shares.reasoning, reference.number("/n_reasoning") / count);
        assert_eq!(shares.perception, reference.number("/n_perception") / count);
        assert_eq!(shares.overlap, reference.number("/n_overlap") / count);
    });
}

#[test]
fn losses_and_derivatives_match() {
    each(|reference| {
        let policy_logprobs = reference.f32("cur_logp");
        for name in LOSSES {
            let (loss, gradient) = reference.loss(name, &policy_logprobs);
            let expected = reference.number(&format!("/losses/{name}/loss_numpy_float64"));
            assert!(
                (loss - expected).abs() < 1e-5,
                "{name}: {loss} instead of {expected}"
            );
            let expected = reference.f32(&format!("{name}.dloss_dlogp"));
            let worst = assert_close(name, &gradient, &expected, 1e-6);
            println!("{name}: loss {loss:.9}, largest difference of dloss/dlogp {worst:e}");
        }
    });
}

#[test]
fn synthetic_losses_and_derivatives_match() {
    each(|reference| {
        let f32 = |name: &str| reference.f32(&format!("synthetic.{name}"));
        let (policy, rollout, kl_reference) = (f32("logp"), f32("old_logp"), f32("ref_logp"));
        let spans = spans(&reference.tensors, "synthetic.response_offsets");
        for name in LOSSES {
            let streams = Streams {
                policy_logprobs: &policy,
                rollout_logprobs: &rollout,
                reference_logprobs: &kl_reference,
                weights: &weights_of(name, &f32("weights")),
                advantages: &f32("advantages"),
            };
            let (loss, gradient) = streams.loss(&reference.settings(name), &spans);
            let expected = reference.number(&format!("/synthetic/losses/{name}"));
            assert!(
                (loss - expected).abs() < 1e-6,
                "{name}: {loss} instead of {expected}"
            );
            assert_close(name, &gradient, &f32(&format!("{name}.dloss_dlogp")), 1e-6);
        }
    });
}

/// Allowed differences: what is usual, and more where the set's own f32 noise is larger.
struct Tolerances {
    loss: f64,
    /// Norm of a gradient's difference over the gradient's norm.
    gradient_norm: f64,
    /// One element of a gradient.
    gradient: f64,
    /// A parameter after the step, where its gradient is clear of rounding.
    stepped: f64,
    /// Relative.
    loss_after: f64,
    loss_after_small_step: f64,
}

impl Tolerances {
    fn of(reference: &Reference) -> Self {
        let of = |usual: f64, key: &str| reference.fixtures.tolerance(usual, &[key]);
        Self {
            loss: of(1e-5, "learner_loss"),
            gradient_norm: of(1e-3, "learner_grad_rel_norm"),
            gradient: of(5e-4, "learner_grad_max_abs"),
            stepped: of(2e-6, "learner_post_step_max_abs_where_clipped_grad_gt_1e-4"),
            loss_after: of(1e-2, "learner_loss_after_step_rel"),
            loss_after_small_step: of(1e-5, "learner_loss_after_step_lr1e-5_abs"),
        }
    }
}

/// Forward and backward of a loss, micro-batch by micro-batch; the loss, gradients left on the parameters.
fn loss_and_gradients(
    reference: &Reference,
    policy: &Policy,
    model: &Model,
    name: &str,
    responses_at_once: usize,
) -> f64 {
    let mut first = 0;
    let mut policy_logprobs = vec![0.0; reference.weights.len()];
    let mut loss = 0.0;
    for micro_batch in policy.micro_batches(responses_at_once) {
        let pass = PolicyLogprobs::forward(model, &micro_batch, 1.0).unwrap();
        let values = values(&pass.logprobs);
        let span = first..first + values.len();
        policy_logprobs[span.clone()].copy_from_slice(&values);
        // The derivative by a token depends on that token alone, so the rest of the array may still be unknown.
        let (_, gradient) = reference.loss(name, &policy_logprobs);
        pass.backward(model, &Tensor::from_slice(&gradient[span.clone()]))
            .unwrap();
        first = span.end;
        (loss, _) = reference.loss(name, &policy_logprobs);
    }
    loss
}

/// Difference of two gradients: its norm over the expected norm, and its largest element.
fn gradient_difference(got: &[f32], expected: &[f32]) -> (f64, f64) {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference: Vec<f64> = got
        .iter()
        .zip(expected)
        .map(|(a, b)| f64::from(*a) - f64::from(*b))
        .collect();
    let relative =
        norm(&mut difference.iter().copied()) / norm(&mut expected.iter().map(|&v| f64::from(v)));
    (
        relative,
        difference.iter().fold(0.0, |worst, d| worst.max(d.abs())),
    )
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let host = tensor.detach().to_device(Device::Cpu);
    host.flatten(0, -1).try_into().unwrap()
}

#[test]
fn gradients_and_adamw_step_match() {
    each(|reference| {
        let policy = Policy::open(reference);
        let tolerances = Tolerances::of(reference);
        let mut num_gradients = 0;
        let mut num_stepped = 0;
        let selected: Vec<&str> = reference.json["selected_parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap())
            .collect();
        for name in LOSSES {
            let number = |key: &str| reference.number(&format!("/losses/{name}/{key}"));
            let mut model = policy.model();
            let loss = loss_and_gradients(reference, &policy, &model, name, 5);
            let expected = number("loss");
            assert!(
                (loss - expected).abs() < tolerances.loss,
                "{name}: {loss} instead of {expected}"
            );

            for &parameter in &selected {
                let key = format!("{name}.grad.{parameter}");
                if !reference.tensors.has(&key) {
                    continue;
                }
                let got = values(&model.parameters().get(parameter).unwrap().grad());
                let (relative, worst) = gradient_difference(&got, &reference.f32(&key));
                let is_close = relative < tolerances.gradient_norm && worst < tolerances.gradient;
                assert!(
                    is_close || worst < 1e-6,
                    "{name}, gradient of {parameter}: {relative:e}, {worst:e}"
                );
                num_gradients += 1;
            }
            let norms = reference.json["losses"][name]["param_grad_norms"]
                .as_object()
                .unwrap();
            for (parameter, expected) in norms {
                let got = f64::try_from(model.parameters().get(parameter).unwrap().grad().norm())
                    .unwrap();
                let expected = expected.as_f64().unwrap();
                assert!(
                    (got - expected).abs() <= tolerances.gradient_norm * expected + 1e-6,
                    "{name}, norm of {parameter}: {got} instead of {expected}"
                );
            }

            let gradients: Vec<Vec<f32>> = selected
                .iter()
                .map(|p| values(&model.parameters().get(p).unwrap().grad()))
                .collect();
            let update = AdamW::new(adamw(reference))
                .step(model.parameters_mut())
                .unwrap();
            let expected = number("grad_norm_global");
            assert!(
                (update.grad_norm / expected - 1.0).abs() < tolerances.gradient_norm,
                "{name}: norm {} instead of {expected}",
                update.grad_norm
            );
            let mut num_compared = 0;
            for (&parameter, gradient) in selected.iter().zip(&gradients) {
                let key = format!("{name}.post.{parameter}");
                if !reference.tensors.has(&key) {
                    continue;
                }
                // Where the gradient is next to nothing, the first step is the sign of its rounding error.
                let clear: Vec<usize> = (0..gradient.len())
                    .filter(|&i| f64::from(gradient[i]).abs() * number("clip_coef") > 1e-4)
                    .collect();
                let pick =
                    |values: Vec<f32>| -> Vec<f32> { clear.iter().map(|&i| values[i]).collect() };
                let got = pick(values(&model.parameters().get(parameter).unwrap()));
                assert_close(&key, &got, &pick(reference.f32(&key)), tolerances.stepped);
                num_compared += got.len();
            }
            let after = loss_without_k3_clamp(reference, &policy, &model, name);
            let expected = number("loss_after_step");
            assert!(
                (after - expected).abs() < tolerances.loss_after * expected.abs().max(1.0),
                "{name}: {after} after the step instead of {expected}"
            );
            println!(
                "{name}: loss {loss:.7}, norm {:.4}, {num_compared} stepped values compared, loss after {after:.5}",
                update.grad_norm
            );
            num_stepped += num_compared;
        }
        assert!(num_gradients > 0 && num_stepped > 0);
    });
}

#[test]
fn a_small_step_gives_the_reference_loss() {
    each(|reference| {
        let policy = Policy::open(reference);
        let tolerances = Tolerances::of(reference);
        for name in LOSSES {
            let mut model = policy.model();
            loss_and_gradients(reference, &policy, &model, name, 12);
            let settings = OptimizerSettings {
                lr: 1e-5,
                ..adamw(reference)
            };
            AdamW::new(settings).step(model.parameters_mut()).unwrap();
            let after = loss_without_k3_clamp(reference, &policy, &model, name);
            let expected = reference.number(&format!("/losses/{name}/loss_after_step_lr1e5"));
            assert!(
                (after - expected).abs() < tolerances.loss_after_small_step,
                "{name}: {after} instead of {expected}"
            );
        }
    });
}

#[test]
fn the_micro_batch_size_does_not_change_gradients() {
    each(|reference| {
        let policy = Policy::open(reference);
        for name in ["grpo_tor_wsum", "dapo_tor"] {
            let whole = policy.model();
            let loss = loss_and_gradients(reference, &policy, &whole, name, 12);
            for responses_at_once in [1, 3, 7] {
                let parts = policy.model();
                let other = loss_and_gradients(reference, &policy, &parts, name, responses_at_once);
                assert!((loss - other).abs() < 1e-5, "{name}: {loss} and {other}");
                for (a, b) in whole.parameters().iter().zip(parts.parameters().iter()) {
                    let (relative, worst) =
                        gradient_difference(&values(&b.tensor.grad()), &values(&a.tensor.grad()));
                    assert!(
                        relative < 1e-3 || worst < 1e-5,
                        "{name}, {}: {relative:e}, {worst:e}",
                        a.spec.name
                    );
                }
            }
        }
    });
}

/// After a step a tiny model may be so far off that k3 passes its clamp, which the reference loss does not have.
fn loss_without_k3_clamp(reference: &Reference, policy: &Policy, model: &Model, name: &str) -> f64 {
    let logprobs = policy_logprobs(policy, model);
    let unclamped = |t: usize| {
        let log_ratio = f64::from(reference.reference_logprobs[t]) - f64::from(logprobs[t]);
        log_ratio.exp() - log_ratio - 1.0
    };
    let of_response =
        |span: &Range<usize>| span.clone().map(unclamped).sum::<f64>() / span.len() as f64;
    let kl = reference.spans.iter().map(of_response).sum::<f64>() / reference.spans.len() as f64;
    let (settings, weights) = (reference.settings(name), reference.weights(name));
    let without_kl = LossSettings {
        kl_coef: 0.0,
        ..settings
    };
    reference
        .streams(&logprobs, &weights)
        .loss(&without_kl, &reference.spans)
        .0
        + settings.kl_coef * kl
}

fn policy_logprobs(policy: &Policy, model: &Model) -> Vec<f32> {
    let mut logprobs = Vec::new();
    for micro_batch in policy.micro_batches(policy.responses.len()) {
        let (part, _) = learner::logprobs::logprobs(model, &micro_batch, 1.0).unwrap();
        logprobs.extend(values(&part));
    }
    logprobs
}

fn adamw(reference: &Reference) -> OptimizerSettings {
    let number = |key: &str| reference.number(&format!("/adamw/{key}"));
    OptimizerSettings {
        lr: number("lr"),
        beta1: number("betas/0"),
        beta2: number("betas/1"),
        weight_decay: number("weight_decay"),
        grad_clip: reference.number("/grad_clip"),
        schedule: Schedule::Constant,
        warmup_steps: 0,
        total_updates: 1,
    }
}
