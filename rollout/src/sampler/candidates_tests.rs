//! Draws from heads: the shares of the row, and what asks for the row.
#![expect(clippy::cast_possible_truncation, reason = "what a head says is f32")]

use super::*;
use crate::sampler::{Distribution, Sampling, uniform};

const VOCAB: usize = 200;

fn sampling(top_p: f32, top_k: usize) -> Sampling {
    Sampling {
        temperature: 0.8,
        top_p,
        top_k,
        entropy: EntropyKind::Full,
        nucleus_p: 0.95,
        banned: vec![3, 50],
        num_tokens: 190,
    }
}

/// What may be drawn: tokens that are not banned, of those the first `top_k`, and of these the nucleus.
fn allowed(sampling: &Sampling, logits: &[f32]) -> [Vec<usize>; 2] {
    let is_banned = |id: usize| id >= sampling.num_tokens || id == 3 || id == 50;
    let mut of_top_k: Vec<usize> = (0..VOCAB).filter(|&id| !is_banned(id)).collect();
    of_top_k.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    if sampling.top_k > 0 {
        of_top_k.truncate(sampling.top_k);
    }
    let weight = |&id: &usize| f64::from(logits[id] / sampling.temperature).exp();
    let target = f64::from(sampling.top_p) * of_top_k.iter().map(weight).sum::<f64>();
    let mut before = 0.0;
    let is_within = |id: &&usize| {
        let is_within = sampling.top_p >= 1.0 || before < target;
        before += weight(id);
        is_within
    };
    let nucleus = of_top_k.iter().take_while(is_within).copied().collect();
    [of_top_k, nucleus]
}

fn logits() -> Vec<f32> {
    let number = |id| 6.0 * uniform(4, id, 0, 0) as f32 - 3.0;
    (0..VOCAB as u64).map(number).collect()
}

/// Draws as the engine does: from the head of `candidates`, and from the row where the head does not settle it.
fn draws(sampling: &Sampling, candidates: usize, count: usize) -> (Vec<usize>, usize) {
    let logits = logits();
    let mut sampler = Sampler::new(sampling.clone());
    let temperature = f64::from(sampling.temperature);
    let mut distribution = Distribution::new();
    distribution.load(&logits, temperature).unwrap();
    let nucleus_p = f64::from(sampling.nucleus_p);
    let [raw, renormalised] = [EntropyKind::Raw, EntropyKind::Renormalised]
        .map(|kind| distribution.entropy(&logits, kind, nucleus_p) as f32);
    let mut order: Vec<usize> = (0..VOCAB).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.truncate(candidates);
    let ids: Vec<i32> = order.iter().map(|&id| i32::try_from(id).unwrap()).collect();
    let candidate_logits: Vec<f32> = order.iter().map(|&id| logits[id]).collect();
    let share = |id: usize| distribution.logprob(logits[id]).exp();
    let banned = (0..VOCAB).filter(|&id| id >= sampling.num_tokens || id == 3 || id == 50);
    let largest = f64::from(candidate_logits[0]) / temperature;
    let head = RowHead {
        log_total: (-distribution.logprob(0.0) - largest) as f32,
        chosen_logprob: 0.0,
        entropy: distribution.full_entropy(&logits) as f32,
        banned_mass: banned.map(share).sum::<f64>() as f32,
        candidate_mass: order.iter().map(|&id| share(id)).sum::<f64>() as f32,
        nucleus_entropy: raw,
        renormalised_entropy: renormalised,
        candidate_ids: &ids,
        candidate_logits: &candidate_logits,
    };
    let (mut counts, mut fetched) = (vec![0; VOCAB], 0);
    for index in 0..count {
        let number = uniform(9, index as u64, 0, 0);
        let drawn = match sampler.draw_candidates(&head, Some(number)) {
            Draw::Token(drawn) => drawn,
            other => {
                fetched += 1;
                match other {
                    Draw::Beyond(rest) => sampler.sample_beyond(&logits, &ids, rest).unwrap(),
                    _ => sampler.sample(&logits, number).unwrap(),
                }
            }
        };
        let whole = sampler.score(&logits, drawn.token).unwrap();
        assert!((whole.logprob - drawn.logprob).abs() < 1e-5);
        assert!((whole.entropy - drawn.entropy).abs() < 1e-5);
        counts[drawn.token as usize] += 1;
    }
    (counts, fetched)
}

#[test]
fn draws_from_a_head_are_distributed_as_those_from_the_row() {
    for (entropy, count) in [
        (EntropyKind::Full, 200_000),
        (EntropyKind::Raw, 20_000),
        (EntropyKind::Renormalised, 20_000),
    ] {
        are_distributed_as_those_from_the_row(entropy, count);
    }
}

fn are_distributed_as_those_from_the_row(entropy: EntropyKind, count: usize) {
    for (top_p, top_k) in [(1.0, 0), (0.5, 0), (1.0, 20), (0.7, 20)] {
        let sampling = Sampling {
            entropy,
            ..sampling(top_p, top_k)
        };
        let logits = logits();
        let [of_top_k, nucleus] = allowed(&sampling, &logits);
        let mut whole = Sampler::new(sampling.clone());
        let mut expected = vec![0_usize; VOCAB];
        for index in 0..count {
            let number = uniform(8, index as u64, 0, 0);
            expected[whole.sample(&logits, number).unwrap().token as usize] += 1;
        }
        for candidates in [1, 16, 60, VOCAB] {
            let (counts, fetched) = draws(&sampling, candidates, count);
            println!("p {top_p}, k {top_k}, {candidates} candidates: {fetched} rows fetched");
            assert!(candidates != VOCAB || fetched == 0, "{fetched}");
            assert!(candidates > 16 || top_p < 0.6 && candidates > 1 || fetched > 0);
            for (id, (&got, &expected)) in counts.iter().zip(&expected).enumerate() {
                let noise = (got.max(expected).max(1) as f64).sqrt() * 2.0_f64.sqrt();
                let difference = (got as f64 - expected as f64).abs();
                assert!(difference <= 5.5 * noise, "{id}: {got}, not {expected}");
                let may_be =
                    of_top_k.contains(&id) && (candidates < VOCAB || nucleus.contains(&id));
                assert!(may_be || got == 0, "{id} may not be drawn: {got}");
            }
        }
    }
}

#[test]
fn the_likeliest_candidate_that_is_allowed_is_taken() {
    let mut sampling = sampling(1.0, 0);
    sampling.temperature = 0.0;
    let ids = [50, 195, 7, 9];
    let candidate_logits = [5.0, 4.0, 3.0, 2.0];
    let mut head = RowHead {
        log_total: 0.5,
        chosen_logprob: -1.0,
        entropy: 1.0,
        banned_mass: 0.9,
        candidate_mass: 1.0,
        nucleus_entropy: 0.3,
        renormalised_entropy: 0.4,
        candidate_ids: &ids,
        candidate_logits: &candidate_logits,
    };
    let sampler = Sampler::new(sampling);
    let expected = scored(7, -2.5, 1.0);
    assert_eq!(sampler.draw_candidates(&head, None), Draw::Token(expected));
    head.candidate_ids = &ids[..2];
    assert_eq!(sampler.draw_candidates(&head, None), Draw::Row);
}

#[test]
fn what_the_head_cannot_say_asks_for_the_row() {
    let mut sampling = sampling(1.0, 0);
    sampling.entropy = EntropyKind::Renormalised;
    let sampler = Sampler::new(sampling);
    let mut head = RowHead {
        log_total: 0.5,
        chosen_logprob: -1.0,
        entropy: 1.0,
        banned_mass: 0.0,
        candidate_mass: 0.94,
        nucleus_entropy: 0.3,
        renormalised_entropy: 0.4,
        candidate_ids: &[7],
        candidate_logits: &[1.0],
    };
    assert_eq!(sampler.draw_candidates(&head, Some(0.1)), Draw::Row);
    assert_eq!(sampler.score_candidates(&head, 7), None);
    head.candidate_mass = 0.96;
    assert_eq!(
        sampler.score_candidates(&head, 7),
        Some(scored(7, -1.0, 0.4))
    );
    assert_ne!(sampler.draw_candidates(&head, Some(0.1)), Draw::Row);
    for broken in [f32::NAN, f32::INFINITY] {
        let entropy = RowHead {
            entropy: broken,
            ..head
        };
        let log_total = RowHead {
            log_total: broken,
            ..head
        };
        for head in [entropy, log_total] {
            assert_eq!(sampler.draw_candidates(&head, Some(0.1)), Draw::Row);
            assert_eq!(sampler.score_candidates(&head, 7), None);
        }
    }
}
