//! The reference batch and its losses, from `learner.safetensors` and `learner.json`.

use std::ops::Range;

use learner::loss::{LossSettings, LossSums, Normaliser, ResponseTokens, response_loss};
use serde_json::Value;
use shared::config::{Aggregation, KlEstimator, Surrogate, TorNormaliser};
use tests::{Fixtures, Tensors};

/// The reference batch, flat arrays [N].
pub(crate) struct Reference {
    pub(crate) fixtures: Fixtures,
    pub(crate) json: Value,
    pub(crate) tensors: Tensors,
    pub(crate) spans: Vec<Range<usize>>,
    pub(crate) advantages: Vec<f32>,
    pub(crate) weights: Vec<f32>,
    pub(crate) rollout_logprobs: Vec<f32>,
    pub(crate) reference_logprobs: Vec<f32>,
}

/// Runs a test on every set.
pub(crate) fn each(test: impl Fn(&Reference)) {
    Fixtures::each(|fixtures| test(&Reference::open(fixtures))).unwrap();
}

impl Reference {
    fn open(fixtures: Fixtures) -> Self {
        let json = fixtures.json("learner").unwrap();
        let tensors = fixtures.tensors("learner").unwrap();
        let f32 = |name: &str| tensors.f32(name).unwrap().data;
        let used = json["advantages_used"].as_str().unwrap_or("sample");
        Self {
            spans: spans(&tensors, "response_offsets"),
            advantages: f32(&format!("advantages_{used}_std")),
            weights: f32("weights"),
            rollout_logprobs: f32("old_logp"),
            reference_logprobs: f32("ref_logp"),
            fixtures,
            json,
            tensors,
        }
    }

    pub(crate) fn f32(&self, name: &str) -> Vec<f32> {
        self.tensors.f32(name).unwrap().data
    }

    pub(crate) fn number(&self, pointer: &str) -> f64 {
        self.json
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or_else(|| panic!("learner.json: {pointer}"))
    }

    /// Loss settings and token weights of one of the six losses.
    pub(crate) fn settings(&self, name: &str) -> LossSettings {
        let is_grpo = name.starts_with("grpo");
        let clip = if is_grpo { "/clip_grpo" } else { "/clip_dapo" };
        LossSettings {
            surrogate: Surrogate::Clip,
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
            ..LossSettings::default()
        }
    }

    pub(crate) fn weights(&self, name: &str) -> Vec<f32> {
        weights_of(name, &self.weights)
    }

    pub(crate) fn loss(&self, name: &str, policy_logprobs: &[f32]) -> (f64, Vec<f32>) {
        self.streams(policy_logprobs, &self.weights(name))
            .loss(&self.settings(name), &self.spans)
    }

    pub(crate) fn streams<'a>(
        &'a self,
        policy_logprobs: &'a [f32],
        weights: &'a [f32],
    ) -> Streams<'a> {
        Streams {
            policy_logprobs,
            rollout_logprobs: &self.rollout_logprobs,
            reference_logprobs: &self.reference_logprobs,
            weights,
            advantages: &self.advantages,
        }
    }
}

pub(crate) fn weights_of(name: &str, tor: &[f32]) -> Vec<f32> {
    if name.ends_with("plain") {
        vec![1.0; tor.len()]
    } else {
        tor.to_vec()
    }
}

pub(crate) fn spans(tensors: &Tensors, name: &str) -> Vec<Range<usize>> {
    let offsets: Vec<usize> = tensors
        .ids(name)
        .unwrap()
        .into_iter()
        .map(|offset| offset as usize)
        .collect();
    offsets.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

pub(crate) struct Streams<'a> {
    pub(crate) policy_logprobs: &'a [f32],
    pub(crate) rollout_logprobs: &'a [f32],
    pub(crate) reference_logprobs: &'a [f32],
    pub(crate) weights: &'a [f32],
    pub(crate) advantages: &'a [f32],
}

impl Streams<'_> {
    pub(crate) fn loss(&self, settings: &LossSettings, spans: &[Range<usize>]) -> (f64, Vec<f32>) {
        let normaliser = Normaliser::new(settings, self.weights, spans);
        let (mut sums, mut gradient) = (LossSums::default(), vec![f32::NAN; self.weights.len()]);
        for (index, span) in spans.iter().enumerate() {
            let tokens = ResponseTokens {
                policy_logprobs: &self.policy_logprobs[span.clone()],
                rollout_logprobs: &self.rollout_logprobs[span.clone()],
                reference_logprobs: &self.reference_logprobs[span.clone()],
                weights: &self.weights[span.clone()],
                advantage: self.advantages[index],
                entropies: &[],
                full_kls: &[],
                blank_logprobs: &[],
                old_logprobs: &[],
                importance: None,
            };
            let factors = normaliser.factors(index);
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
