//! The update: it does not depend on the size of micro-batches, and its gradient is that of the loss.

use learner::advantage::advantages;
use learner::batch::Batch;
use learner::loss::{Importance, LossSettings, Scope};
use learner::model::Model;
use learner::optimizer::{AdamW, OptimizerSettings};
use learner::update::{BatchUpdate, Policy, Targets, UpdateSettings};
use models::checkpoint::Checkpoint;
use shared::config::{Advantage, Aggregation, KlEstimator, Schedule, Surrogate};
use shared::ids::{PolicyVersion, Ticket};
use shared::record::FinishReason;
use tch::Device;
use tests::Fixtures;

use crate::dice::Dice;

fn loss() -> LossSettings {
    LossSettings {
        kl_coef: 0.01,
        aggregation_length: 40,
        ..LossSettings::default()
    }
}

const OPTIMIZER: OptimizerSettings = OptimizerSettings {
    lr: 0.0,
    beta1: 0.9,
    beta2: 0.999,
    weight_decay: 0.0,
    grad_clip: 1.0,
    schedule: Schedule::Constant,
    warmup_steps: 0,
    total_updates: 1,
};

/// How an update differs from the plain one.
#[derive(Clone, Copy)]
struct Variant {
    micro_batch_tokens: usize,
    num_epochs: usize,
    importance: Option<Importance>,
    mask_truncated: bool,
    loss: LossSettings,
    /// Of the last response.
    advantage: Option<f32>,
}

fn plain() -> Variant {
    Variant {
        micro_batch_tokens: usize::MAX,
        num_epochs: 1,
        importance: None,
        mask_truncated: false,
        loss: loss(),
        advantage: None,
    }
}

/// Updates of the fixture model on prompts with and without images; the learning rate is 0.
fn update(dice: &Dice, aggregation: Aggregation, variant: Variant) -> (usize, BatchUpdate) {
    let load = || {
        let checkpoint = Checkpoint::open(&Fixtures::open().unwrap().model()).unwrap();
        Model::load(&dice.config, &checkpoint, Device::Cpu).unwrap()
    };
    let mut policy = Policy {
        model: load(),
        reference: Some(load()),
        images: dice.images.clone(),
        optimizer: AdamW::new(OPTIMIZER),
        settings: UpdateSettings {
            num_epochs: variant.num_epochs,
            mini_batch_prompts: 8,
            micro_batch_tokens: variant.micro_batch_tokens,
            mask_truncated: variant.mask_truncated,
            loss: LossSettings {
                aggregation,
                ..variant.loss
            },
        },
    };
    let records = (0..8).map(|ticket| dice.record(Ticket(ticket), PolicyVersion(0)));
    let mut batch = Batch::new(records.collect());
    if variant.mask_truncated {
        for response in batch.responses.iter_mut().step_by(2) {
            response.finish_reason = FinishReason::Length;
        }
    }
    let lens = vec![1; batch.responses.len()];
    let mut advantages = advantages(
        Advantage::Grpo,
        &batch.rewards(),
        &batch.group_spans(),
        &lens,
        1,
        &[],
    );
    if let (Some(last), Some(advantage)) = (advantages.last_mut(), variant.advantage) {
        *last = advantage;
    }
    let weights: Vec<f32> = (0..batch.num_tokens())
        .map(|token| [1.0, 0.0, 0.5][token % 3])
        .collect();
    let reference_logprobs = policy.reference_logprobs(&batch).unwrap();
    let targets = Targets {
        advantages: &advantages,
        weights: &weights,
        reference_logprobs: &reference_logprobs,
        importance: variant.importance,
    };
    let parts = batch
        .micro_batches(0..8, variant.micro_batch_tokens, |_| true)
        .len();
    (parts, policy.update(&batch, targets).unwrap())
}

#[test]
fn the_budget_of_micro_batches_changes_nothing() {
    let dice = Dice::open();
    for aggregation in [
        Aggregation::TokenMean,
        Aggregation::SequenceMean,
        Aggregation::Constant,
    ] {
        let (parts, whole) = update(&dice, aggregation, plain());
        assert_eq!(parts, 1);
        let norm = whole.updates[0].grad_norm;
        assert!(norm > 1e-3 && whole.sums.policy_loss != 0.0);
        for budget in [1, 100, 300] {
            let micro_batch_tokens = budget;
            let variant = Variant {
                micro_batch_tokens,
                ..plain()
            };
            let (parts, cut) = update(&dice, aggregation, variant);
            assert!(parts > 1);
            assert!(
                (cut.updates[0].grad_norm / norm - 1.0).abs() < 1e-4,
                "{aggregation:?}, {budget}: norm {} instead of {norm}",
                cut.updates[0].grad_norm
            );
            assert!((cut.sums.policy_loss - whole.sums.policy_loss).abs() < 1e-5);
            assert!((cut.sums.kl_loss - whole.sums.kl_loss).abs() < 1e-5);
            assert_eq!(cut.sums.num_tokens, whole.sums.num_tokens);
        }
    }
}

#[test]
fn the_importance_correction_compares_with_the_policy_before_the_first_update() {
    let dice = Dice::open();
    let run = |importance, num_epochs| {
        let variant = Variant {
            importance,
            num_epochs,
            ..plain()
        };
        update(&dice, Aggregation::TokenMean, variant).1
    };
    let plain = run(None, 1);
    assert_eq!(plain.sums.importance_sum, plain.sums.num_tokens as f64);
    // The dice know nothing of the model: far too likely at sampling, or far too unlikely.
    let cap = 2.0;
    for scope in [Scope::Token, Scope::Sequence] {
        let importance = Some(Importance::Truncated { scope, cap });
        let once = run(importance, 1);
        let mean = once.sums.importance_sum / once.sums.num_tokens as f64;
        assert!(mean > 0.0 && mean < cap, "{scope:?}: mean factor {mean}");
        assert!(once.sums.policy_loss != plain.sums.policy_loss);
        // Against the old policy nothing is off: it is the policy itself.
        assert_eq!(once.sums.num_clipped_high + once.sums.num_clipped_low, 0);
        assert!(plain.sums.num_clipped_high + plain.sums.num_clipped_low > 0);
        // Twice, the weights standing still: a pass of its own tells the old logprobs, and they are the same.
        let twice = run(importance, 2);
        assert!((twice.sums.policy_loss - 2.0 * once.sums.policy_loss).abs() < 1e-5);
        assert!((twice.sums.importance_sum / once.sums.importance_sum - 2.0).abs() < 1e-4);
        assert_eq!(twice.sums.num_capped, 2 * once.sums.num_capped);
    }
}

#[test]
fn every_surrogate_and_term_is_independent_of_micro_batches() {
    let dice = Dice::open();
    for surrogate in [
        Surrogate::Gspo,
        Surrogate::GspoToken,
        Surrogate::Cispo,
        Surrogate::Sapo,
        Surrogate::Gmpo,
    ] {
        let loss = LossSettings {
            surrogate,
            kl_estimator: KlEstimator::Full,
            kl_weighted: true,
            entropy_coef: 0.1,
            perception_kl_coef: 0.01,
            ..loss()
        };
        let run = |micro_batch_tokens| {
            let variant = Variant {
                micro_batch_tokens,
                loss,
                ..plain()
            };
            update(&dice, Aggregation::SequenceMean, variant).1
        };
        let (whole, cut) = (run(usize::MAX), run(100));
        let (expected, got) = (whole.updates[0].grad_norm, cut.updates[0].grad_norm);
        assert!(
            expected > 1e-3 && (got / expected - 1.0).abs() < 1e-4,
            "{surrogate:?}: norm {got} instead of {expected}"
        );
        let (expected, got) = (whole.sums.loss(&loss), cut.sums.loss(&loss));
        assert!(
            (got - expected).abs() < 1e-5,
            "{surrogate:?}: {got} instead of {expected}"
        );
        // The reference is the policy itself.
        assert!(whole.sums.kl_loss.abs() < 1e-6 && whole.sums.entropy_mean > 0.1);
    }
}

#[test]
fn truncated_responses_give_no_gradient_and_stay_in_the_divisors() {
    let dice = Dice::open();
    let run = |mask_truncated| {
        let variant = Variant {
            mask_truncated,
            ..plain()
        };
        update(&dice, Aggregation::TokenMean, variant).1
    };
    let (whole, masked) = (run(false), run(true));
    assert!(masked.sums.num_tokens > 0 && masked.sums.num_tokens < whole.sums.num_tokens);
    // The entropy's mean has the plain divisor: a part of the whole sum over the same number of tokens.
    let divisor = |update: &BatchUpdate| update.sums.entropy_sum / update.sums.entropy_mean;
    assert!((divisor(&masked) / divisor(&whole) - 1.0).abs() < 1e-9);
    assert!(masked.updates[0].grad_norm != whole.updates[0].grad_norm);
}

#[test]
fn a_gradient_that_is_not_finite_skips_the_update() {
    let dice = Dice::open();
    let run = |advantage| {
        let variant = Variant {
            advantage,
            ..plain()
        };
        update(&dice, Aggregation::TokenMean, variant).1.updates[0]
    };
    assert!(!run(None).is_skipped);
    let skipped = run(Some(f32::NAN));
    assert!(skipped.is_skipped && skipped.grad_norm.is_nan());
}
