//! The policy and its update: mini-batches of a rollout batch through network, loss, backward and optimizer.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use models::image::ImageProcessor;
use shared::record::FinishReason;
use tch::Tensor;

use crate::batch::{Batch, MicroBatch, Response};
use crate::clock::Clock;
use crate::device;
use crate::logprobs::{self, Frozen, LossGradient, PolicyLogprobs};
use crate::loss::{Importance, LossSettings, LossSums, Normaliser, ResponseTokens, response_loss};
use crate::model::Model;
use crate::numbers::{max_or_nan, narrow};
use crate::optimizer::{AdamW, Update};

/// How a rollout batch becomes optimizer steps.
#[derive(Clone, Copy, Debug)]
pub struct UpdateSettings {
    /// Passes over the rollout batch.
    pub num_epochs: usize,
    /// Groups per optimizer step.
    pub mini_batch_prompts: usize,
    /// Tokens that pass through the network at once. Does not change the result.
    pub micro_batch_tokens: usize,
    /// Whether responses that were cut at the length limit are left out. They still count in every divisor.
    pub mask_truncated: bool,
    /// The loss.
    pub loss: LossSettings,
}

/// The network under training with its optimizer, and the frozen one it is held near to.
#[derive(Debug)]
pub struct Policy {
    /// Under training.
    pub model: Model,
    /// The policy before step 0; needed when there is a KL term.
    pub reference: Option<Model>,
    /// Makes patches of the records' images.
    pub images: ImageProcessor,
    /// Of `model`.
    pub optimizer: AdamW,
    /// How to update.
    pub settings: UpdateSettings,
}

/// What the loss takes beside the policy's own logprobs: [responses] and per response token [N].
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// One per response.
    pub advantages: &'a [f32],
    /// One per response token.
    pub weights: &'a [f32],
    /// One per response token, or empty without a KL term.
    pub reference_logprobs: &'a [f32],
    /// How the rollout's probabilities are corrected for, if at all.
    pub importance: Option<Importance>,
}

/// What all updates of a rollout batch did.
#[derive(Clone, Debug, Default)]
pub struct BatchUpdate {
    /// The optimizer steps, in order.
    pub updates: Vec<Update>,
    /// Sums over all mini-batches.
    pub sums: LossSums,
    /// How far rollout and policy are apart.
    pub mismatch: Mismatch,
    /// Where the time went.
    pub stages: Stages,
}

/// Seconds spent in the parts of updates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stages {
    /// Making patches of images.
    pub images: f64,
    /// Through the network to the logprobs.
    pub forward: f64,
    /// The loss and its derivatives, from logprobs.
    pub loss: f64,
    /// Back through the network.
    pub backward: f64,
    /// Clipping and AdamW.
    pub optimizer: f64,
}

/// Rollout logprobs against the policy's own, on the first mini-batch: before any update both are the same policy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mismatch {
    /// Largest absolute difference.
    pub max_difference: f64,
    /// Sum of the k3 estimates of KL(rollout, policy).
    pub kl_sum: f64,
    /// Tokens compared.
    pub num_tokens: usize,
}

impl Mismatch {
    /// Mean k3 estimate of KL(rollout, policy) per token, nats; NaN when nothing was compared.
    #[must_use]
    pub fn kl(&self) -> f64 {
        self.kl_sum / self.num_tokens as f64
    }

    fn add(&mut self, rollout_logprobs: &[f32], policy_logprobs: &[f32]) {
        for (&rollout, &policy) in rollout_logprobs.iter().zip(policy_logprobs) {
            let log_ratio = f64::from(policy) - f64::from(rollout);
            self.max_difference = max_or_nan(self.max_difference, log_ratio.abs());
            self.kl_sum += log_ratio.exp_m1() - log_ratio;
            self.num_tokens += 1;
        }
    }
}

impl Policy {
    /// Logprobs of all response tokens by the reference, [N]; empty when there is none.
    pub fn reference_logprobs(&self, batch: &Batch) -> Result<Vec<f32>> {
        match &self.reference {
            Some(reference) => self.logprobs(reference, batch),
            None => Ok(Vec::new()),
        }
    }

    /// Logprobs of all response tokens by a model, [N].
    pub(crate) fn logprobs(&self, model: &Model, batch: &Batch) -> Result<Vec<f32>> {
        let mut all = vec![0.0; batch.num_tokens()];
        for micro_batch in batch.micro_batches(
            0..batch.groups.len(),
            self.settings.micro_batch_tokens,
            |_| true,
        ) {
            let patches = batch.patches(&micro_batch, &self.images)?;
            let input = batch.input(&micro_batch, &patches);
            let (logprobs, _) = logprobs::logprobs(model, &input, batch.temperature(&micro_batch))?;
            scatter(batch, &micro_batch, &host(&logprobs)?, &mut all)?;
        }
        Ok(all)
    }

    /// Takes all optimizer steps of a rollout batch.
    pub fn update(&mut self, batch: &Batch, targets: Targets<'_>) -> Result<BatchUpdate> {
        let mut done = BatchUpdate::default();
        let mini_batches = batch.mini_batches(self.settings.mini_batch_prompts);
        // A single update starts and ends at the old policy: its own pass tells the old logprobs.
        let is_single = self.settings.num_epochs * mini_batches.len() == 1;
        let old_logprobs = match targets.importance {
            Some(_) if !is_single => self.logprobs(&self.model, batch)?,
            _ => Vec::new(),
        };
        for _ in 0..self.settings.num_epochs {
            for groups in mini_batches.iter().cloned() {
                let is_first = done.updates.is_empty();
                let mut mismatch = Mismatch::default();
                let targets = (targets, old_logprobs.as_slice());
                self.accumulate(batch, targets, groups, &mut done, &mut mismatch)?;
                if is_first {
                    done.mismatch = mismatch;
                }
                let mut clock = Clock::start();
                done.updates
                    .push(self.optimizer.step(self.model.parameters_mut())?);
                device::wait_for(self.model.device());
                done.stages.optimizer += clock.lap();
            }
        }
        Ok(done)
    }

    /// Whether the loss has a gradient at a token of a response; both numbers are those in the batch.
    pub(crate) fn has_gradient(
        &self,
        batch: &Batch,
        targets: &Targets<'_>,
        response: usize,
        token: usize,
    ) -> bool {
        let is_masked = self.settings.mask_truncated && is_truncated(&batch.responses[response]);
        let (weight, advantage) = (targets.weights[token], targets.advantages[response]);
        !is_masked && self.settings.loss.needs_gradient(weight, advantage)
    }

    /// Adds the gradient of one mini-batch to the parameters, micro-batch by micro-batch. Where there are no old logprobs,
    /// the policy is still the old one.
    fn accumulate(
        &self,
        batch: &Batch,
        (targets, old_logprobs): (Targets<'_>, &[f32]),
        groups: Range<usize>,
        BatchUpdate { sums, stages, .. }: &mut BatchUpdate,
        mismatch: &mut Mismatch,
    ) -> Result<()> {
        let mut clock = Clock::start();
        let settings = &self.settings.loss;
        let responses =
            batch.groups[groups.start].responses.start..batch.groups[groups.end - 1].responses.end;
        let spans: Vec<Range<usize>> = batch.responses[responses.clone()]
            .iter()
            .map(|response| response.tokens.clone())
            .collect();
        let normaliser = Normaliser::new(settings, targets.weights, &spans);
        // A response that can have no gradient (advantage 0, or no token selected) adds nothing to the loss either.
        let is_wanted = |index: usize| {
            let mut tokens = batch.responses[index].tokens.clone();
            tokens.any(|token| self.has_gradient(batch, &targets, index, token))
        };
        for micro_batch in batch.micro_batches(groups, self.settings.micro_batch_tokens, is_wanted)
        {
            let patches = batch.patches(&micro_batch, &self.images)?;
            let input = batch.input(&micro_batch, &patches);
            let temperature = batch.temperature(&micro_batch);
            stages.images += clock.lap();
            let pass = PolicyLogprobs::forward(&self.model, &input, temperature)?;
            let frozen = match settings.has_full_kl() {
                true => {
                    let reference = self.reference.as_ref().context("no reference model")?;
                    Some(Frozen::forward(reference, &input, temperature)?)
                }
                false => None,
            };
            let policy_logprobs = host(&pass.logprobs)?;
            let entropies = host(&pass.entropies)?;
            let full_kls = match &frozen {
                Some(frozen) => host(&pass.full_kl(&self.model, frozen)?)?,
                None => Vec::new(),
            };
            stages.forward += clock.lap();
            let num_tokens = policy_logprobs.len();
            let mut gradient = vec![0.0; num_tokens];
            let (mut of_entropies, mut of_kl) = (vec![0.0; num_tokens], vec![0.0; num_tokens]);
            let mut first = 0;
            for response in micro_batch.responses() {
                let flat = batch.responses[response].tokens.clone();
                let own = first..first + flat.len();
                first = own.end;
                let policy_logprobs = &policy_logprobs[own.clone()];
                let weights = &targets.weights[flat.clone()];
                let tokens = ResponseTokens {
                    policy_logprobs,
                    entropies: &entropies[own.clone()],
                    full_kls: full_kls.get(own.clone()).unwrap_or_default(),
                    old_logprobs: old_logprobs.get(flat.clone()).unwrap_or(policy_logprobs),
                    rollout_logprobs: &batch.rollout_logprobs[flat.clone()],
                    blank_logprobs: &batch.blank_logprobs[flat.clone()],
                    reference_logprobs: targets.reference_logprobs.get(flat).unwrap_or_default(),
                    weights,
                    advantage: targets.advantages[response],
                    importance: targets.importance,
                };
                mismatch.add(tokens.rollout_logprobs, tokens.policy_logprobs);
                let factors = normaliser.factors(response - responses.start);
                response_loss(settings, &tokens, factors, sums, &mut gradient[own.clone()]);
                of_entropies[own.clone()].fill(narrow(settings.entropy_scale(factors)));
                for (of_kl, &weight) in of_kl[own].iter_mut().zip(weights) {
                    *of_kl = narrow(settings.kl_scale(factors, weight));
                }
            }
            let (of_entropies, of_kl) = (
                Tensor::from_slice(&of_entropies),
                Tensor::from_slice(&of_kl),
            );
            let loss = LossGradient {
                logprobs: &Tensor::from_slice(&gradient),
                entropies: (settings.entropy_coef != 0.0).then_some(&of_entropies),
                kl: frozen.as_ref().map(|frozen| (frozen, &of_kl)),
            };
            stages.loss += clock.lap();
            pass.backward_all(&self.model, &loss)?;
            stages.backward += clock.lap();
        }
        // A GPU's time is told once per update: stages that wait for it in between show what it did before them.
        device::wait_for(self.model.device());
        stages.backward += clock.lap();
        Ok(())
    }
}

/// Whether a response was cut at the length limit, without an end token.
#[must_use]
pub fn is_truncated(response: &Response) -> bool {
    response.finish_reason == FinishReason::Length
}

/// Puts a micro-batch's flat results [n] at their places in the batch's flat array [N].
fn scatter(batch: &Batch, micro_batch: &MicroBatch, values: &[f32], all: &mut [f32]) -> Result<()> {
    let mut rest = values;
    for response in micro_batch.responses() {
        let span = batch.responses[response].tokens.clone();
        let (own, after) = rest.split_at_checked(span.len()).unwrap_or((rest, &[]));
        ensure!(
            own.len() == span.len(),
            "expected {} logprobs of a response, got {}",
            span.len(),
            own.len()
        );
        all[span].copy_from_slice(own);
        rest = after;
    }
    Ok(())
}

fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(Vec::try_from(tensor.to_device(tch::Device::Cpu))?)
}
