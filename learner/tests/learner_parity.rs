//! The algorithm against the reference values of `learner.safetensors`: advantages, ToR sets, losses with their
//! derivatives, gradients of the whole network, and one AdamW step. The fixtures' README says how each was made.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "counts of the fixtures are small"
)]

use std::ops::Range;

use learner::advantage::group_advantages;
use learner::logprobs::PolicyLogprobs;
use learner::loss::{LossSettings, LossSums, Normaliser, ResponseTokens, response_loss};
use learner::model::{Group, MicroBatch, Model};
use learner::optimizer::{AdamW, OptimizerSettings};
use learner::token_weights::{Ties, TokenWeights, TorSettings};
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::image::{Grid, Patches};
use serde_json::Value;
use shared::config::{
    Aggregation, KlEstimator, PerceptionSignal, Schedule, TorNormaliser, TorScope,
};
use tch::{Device, Tensor};
use tests::{Fixtures, Tensors, assert_close};

const LOSSES: [&str; 6] = [
    "grpo_plain",
    "grpo_tor",
    "grpo_tor_wsum",
    "dapo_plain",
    "dapo_tor",
    "dapo_tor_wsum",
];

/// The reference batch, flat arrays [N].
struct Reference {
    fixtures: Fixtures,
    json: Value,
    tensors: Tensors,
    spans: Vec<Range<usize>>,
    advantages: Vec<f32>,
    weights: Vec<f32>,
    rollout_logprobs: Vec<f32>,
    reference_logprobs: Vec<f32>,
}

impl Reference {
    fn open() -> Self {
        let fixtures = Fixtures::open().unwrap();
        let json = fixtures.json("learner").unwrap();
        let tensors = fixtures.tensors("learner").unwrap();
        let f32 = |name: &str| tensors.f32(name).unwrap().data;
        Self {
            spans: spans(&tensors, "response_offsets"),
            advantages: f32("advantages_sample_std"),
            weights: f32("weights"),
            rollout_logprobs: f32("old_logp"),
            reference_logprobs: f32("ref_logp"),
            fixtures,
            json,
            tensors,
        }
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.tensors.f32(name).unwrap().data
    }

    fn number(&self, pointer: &str) -> f64 {
        self.json
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or_else(|| panic!("learner.json: {pointer}"))
    }

    /// Loss settings and token weights of one of the six losses.
    fn settings(&self, name: &str) -> LossSettings {
        let is_grpo = name.starts_with("grpo");
        let clip = if is_grpo { "/clip_grpo" } else { "/clip_dapo" };
        LossSettings {
            clip_low: self.number(&format!("{clip}/0")),
            clip_high: self.number(&format!("{clip}/1")),
            dual_clip: None,
            kl_coef: if is_grpo {
                self.number("/kl_coef")
            } else {
                0.0
            },
            kl_estimator: KlEstimator::K3,
            kl_weighted: false,
            aggregation: if is_grpo {
                Aggregation::SequenceMean
            } else {
                Aggregation::TokenMean
            },
            normaliser: if name.ends_with("wsum") {
                TorNormaliser::Weights
            } else {
                TorNormaliser::ResponseTokens
            },
        }
    }

    fn weights(&self, name: &str) -> Vec<f32> {
        weights_of(name, &self.weights)
    }

    fn loss(&self, name: &str, policy_logprobs: &[f32]) -> (f64, Vec<f32>) {
        self.streams(policy_logprobs, &self.weights(name))
            .loss(&self.settings(name), &self.spans)
    }

    fn streams<'a>(&'a self, policy_logprobs: &'a [f32], weights: &'a [f32]) -> Streams<'a> {
        Streams {
            policy_logprobs,
            rollout_logprobs: &self.rollout_logprobs,
            reference_logprobs: &self.reference_logprobs,
            weights,
            advantages: &self.advantages,
        }
    }
}

fn weights_of(name: &str, tor: &[f32]) -> Vec<f32> {
    if name.ends_with("plain") {
        vec![1.0; tor.len()]
    } else {
        tor.to_vec()
    }
}

fn spans(tensors: &Tensors, name: &str) -> Vec<Range<usize>> {
    let offsets: Vec<usize> = tensors
        .ids(name)
        .unwrap()
        .into_iter()
        .map(|offset| offset as usize)
        .collect();
    offsets.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

struct Streams<'a> {
    policy_logprobs: &'a [f32],
    rollout_logprobs: &'a [f32],
    reference_logprobs: &'a [f32],
    weights: &'a [f32],
    advantages: &'a [f32],
}

impl Streams<'_> {
    fn loss(&self, settings: &LossSettings, spans: &[Range<usize>]) -> (f64, Vec<f32>) {
        let normaliser = Normaliser::new(settings, self.weights, spans);
        let (mut sums, mut gradient) = (LossSums::default(), vec![f32::NAN; self.weights.len()]);
        for (index, span) in spans.iter().enumerate() {
            let tokens = ResponseTokens {
                policy_logprobs: &self.policy_logprobs[span.clone()],
                rollout_logprobs: &self.rollout_logprobs[span.clone()],
                reference_logprobs: &self.reference_logprobs[span.clone()],
                weights: &self.weights[span.clone()],
                advantage: self.advantages[index],
            };
            let factors = (normaliser.policy[index], normaliser.kl[index]);
            response_loss(
                settings,
                &tokens,
                factors,
                &mut sums,
                &mut gradient[span.clone()],
            );
        }
        (sums.loss(settings), gradient)
    }
}

#[test]
fn advantages_match() {
    let reference = Reference::open();
    let group_size =
        reference.spans.len() / reference.json["learner_prompts"].as_array().unwrap().len();
    let rewards = reference.f32("rewards");
    let groups: Vec<Range<usize>> = (0..rewards.len())
        .step_by(group_size)
        .map(|start| start..start + group_size)
        .collect();
    assert_close(
        "advantages",
        &group_advantages(&rewards, &groups, true),
        &reference.advantages,
        1e-6,
    );
}

#[test]
fn tor_sets_are_exactly_the_reference_ones() {
    let reference = Reference::open();
    let rho = reference.number("/rho");
    let settings = TorSettings {
        alpha: reference.number("/alpha"),
        beta: reference.number("/beta"),
        rho_reasoning: rho,
        rho_perception: rho,
        signal: PerceptionSignal::LogpDiff,
        scope: TorScope::Batch,
        ties: Ties::LowerIndex,
    };
    let entropies = reference.f32("nucleus_entropy");
    let sensitivities = reference.f32("visual_sensitivity");
    let tor = TokenWeights::from_scores(&entropies, &sensitivities, &reference.spans, &settings);
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
}

#[test]
fn losses_and_derivatives_match() {
    let reference = Reference::open();
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
}

#[test]
fn synthetic_losses_and_derivatives_match() {
    let reference = Reference::open();
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
}

/// The policy and the batch's sequences as the network takes them.
struct Policy {
    config: ModelConfig,
    checkpoint: Checkpoint,
    prompts: Vec<(Vec<u32>, Vec<Patches>)>,
    responses: Vec<(usize, Vec<u32>)>, // (prompt, tokens)
}

impl Policy {
    fn open(reference: &Reference) -> Self {
        let fixtures = &reference.fixtures;
        let cases = fixtures.prompts().unwrap();
        let preprocess = fixtures.tensors("preprocess").unwrap();
        let numbers: Vec<usize> = reference.json["learner_prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap() as usize)
            .collect();
        let prompts = numbers.iter().map(|&number| {
            let images = cases[number]
                .images
                .iter()
                .map(|name| patches(&preprocess, name));
            (cases[number].input_ids.clone(), images.collect())
        });
        let ids = reference.tensors.ids("response_ids").unwrap();
        let of_response = reference.tensors.ids("prompt_index").unwrap();
        let position = |prompt: u32| {
            numbers
                .iter()
                .position(|&number| number == prompt as usize)
                .unwrap()
        };
        let responses = reference
            .spans
            .iter()
            .zip(of_response)
            .map(|(span, prompt)| (position(prompt), ids[span.clone()].to_vec()));
        Self {
            config: ModelConfig::from_dir(&fixtures.model()).unwrap(),
            checkpoint: Checkpoint::open(&fixtures.model()).unwrap(),
            prompts: prompts.collect(),
            responses: responses.collect(),
        }
    }

    fn model(&self) -> Model {
        Model::load(&self.config, &self.checkpoint, Device::Cpu).unwrap()
    }

    /// Micro-batches of `responses_at_once` sequences, in order; sequences of one prompt share it.
    fn micro_batches(&self, responses_at_once: usize) -> Vec<MicroBatch<'_>> {
        self.responses
            .chunks(responses_at_once)
            .map(|responses| MicroBatch {
                groups: self.groups(responses),
            })
            .collect()
    }

    fn groups<'a>(&'a self, responses: &'a [(usize, Vec<u32>)]) -> Vec<Group<'a>> {
        let by_prompt = responses.chunk_by(|a, b| a.0 == b.0);
        let group = |responses: &'a [(usize, Vec<u32>)]| {
            let (prompt_ids, images) = &self.prompts[responses[0].0];
            Group {
                prompt_ids,
                images,
                responses: responses.iter().map(|(_, ids)| ids.as_slice()).collect(),
            }
        };
        by_prompt.map(group).collect()
    }
}

fn patches(preprocess: &Tensors, name: &str) -> Patches {
    let grid = preprocess
        .ids(&format!("pil.{name}.image_grid_thw"))
        .unwrap();
    let values = preprocess
        .f32(&format!("pil.{name}.pixel_values"))
        .unwrap()
        .data;
    Patches {
        values,
        grid: Grid {
            t: grid[0] as usize,
            h: grid[1] as usize,
            w: grid[2] as usize,
        },
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
        let values: Vec<f32> = (&pass.logprobs).try_into().unwrap();
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
    tensor.detach().flatten(0, -1).try_into().unwrap()
}

#[test]
fn gradients_and_adamw_step_match() {
    let reference = Reference::open();
    let policy = Policy::open(&reference);
    let selected: Vec<&str> = reference.json["selected_parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_str().unwrap())
        .collect();
    for name in LOSSES {
        let number = |key: &str| reference.number(&format!("/losses/{name}/{key}"));
        let mut model = policy.model();
        let loss = loss_and_gradients(&reference, &policy, &model, name, 5);
        assert!((loss - number("loss")).abs() < 1e-5, "{name}: loss {loss}");

        for &parameter in &selected {
            let got = values(&model.parameters().get(parameter).unwrap().grad());
            let (relative, worst) =
                gradient_difference(&got, &reference.f32(&format!("{name}.grad.{parameter}")));
            assert!(
                relative < 1e-3 && worst < 5e-4,
                "{name}, gradient of {parameter}: {relative:e}, {worst:e}"
            );
        }
        let norms = reference.json["losses"][name]["param_grad_norms"]
            .as_object()
            .unwrap();
        for (parameter, expected) in norms {
            let got =
                f64::try_from(model.parameters().get(parameter).unwrap().grad().norm()).unwrap();
            let expected = expected.as_f64().unwrap();
            assert!(
                (got - expected).abs() <= 1e-3 * expected + 1e-6,
                "{name}, norm of {parameter}: {got} instead of {expected}"
            );
        }

        let gradients: Vec<Vec<f32>> = selected
            .iter()
            .map(|p| values(&model.parameters().get(p).unwrap().grad()))
            .collect();
        let update = AdamW::new(adamw(&reference))
            .step(model.parameters_mut())
            .unwrap();
        let expected = number("grad_norm_global");
        assert!(
            (update.grad_norm / expected - 1.0).abs() < 1e-3,
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
            assert_close(&key, &got, &pick(reference.f32(&key)), 2e-6);
            num_compared += got.len();
        }
        let after = loss_without_k3_clamp(&reference, &policy, &model, name);
        let expected = number("loss_after_step");
        assert!(
            (after - expected).abs() < 1e-2 * expected.abs().max(1.0),
            "{name}: {after} after the step instead of {expected}"
        );
        println!(
            "{name}: loss {loss:.7}, norm {:.4}, {num_compared} stepped values compared, loss after {after:.5}",
            update.grad_norm
        );
    }
}

#[test]
fn a_small_step_gives_the_reference_loss() {
    let reference = Reference::open();
    let policy = Policy::open(&reference);
    for name in LOSSES {
        let mut model = policy.model();
        loss_and_gradients(&reference, &policy, &model, name, 12);
        let settings = OptimizerSettings {
            lr: 1e-5,
            ..adamw(&reference)
        };
        AdamW::new(settings).step(model.parameters_mut()).unwrap();
        let after = loss_without_gradients(&reference, &policy, &model, name);
        let expected = reference.number(&format!("/losses/{name}/loss_after_step_lr1e5"));
        assert!(
            (after - expected).abs() < 1e-5,
            "{name}: {after} instead of {expected}"
        );
    }
}

#[test]
fn the_micro_batch_size_does_not_change_gradients() {
    let reference = Reference::open();
    let policy = Policy::open(&reference);
    for name in ["grpo_tor_wsum", "dapo_tor"] {
        let whole = policy.model();
        let loss = loss_and_gradients(&reference, &policy, &whole, name, 12);
        for responses_at_once in [1, 3, 7] {
            let parts = policy.model();
            let other = loss_and_gradients(&reference, &policy, &parts, name, responses_at_once);
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
}

/// After a step of 1e-3 the tiny model is so far off that k3 passes its clamp, which the reference loss does not have.
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

fn loss_without_gradients(
    reference: &Reference,
    policy: &Policy,
    model: &Model,
    name: &str,
) -> f64 {
    reference.loss(name, &policy_logprobs(policy, model)).0
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
