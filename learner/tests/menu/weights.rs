//! `--token-weights` with its keys, and `--perception-signal`.

use clap::ValueEnum;
use learner::batch::Batch;
use learner::token_weights::TokenWeights;
use shared::config::{PerceptionSignal, TokenWeighting};
use shared::ids::{PolicyVersion, Ticket};
use shared::record::{FinishReason, GroupRecord, Precision, ResponseRecord, Reward};

use super::{Numbers, config};

fn batch(seed: u64) -> Batch {
    let mut numbers = Numbers(seed);
    let groups = (0..4).map(|ticket| GroupRecord {
        ticket: Ticket(ticket),
        sample_id: String::new(),
        prompt_ids: vec![1],
        images: Vec::new(),
        temperature: 1.0,
        precision: Precision::F32,
        greedy_reward: None,
        responses: (0..3).map(|_| response(&mut numbers)).collect(),
    });
    Batch::new(groups.collect())
}

/// No two of its tokens have equal scores (ties have a test of their own), and none is so large that k3 is clamped.
fn response(numbers: &mut Numbers) -> ResponseRecord {
    let len = numbers.count(12);
    let mut stream = |scale: f32| (0..len).map(|_| scale * numbers.small()).collect();
    ResponseRecord {
        token_ids: vec![1; len],
        finish_reason: FinishReason::Stop,
        first_version: PolicyVersion(0),
        last_version: PolicyVersion(0),
        reward: Reward {
            total: 0.0,
            accuracy: 0.0,
            format: 0.0,
            overlong: 0.0,
        },
        logprobs: stream(-2.0),
        blank_logprobs: stream(-2.2),
        entropies: stream(2.0),
        blank_entropies: stream(2.5),
    }
}

/// What a line of arguments means, in numbers.
struct Meaning {
    /// Weight of a token by whether it reasons and whether it perceives.
    weight: fn(bool, bool) -> f64,
    rho_reasoning: f64,
    rho_perception: f64,
    is_per_response: bool,
    signal: PerceptionSignal,
    /// Lowest and highest factor of VPPO's advantages; no highest is the one that makes the mean 1.
    vppo: Option<(f64, Option<f64>)>,
}

const TOR: Meaning = Meaning {
    weight: |reasons, perceives| match (reasons, perceives) {
        (true, _) => 1.0,
        (false, true) => 0.5,
        _ => 0.0,
    },
    rho_reasoning: 0.3,
    rho_perception: 0.3,
    is_per_response: false,
    signal: PerceptionSignal::LogpDiff,
    vppo: None,
};

fn member(is_in: bool) -> f64 {
    if is_in { 1.0 } else { 0.0 }
}

/// The weightings as they are without any further key.
fn meaning(weighting: TokenWeighting) -> Meaning {
    match weighting {
        TokenWeighting::Tor => TOR,
        TokenWeighting::ReasoningOnly => Meaning {
            weight: |reasons, _| member(reasons),
            ..TOR
        },
        TokenWeighting::PerceptionOnly => Meaning {
            weight: |_, perceives| member(perceives),
            ..TOR
        },
        TokenWeighting::Entropy => Meaning {
            weight: |reasons, _| member(reasons),
            rho_reasoning: 0.2,
            ..TOR
        },
        TokenWeighting::Vppo => Meaning {
            weight: |_, perceives| member(perceives),
            rho_perception: 0.4,
            is_per_response: true,
            signal: PerceptionSignal::K3,
            vppo: Some((0.9, None)),
            ..TOR
        },
        TokenWeighting::None => Meaning {
            weight: |_, _| 1.0,
            ..TOR
        },
    }
}

fn sensitivities(batch: &Batch, signal: PerceptionSignal) -> Vec<f64> {
    let of = |stream: &[f32], token: usize| f64::from(stream[token]);
    (0..batch.num_tokens())
        .map(|token| {
            let image = of(&batch.rollout_logprobs, token);
            let blank = of(&batch.blank_logprobs, token);
            match signal {
                PerceptionSignal::LogpDiff => (image - blank).abs(),
                PerceptionSignal::ProbDiff => (image.exp() - blank.exp()).abs(),
                PerceptionSignal::EntropyDiff => {
                    (of(&batch.entropies, token) - of(&batch.blank_entropies, token)).abs()
                }
                PerceptionSignal::Signed => image - blank,
                PerceptionSignal::K3 => (blank - image).exp() - (blank - image) - 1.0,
            }
        })
        .collect()
}

/// In are those that fewer than ceil(rho N) others surpass.
fn top(scores: &[f64], rho: f64) -> Vec<bool> {
    let size = (rho * scores.len() as f64 - 1e-9).ceil();
    let surpassing = |own: f64| scores.iter().filter(|score| **score > own).count() as f64;
    scores.iter().map(|&own| surpassing(own) < size).collect()
}

fn members(batch: &Batch, scores: &[f64], rho: f64, is_per_response: bool) -> Vec<bool> {
    if !is_per_response {
        return top(scores, rho);
    }
    let responses = batch.responses.iter();
    responses
        .flat_map(|response| top(&scores[response.tokens.clone()], rho))
        .collect()
}

fn vppo_factors(batch: &Batch, scores: &[f64], (low, high): (f64, Option<f64>)) -> Vec<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let responses = batch.responses.iter();
    let means: Vec<f64> = responses
        .map(|response| mean(&scores[response.tokens.clone()]))
        .collect();
    let least = means.iter().copied().fold(f64::MAX, f64::min);
    let most = means.iter().copied().fold(f64::MIN, f64::max);
    let places: Vec<f64> = means.iter().map(|m| (m - least) / (most - least)).collect();
    let high = high.unwrap_or(low + (1.0 - low) / mean(&places));
    let factor = |place: &f64| low + (high - low) * place;
    places.iter().map(factor).collect()
}

fn assert_equal(args: &[&str], meaning: &Meaning) {
    let config = config(args);
    for seed in 0..10 {
        let batch = batch(seed);
        let got = TokenWeights::of(&batch, &config.learner.tokens, &config.resolved(), seed);
        let entropies: Vec<f64> = batch.entropies.iter().map(|&h| f64::from(h)).collect();
        let scores = sensitivities(&batch, meaning.signal);
        let is_per_response = meaning.is_per_response;
        let reasoning = members(&batch, &entropies, meaning.rho_reasoning, is_per_response);
        let perception = members(&batch, &scores, meaning.rho_perception, is_per_response);
        for (token, got) in got.weights.iter().enumerate() {
            let expected = (meaning.weight)(reasoning[token], perception[token]);
            assert!(
                (f64::from(*got) - expected).abs() < 1e-7,
                "{args:?}, token {token}: {got}, not {expected}"
            );
        }
        let expected = match meaning.vppo {
            Some(range) => vppo_factors(&batch, &scores, range),
            None => Vec::new(),
        };
        assert_eq!(got.advantage_factors.len(), expected.len(), "{args:?}");
        for (got, expected) in got.advantage_factors.iter().zip(expected) {
            let difference = (f64::from(*got) - expected).abs();
            assert!(difference < 1e-5, "{args:?}: {got}, not {expected}");
        }
    }
}

#[test]
fn every_weighting_is_its_rule() {
    assert_equal(&[], &TOR);
    assert_equal(&["--no-tor"], &meaning(TokenWeighting::None));
    for weighting in TokenWeighting::value_variants() {
        let name = weighting.to_possible_value().unwrap();
        assert_equal(&["--token-weights", name.get_name()], &meaning(*weighting));
    }
}

#[test]
fn every_key_has_its_place() {
    let other_weights = Meaning {
        weight: |reasons, perceives| match (reasons, perceives) {
            (true, _) => 2.0,
            (false, true) => 0.25,
            _ => 0.0,
        },
        rho_reasoning: 0.55,
        rho_perception: 0.55,
        ..TOR
    };
    assert_equal(
        &["--alpha", "2", "--beta", "0.25", "--rho", "0.55"],
        &other_weights,
    );
    let each = Meaning {
        rho_reasoning: 0.2,
        rho_perception: 0.6,
        is_per_response: true,
        ..TOR
    };
    let args = ["--rho-reasoning", "0.2", "--rho-perception", "0.6"];
    assert_equal(&[&args[..], &["--tor-scope", "response"]].concat(), &each);
    // The paper's Tables 1 and 2 at other shares; alpha 0 and beta 0 are other words for them.
    for rho in ["0.2", "0.8", "1"] {
        for weighting in [
            TokenWeighting::ReasoningOnly,
            TokenWeighting::PerceptionOnly,
        ] {
            let share = rho.parse().unwrap();
            let selected = Meaning {
                rho_reasoning: share,
                rho_perception: share,
                ..meaning(weighting)
            };
            let name = weighting.to_possible_value().unwrap();
            let args = ["--token-weights", name.get_name(), "--rho", rho];
            assert_equal(&args, &selected);
        }
    }
    let reasoning = meaning(TokenWeighting::ReasoningOnly);
    assert_equal(&["--beta", "0"], &reasoning);
    let shaped = Meaning {
        vppo: Some((0.5, Some(1.5))),
        ..meaning(TokenWeighting::Vppo)
    };
    let args = ["--token-weights", "vppo", "--vppo-min", "0.5"];
    assert_equal(&[&args[..], &["--vppo-max", "1.5"]].concat(), &shaped);
}

#[test]
fn every_perception_signal_is_its_formula() {
    for signal in PerceptionSignal::value_variants() {
        let name = signal.to_possible_value().unwrap();
        let proxied = Meaning {
            signal: *signal,
            ..TOR
        };
        assert_equal(&["--perception-signal", name.get_name()], &proxied);
    }
}
