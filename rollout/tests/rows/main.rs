//! The engine for a device, here on the CPU in f32, against the engine for the CPU: other operators, another cache, another
//! way to the weights, the same answers.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod engine;
#[path = "../fixture_model/mod.rs"]
mod fixture_model;
mod forms;
mod generation;
mod gpu;
mod setup;
mod weights;

use fixture_model::{Model, finish};
use generation::{generate, greedily};
use rollout::sampler::{EntropyKind, Sampling};
use setup::{assert_close, ids, rows, sampling, settings};

#[test]
fn greedy_responses_are_those_of_the_engine() {
    let model = Model::load();
    let sampling = sampling(&model, 0.0);
    let mut engine = model.engine(settings(&model, &sampling));
    model
        .jobs(1)
        .into_iter()
        .for_each(|job| engine.submit(job).unwrap());
    let expected = finish(&mut engine);
    for (num_rows, group_size) in [(1, 1), (3, 2), (16, 5)] {
        let mut rows = rows(&model, &model.weights, num_rows, 64, &sampling);
        let got = greedily(&mut rows, &model, group_size, &sampling);
        assert_eq!(got.len(), expected.len() * group_size);
        let mut largest = 0.0_f32;
        for (index, got) in got.iter().enumerate() {
            let expected = &expected[index / group_size].responses[0];
            let what = format!("response {index}, {num_rows} rows");
            assert_eq!(ids(got), expected.token_ids, "{what}");
            let (logprobs, entropies) = (&expected.rollout_logprobs, &expected.entropies);
            largest = largest.max(assert_close(&what, got, logprobs, entropies));
        }
        println!(
            "{num_rows} rows: logprobs {largest:e} apart, {} fetched",
            rows.num_fetched()
        );
    }
}

#[test]
fn scores_are_those_of_the_engine_with_and_without_the_image() {
    let model = Model::load();
    let sampling = sampling(&model, 1.0);
    let mut engine = model.engine(settings(&model, &sampling));
    model
        .jobs(3)
        .into_iter()
        .for_each(|job| engine.submit(job).unwrap());
    let mut rows = rows(&model, &model.weights, 1, 64, &sampling);
    for (group, job) in finish(&mut engine).iter().zip(model.jobs(3)) {
        let responses = group.responses.iter();
        let tokens: Vec<&[u32]> = responses
            .map(|response| response.token_ids.as_slice())
            .collect();
        let seen = rows.score(&job.prompt, &tokens).unwrap();
        for (got, expected) in seen.iter().zip(&group.responses) {
            assert_close("seen", got, &expected.rollout_logprobs, &expected.entropies);
        }
        let Some(blank) = &job.blank else { continue };
        let blank = rows.score(blank, &tokens).unwrap();
        assert_ne!(blank, seen);
        for (got, expected) in blank.iter().zip(&group.responses) {
            assert_close(
                "blank",
                got,
                &expected.blank_logprobs,
                &expected.blank_entropies,
            );
        }
    }
}

#[test]
fn what_is_drawn_is_scored_the_same_however_few_the_candidates() {
    let model = Model::load();
    for (candidates, entropy) in [
        (1, EntropyKind::Full),
        (4, EntropyKind::Renormalised),
        (256, EntropyKind::Full),
    ] {
        let sampling = Sampling {
            entropy,
            ..sampling(&model, 1.0)
        };
        let mut engine = model.engine(settings(&model, &sampling));
        let mut rows = rows(&model, &model.weights, 3, candidates, &sampling);
        let first = |logits: &[f32], uniform: f64| {
            rollout::sampler::Sampler::new(sampling.clone())
                .sample(logits, uniform)
                .unwrap()
        };
        let jobs = model.jobs(2);
        let drawn = generate(&mut rows, &jobs, &model.processor.config.tokens.eos, first);
        println!(
            "{candidates} candidates: {} rows fetched",
            rows.num_fetched()
        );
        if candidates < 256 {
            assert!(
                rows.num_fetched() > 2 * jobs.len() as u64,
                "no draw fell beyond the candidates"
            );
        }
        for (job, drawn) in jobs.iter().zip(drawn.chunks(2)) {
            let tokens: Vec<Vec<u32>> = drawn.iter().map(|tokens| ids(tokens)).collect();
            let tokens: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
            let scored = engine.score(&job.prompt, &tokens).unwrap();
            for (got, expected) in drawn.iter().zip(scored) {
                let logprobs: Vec<f32> = expected.iter().map(|token| token.logprob).collect();
                let entropies: Vec<f32> = expected.iter().map(|token| token.entropy).collect();
                assert_close("drawn", got, &logprobs, &entropies);
                assert!(
                    got.iter()
                        .all(|token| !sampling.banned.contains(&token.token))
                );
            }
        }
    }
}
