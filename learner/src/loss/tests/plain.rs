//! The objective written down from the papers, in f64, per token and without shortcuts; nothing is shared with the code
//! under test. Compared in value, and in gradient by central differences, for every surrogate x aggregation x weighting.

use std::ops::Range;

use proptest::prelude::*;
use shared::config::{Aggregation, KlEstimator, Surrogate, TorNormaliser};

use super::super::{
    Importance, LossSettings, LossSums, Normaliser, ResponseTokens, Scope, response_loss,
};

pub(super) const SURROGATES: [Surrogate; 6] = [
    Surrogate::Clip,
    Surrogate::Gspo,
    Surrogate::GspoToken,
    Surrogate::Cispo,
    Surrogate::Sapo,
    Surrogate::Gmpo,
];
const AGGREGATIONS: [Aggregation; 3] = [
    Aggregation::TokenMean,
    Aggregation::SequenceMean,
    Aggregation::Constant,
];
const NORMALISERS: [TorNormaliser; 3] = [
    TorNormaliser::ResponseTokens,
    TorNormaliser::Weights,
    TorNormaliser::Selected,
];

#[derive(Clone, Debug)]
struct Token {
    now: f64,
    old: f64,
    rollout: f64,
    blank: f64,
    reference: f64,
    entropy: f64,
    full_kl: f64,
    weight: f64,
}

#[derive(Clone, Debug)]
struct Response {
    advantage: f64,
    tokens: Vec<Token>,
}

/// As the arrays of f32 hold it.
#[expect(clippy::cast_possible_truncation, reason = "numbers of the test")]
fn f32s(value: f64) -> f64 {
    f64::from(value as f32)
}

/// Log pi_old of the ratio, and what the rollout's probability is corrected by.
fn correction(response: &Response, importance: Option<Importance>) -> Vec<(f64, f64)> {
    let ratios: Vec<f64> = response
        .tokens
        .iter()
        .map(|t| (t.old - t.rollout).exp())
        .collect();
    let product: f64 = ratios.iter().product();
    let geometric = product.powf(1.0 / ratios.len() as f64);
    let of_token = |(t, q): (&Token, &f64)| match importance {
        None => (t.rollout, 1.0),
        Some(Importance::Truncated { scope, cap }) => {
            let ratio = match scope {
                Scope::Token => *q,
                Scope::Sequence => product,
            };
            (t.old, ratio.min(cap))
        }
        Some(Importance::SequenceMask { low, high }) => {
            let inside = low <= geometric && geometric <= high;
            (t.old, if inside { 1.0 } else { 0.0 })
        }
        Some(Importance::IcePop { low, high }) => {
            let inside = low <= *q && *q <= high;
            (t.old, if inside { *q } else { 0.0 })
        }
    };
    response.tokens.iter().zip(&ratios).map(of_token).collect()
}

/// The response's objective, summed over tokens. `frozen` is the response where stop-gradients look at it.
fn objective(
    settings: &LossSettings,
    response: &Response,
    frozen: &Response,
    importance: Option<Importance>,
) -> f64 {
    let a = response.advantage;
    let corrections = correction(response, importance);
    let (low, high) = (1.0 - settings.clip_low, 1.0 + settings.clip_high);
    let pessimist = |r: f64| (r * a).min(r.max(low).min(high) * a);
    let sum_weights: f64 = response.tokens.iter().map(|t| t.weight).sum();
    let sum_both: f64 = response
        .tokens
        .iter()
        .zip(&corrections)
        .map(|(t, c)| t.weight * c.1)
        .sum();
    let weighted_product = |of: &dyn Fn(f64) -> f64| -> f64 {
        let factors = response
            .tokens
            .iter()
            .zip(&corrections)
            .map(|(t, c)| of((t.now - c.0).exp()).powf(t.weight / sum_weights));
        factors.product()
    };
    match settings.surrogate {
        Surrogate::Gspo if sum_weights > 0.0 => {
            return sum_both * pessimist(weighted_product(&|r| r));
        }
        Surrogate::Gmpo if sum_weights > 0.0 => {
            let (floor, ceiling) = ((-settings.clip_low).exp(), settings.clip_high.exp());
            let bounded = |r: f64| {
                if a > 0.0 {
                    r.min(ceiling)
                } else {
                    r.max(floor)
                }
            };
            return sum_both * a * weighted_product(&bounded);
        }
        Surrogate::Gspo | Surrogate::Gmpo => return 0.0,
        _ => {}
    }
    let len = response.tokens.len() as f64;
    let frozen_s = frozen
        .tokens
        .iter()
        .zip(&corrections)
        .map(|(t, c)| (t.now - c.0).exp())
        .product::<f64>()
        .powf(1.0 / len);
    let mut sum = 0.0;
    for ((t, still), (old, c)) in response.tokens.iter().zip(&frozen.tokens).zip(&corrections) {
        let r = (t.now - old).exp();
        let value = match settings.surrogate {
            Surrogate::Clip => {
                let value = pessimist(r);
                match settings.dual_clip {
                    Some(limit) if a < 0.0 => value.max(limit * a),
                    _ => value,
                }
            }
            Surrogate::GspoToken => pessimist(frozen_s * (t.now - still.now).exp()),
            Surrogate::Cispo => (still.now - old).exp().max(low).min(high) * a * t.now,
            Surrogate::Sapo => {
                let tau = if a > 0.0 {
                    settings.sapo_tau_positive
                } else {
                    settings.sapo_tau_negative
                };
                a * 4.0 / tau / (1.0 + (-tau * (r - 1.0)).exp())
            }
            Surrogate::Gspo | Surrogate::Gmpo => 0.0,
        };
        sum += t.weight * c * value;
    }
    sum
}

/// What a sum over a response's tokens is divided by.
fn divisor(settings: &LossSettings, is_weighted: bool, batch: &[Response], own: &Response) -> f64 {
    let size = |response: &Response| -> f64 {
        let tokens = response.tokens.iter();
        match settings.normaliser {
            TorNormaliser::Weights if is_weighted => tokens.map(|t| t.weight).sum(),
            TorNormaliser::Selected if is_weighted => {
                tokens.filter(|t| t.weight != 0.0).count() as f64
            }
            _ => response.tokens.len() as f64,
        }
    };
    match settings.aggregation {
        Aggregation::TokenMean => batch.iter().map(size).sum(),
        Aggregation::SequenceMean => batch.len() as f64 * size(own),
        Aggregation::Constant => batch.len() as f64 * settings.aggregation_length as f64,
    }
}

fn kl(settings: &LossSettings, t: &Token) -> f64 {
    let d = t.reference - t.now;
    match settings.kl_estimator {
        KlEstimator::K1 => -d,
        KlEstimator::K2 => d * d / 2.0,
        KlEstimator::K3 => d.exp() - 1.0 - d,
        KlEstimator::Abs => d.abs(),
        KlEstimator::Full => t.full_kl,
        KlEstimator::Off => 0.0,
    }
}

fn plain_loss(
    settings: &LossSettings,
    batch: &[Response],
    frozen: &[Response],
    importance: Option<Importance>,
) -> f64 {
    let mut loss = 0.0;
    for (response, still) in batch.iter().zip(frozen) {
        let over = |is_weighted: bool, sum: f64| {
            let divisor = divisor(settings, is_weighted, batch, response);
            if divisor == 0.0 { 0.0 } else { sum / divisor }
        };
        loss -= over(true, objective(settings, response, still, importance));
        for t in &response.tokens {
            let weight = if settings.kl_weighted { t.weight } else { 1.0 };
            loss += settings.kl_coef * over(settings.kl_weighted, weight * kl(settings, t));
            let x = t.now - t.blank;
            loss -= settings.perception_kl_coef * over(false, x.exp() - 1.0 - x);
            loss -= settings.entropy_coef * over(false, t.entropy);
        }
    }
    loss
}

/// The code under test on the same batch.
fn tested_loss(
    settings: &LossSettings,
    batch: &[Response],
    importance: Option<Importance>,
) -> (f64, Vec<f32>) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "values were rounded to f32"
    )]
    let flat = |of: &dyn Fn(&Token) -> f64| -> Vec<f32> {
        let tokens = batch.iter().flat_map(|response| &response.tokens);
        tokens.map(|token| of(token) as f32).collect()
    };
    let mut spans: Vec<Range<usize>> = Vec::new();
    for response in batch {
        let start = spans.last().map_or(0, |span| span.end);
        spans.push(start..start + response.tokens.len());
    }
    let weights = flat(&|t| t.weight);
    let normaliser = Normaliser::new(settings, &weights, &spans);
    let (mut sums, mut gradient) = (LossSums::default(), vec![f32::NAN; weights.len()]);
    for (index, span) in spans.into_iter().enumerate() {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "values were rounded to f32"
        )]
        let advantage = batch[index].advantage as f32;
        let tokens = ResponseTokens {
            policy_logprobs: &flat(&|t| t.now)[span.clone()],
            entropies: &flat(&|t| t.entropy)[span.clone()],
            full_kls: &flat(&|t| t.full_kl)[span.clone()],
            old_logprobs: &flat(&|t| t.old)[span.clone()],
            rollout_logprobs: &flat(&|t| t.rollout)[span.clone()],
            blank_logprobs: &flat(&|t| t.blank)[span.clone()],
            reference_logprobs: &flat(&|t| t.reference)[span.clone()],
            weights: &weights[span.clone()],
            advantage,
            importance,
        };
        let mut own = LossSums::default();
        let factors = normaliser.factors(index);
        response_loss(settings, &tokens, factors, &mut own, &mut gradient[span]);
        sums.add(&own);
    }
    (sums.loss(settings), gradient)
}

fn assert_equal(settings: &LossSettings, batch: &[Response], importance: Option<Importance>) {
    let (loss, gradient) = tested_loss(settings, batch, importance);
    let expected = plain_loss(settings, batch, batch, importance);
    assert!(
        (loss - expected).abs() < 1e-9 * expected.abs().max(1.0),
        "{settings:?}, {importance:?}: {loss} and {expected}"
    );
    let step = 1e-6;
    let places = batch
        .iter()
        .enumerate()
        .flat_map(|(i, response)| (0..response.tokens.len()).map(move |t| (i, t)));
    for ((response, token), gradient) in places.zip(gradient) {
        let moved = |by: f64| {
            let mut moved = batch.to_vec();
            moved[response].tokens[token].now += by;
            plain_loss(settings, &moved, batch, importance)
        };
        let (above, below) = (moved(step), moved(-step));
        let (right, left) = ((above - expected) / step, (expected - below) / step);
        // At a kink there is no derivative.
        if (right - left).abs() > 1e-3 {
            continue;
        }
        let (numeric, gradient) = ((above - below) / (2.0 * step), f64::from(gradient));
        assert!(
            (numeric - gradient).abs() < 1e-5 * numeric.abs().max(1.0),
            "{settings:?}, {importance:?}, response {response}, token {token}: {numeric} and {gradient}"
        );
    }
}

fn token() -> impl Strategy<Value = Token> {
    let near = -0.7_f64..0.7;
    let numbers = (
        near.clone(),
        near.clone(),
        -1.5_f64..1.5,
        near,
        0.0_f64..3.0,
        0.0_f64..1.0,
        -4.0_f64..-1.0,
    );
    numbers.prop_map(
        |(now, rollout, blank, reference, entropy, full_kl, old)| Token {
            now: f32s(old + now),
            old: f32s(old),
            rollout: f32s(old + rollout),
            blank: f32s(old + blank),
            reference: f32s(old + reference),
            entropy: f32s(entropy),
            full_kl: f32s(full_kl),
            weight: 1.0,
        },
    )
}

fn batch() -> impl Strategy<Value = Vec<Response>> {
    let response =
        (-2.0_f64..2.0, prop::collection::vec(token(), 1..5)).prop_map(|(advantage, tokens)| {
            Response {
                advantage: f32s(advantage),
                tokens,
            }
        });
    prop::collection::vec(response, 1..4)
}

fn importance() -> impl Strategy<Value = Option<Importance>> {
    let truncated = |scope| Importance::Truncated { scope, cap: 1.3 };
    prop_oneof![
        Just(None),
        Just(Some(truncated(Scope::Token))),
        Just(Some(truncated(Scope::Sequence))),
        Just(Some(Importance::SequenceMask {
            low: 0.8,
            high: 1.25
        })),
        Just(Some(Importance::IcePop {
            low: 0.7,
            high: 1.5
        })),
    ]
}

fn estimator() -> impl Strategy<Value = KlEstimator> {
    prop_oneof![
        Just(KlEstimator::K1),
        Just(KlEstimator::K2),
        Just(KlEstimator::K3),
        Just(KlEstimator::Abs),
        Just(KlEstimator::Full),
        Just(KlEstimator::Off)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_surrogate_aggregation_and_weighting_is_the_plain_formula(
        batch in batch(),
        importance in importance(),
        (kl_estimator, kl_coef, kl_weighted) in (estimator(), prop_oneof![Just(0.0), Just(0.3)], any::<bool>()),
        (entropy_coef, perception_kl_coef) in (-0.5_f64..0.5, prop_oneof![Just(0.0), Just(0.2)]),
        (clip_low, clip_high) in (0.05_f64..0.5, 0.05_f64..0.5),
        dual_clip in prop_oneof![Just(None), Just(Some(1.6))],
        weights in prop::collection::vec(prop_oneof![Just(0.0), Just(0.5), Just(1.0)], 12),
    ) {
        let weightings: [&dyn Fn(usize, usize) -> f64; 3] = [
            &|_, _| 1.0,
            &|response, token| weights[4 * response + token],
            // The first response has none at all.
            &|response, token| if response == 0 { 0.0 } else { weights[token] },
        ];
        for weighting in weightings {
            let mut batch = batch.clone();
            for (i, response) in batch.iter_mut().enumerate() {
                for (t, token) in response.tokens.iter_mut().enumerate() {
                    token.weight = weighting(i, t);
                }
            }
            for surrogate in SURROGATES {
                for aggregation in AGGREGATIONS {
                    for normaliser in NORMALISERS {
                        if aggregation == Aggregation::Constant && normaliser != TorNormaliser::ResponseTokens {
                            continue;
                        }
                        let settings = LossSettings {
                            surrogate,
                            clip_low,
                            clip_high,
                            dual_clip: dual_clip.filter(|_| surrogate == Surrogate::Clip),
                            sapo_tau_positive: 1.0,
                            sapo_tau_negative: 1.4,
                            kl_coef,
                            kl_estimator,
                            kl_weighted,
                            perception_kl_coef,
                            entropy_coef,
                            aggregation,
                            aggregation_length: 7,
                            normaliser,
                        };
                        assert_equal(&settings, &batch, importance);
                    }
                }
            }
        }
    }
}
