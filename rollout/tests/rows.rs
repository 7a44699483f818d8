//! The engine for a device, here on the CPU in f32, against the engine for the CPU: other operators, another cache, another
//! way to the weights, the same answers.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod fixture_model;

use std::path::{Path, PathBuf};

use fixture_model::{Model, finish};
use models::graph::{Elements, Operators};
use rollout::engine::rows::{PromptRow, ResponseRow, RowToken, Rows};
use rollout::engine::{
    Engine, EngineSettings, Haste, HeadSettings, Job, Provider, RowModel, RowSettings,
};
use rollout::sampler::{EntropyKind, Sampling, Scored, uniform};
use shared::ids::PolicyVersion;

/// Largest difference of log-probabilities between the two engines, in nats.
const TOLERANCE: f32 = 2e-3;
const MAX_TOKENS: usize = 24;
/// Prompts in the cache at a time.
const PROMPTS: usize = 2;

fn sampling(model: &Model, temperature: f32) -> Sampling {
    let mut sampling = model.settings(1, MAX_TOKENS).sampling;
    sampling.temperature = temperature;
    sampling
}

fn row_model(
    model: &Model,
    weights: &Path,
    num_rows: usize,
    candidates: usize,
    sampling: &Sampling,
) -> RowModel {
    let settings = RowSettings {
        provider: Provider::Cpu(1),
        elements: Elements::F32,
        operators: Operators::Native,
        rows: num_rows + PROMPTS + 1,
        decoded_rows: num_rows,
        slots: 256,
        candidates,
        max_wanted: 16,
    };
    let vocab_size = model.processor.config.text.vocab_size;
    let head = HeadSettings::new(sampling, vocab_size);
    RowModel::load(&model.processor.config, weights, settings, head).unwrap()
}

fn rows(
    model: &Model,
    weights: &Path,
    num_rows: usize,
    candidates: usize,
    sampling: &Sampling,
) -> Rows {
    let row_model = row_model(model, weights, num_rows, candidates, sampling);
    Rows::new(row_model, sampling.clone())
}

fn settings(model: &Model, sampling: &Sampling) -> EngineSettings {
    EngineSettings {
        sampling: sampling.clone(),
        ..model.settings(8, MAX_TOKENS)
    }
}

/// A response under way.
struct Open<'a> {
    job: &'a Job,
    index: usize,
    row: ResponseRow,
    tokens: Vec<Scored>,
}

impl Open<'_> {
    fn uniform(&self) -> f64 {
        uniform(
            5,
            self.job.ticket.0,
            self.index as u64,
            self.tokens.len() as u64,
        )
    }
}

/// All responses of all jobs in order, as many side by side as there are rows: some prompts wait, and rows are used again.
fn generate(
    rows: &mut Rows,
    jobs: &[Job],
    eos: &[u32],
    first: impl Fn(&[f32], f64) -> Scored,
) -> Vec<Vec<Scored>> {
    let mut done: Vec<(u64, usize, Vec<Scored>)> = Vec::new();
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut jobs = jobs.iter();
    let mut next: Option<(&Job, PromptRow, Vec<f32>, usize)> = None;
    loop {
        loop {
            if next.is_none() {
                let Some(job) = jobs.next() else { break };
                let (prompt, logits) = rows.prefill(&job.prompt).unwrap().unwrap();
                next = Some((job, prompt, logits, 0));
            }
            let (job, prompt, logits, index) = next.take().unwrap();
            let Some(row) = rows.seat(&prompt).unwrap() else {
                next = Some((job, prompt, logits, index));
                break;
            };
            let mut response = Open {
                job,
                index,
                row,
                tokens: Vec::new(),
            };
            response.tokens.push(first(&logits, response.uniform()));
            open.push(response);
            if index + 1 < job.group_size {
                next = Some((job, prompt, logits, index + 1));
            } else {
                rows.give_back_prompt(prompt);
            }
        }
        let is_over = |tokens: &[Scored]| {
            tokens.len() == MAX_TOKENS || eos.contains(&tokens.last().unwrap().token)
        };
        let (over, rest): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|open| is_over(&open.tokens));
        open = rest;
        for response in over {
            done.push((response.job.ticket.0, response.index, response.tokens));
            rows.give_back(response.row);
        }
        if open.is_empty() {
            if next.is_none() && jobs.len() == 0 {
                break;
            }
            continue;
        }
        let tokens: Vec<RowToken<'_>> = open
            .iter()
            .map(|open| {
                let read = open.tokens.len() - 1;
                RowToken {
                    row: &open.row,
                    token_id: open.tokens[read].token,
                    slot: open.job.prompt.len() + read,
                    position: open.job.prompt.positions.next + read as i64,
                    uniform: Some(open.uniform()),
                }
            })
            .collect();
        let drawn = rows.decode(&tokens).unwrap();
        for (open, token) in open.iter_mut().zip(drawn) {
            open.tokens.push(token);
        }
    }
    done.sort_by_key(|&(ticket, index, _)| (ticket, index));
    done.into_iter().map(|(.., tokens)| tokens).collect()
}

fn greedily(
    rows: &mut Rows,
    model: &Model,
    group_size: usize,
    sampling: &Sampling,
) -> Vec<Vec<Scored>> {
    let eos = &model.processor.config.tokens.eos;
    let first = |logits: &[f32], _: f64| {
        rollout::sampler::Sampler::new(sampling.clone())
            .likeliest(logits)
            .unwrap()
    };
    generate(rows, &model.jobs(group_size), eos, first)
}

fn ids(tokens: &[Scored]) -> Vec<u32> {
    tokens.iter().map(|token| token.token).collect()
}

fn assert_close(what: &str, got: &[Scored], logprobs: &[f32], entropies: &[f32]) -> f32 {
    assert_eq!(got.len(), logprobs.len(), "{what}");
    let mut largest = 0.0_f32;
    for (index, token) in got.iter().enumerate() {
        let difference = (token.logprob - logprobs[index]).abs();
        assert!(
            difference < TOLERANCE,
            "{what}, token {index}: logprob {difference} apart"
        );
        let entropy = (token.entropy - entropies[index]).abs();
        assert!(
            entropy < TOLERANCE,
            "{what}, token {index}: entropy {entropy} apart"
        );
        largest = largest.max(difference);
    }
    largest
}

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

#[test]
fn weights_replaced_in_place_are_those_of_a_fresh_start() {
    let model = Model::load();
    let sampling = sampling(&model, 0.0);
    let folder = tempfile::tempdir().unwrap();
    let other = changed_weights(&model.weights, folder.path());
    let mut rows = rows(&model, &model.weights, 3, 64, &sampling);
    let before = greedily(&mut rows, &model, 1, &sampling);
    rows.model_mut().replace_weights(&other).unwrap();
    let after = greedily(&mut rows, &model, 1, &sampling);
    let mut fresh = self::rows(&model, &other, 3, 64, &sampling);
    let fresh = greedily(&mut fresh, &model, 1, &sampling);
    assert_eq!(after, fresh);
    assert_ne!(after, before);
    let loaded = model.loader.load(&other, Haste::Now).unwrap();
    let mut engine = Engine::new(settings(&model, &sampling), loaded, PolicyVersion(0)).unwrap();
    model
        .jobs(1)
        .into_iter()
        .for_each(|job| engine.submit(job).unwrap());
    for (got, expected) in after.iter().zip(finish(&mut engine)) {
        let expected = &expected.responses[0];
        assert_eq!(ids(got), expected.token_ids);
        assert_close(
            "changed",
            got,
            &expected.rollout_logprobs,
            &expected.entropies,
        );
    }
    // A file that is not this model's changes nothing.
    let wrong = folder.path().join("wrong");
    std::fs::create_dir(&wrong).unwrap();
    let wrong = wrong.join("model.safetensors");
    std::fs::write(&wrong, b"no weights").unwrap();
    let error = rows
        .model_mut()
        .replace_weights(&wrong)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model.safetensors") && !error.contains('\n'),
        "{error}"
    );
    assert_eq!(greedily(&mut rows, &model, 1, &sampling), after);
}

/// The same file with every weight a little larger.
fn changed_weights(weights: &Path, folder: &Path) -> PathBuf {
    let mut bytes = std::fs::read(weights).unwrap();
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    for word in bytes[8 + header..].as_chunks_mut::<4>().0 {
        *word = (f32::from_le_bytes(*word) * 1.03).to_le_bytes();
    }
    let path = folder.join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_engines_loop_is_the_same_over_rows() {
    let model = Model::load();
    let sampling = sampling(&model, 0.0);
    let mut engine = model.engine(settings(&model, &sampling));
    for job in model.jobs(4) {
        engine.submit(job).unwrap();
    }
    let expected = finish(&mut engine);
    for num_rows in [1, 3, 16] {
        let device = row_model(&model, &model.weights, num_rows, 64, &sampling);
        let mut engine = Engine::on_device(settings(&model, &sampling), device, PolicyVersion(3));
        for job in model.jobs(4) {
            engine.submit(job).unwrap();
        }
        let got = finish(&mut engine);
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!(got.ticket, expected.ticket);
            assert_eq!(got.responses.len(), 4);
            for (got, expected) in got.responses.iter().zip(&expected.responses) {
                assert_eq!(got.token_ids, expected.token_ids, "{num_rows} rows");
                assert_eq!(got.finish_reason, expected.finish_reason);
                assert_eq!(got.last_version, PolicyVersion(3));
                let streams = [
                    (&got.rollout_logprobs, &expected.rollout_logprobs),
                    (&got.entropies, &expected.entropies),
                    (&got.blank_logprobs, &expected.blank_logprobs),
                    (&got.blank_entropies, &expected.blank_entropies),
                ];
                for (got, expected) in streams {
                    assert_eq!(got.len(), expected.len());
                    let close = |(got, expected): (&f32, &f32)| (got - expected).abs() < TOLERANCE;
                    assert!(
                        got.iter().zip(expected).all(close),
                        "{got:?}, not {expected:?}"
                    );
                }
            }
        }
        assert!(engine.is_idle() && engine.has_room());
        engine
            .replace_weights(&model.weights, PolicyVersion(4))
            .unwrap();
        assert_eq!(engine.version(), PolicyVersion(4));
    }
}

#[test]
fn a_layout_in_which_nothing_could_run_is_refused() {
    let model = Model::load();
    let config = &model.processor.config;
    let sampling = sampling(&model, 1.0);
    let good = RowSettings {
        provider: Provider::Cpu(1),
        elements: Elements::F32,
        operators: Operators::Native,
        rows: 4,
        decoded_rows: 2,
        slots: 64,
        candidates: 4,
        max_wanted: 16,
    };
    let few = RowSettings {
        rows: 3,
        ..good.clone()
    };
    let half = RowSettings {
        elements: Elements::Bf16,
        ..good
    };
    for (settings, reason) in [(few, "2 responses need 4 rows"), (half, "use f32")] {
        let head = HeadSettings::new(&sampling, config.text.vocab_size);
        let refused = RowModel::load(config, &model.weights, settings, head).unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    // Longer than a row.
    let device = row_model(&model, &model.weights, 1, 4, &sampling);
    let settings = EngineSettings {
        max_response_tokens: 250,
        ..settings(&model, &sampling)
    };
    let mut engine = Engine::on_device(settings, device, PolicyVersion(0));
    let refused = engine
        .submit(model.jobs(1).remove(0))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("--max-response-tokens"), "{refused}");
}
