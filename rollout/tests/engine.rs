//! The engine on the fixture model: what a response says may depend on nothing but its prompt and its random stream.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod fixture_model;

use fixture_model::{Model, finish};
use rollout::engine::{Haste, Job, Response};
use shared::ids::PolicyVersion;
use shared::record::FinishReason;

fn responses(model: &Model, rows: usize, group_size: usize, max_tokens: usize) -> Vec<Response> {
    let mut engine = model.engine(model.settings(rows, max_tokens));
    model
        .jobs(group_size)
        .into_iter()
        .for_each(|job| engine.submit(job).unwrap());
    finish(&mut engine)
        .into_iter()
        .flat_map(|group| group.responses)
        .collect()
}

#[test]
fn responses_do_not_depend_on_the_rows_in_flight() {
    let model = Model::load();
    let alone = responses(&model, 1, 4, 40);
    assert_eq!(alone.len(), 20);
    for rows in [2, 3, 7, 16, 64] {
        let together = responses(&model, rows, 4, 40);
        for (index, (one, other)) in alone.iter().zip(&together).enumerate() {
            assert_eq!(
                one.token_ids, other.token_ids,
                "response {index} with {rows} rows"
            );
            assert_eq!(
                one, other,
                "statistics of response {index} with {rows} rows"
            );
        }
    }
}

#[test]
fn decoding_agrees_with_teacher_forcing() {
    let model = Model::load();
    let mut engine = model.engine(model.settings(8, 120));
    let jobs = model.jobs(3);
    let prompts: Vec<_> = jobs
        .iter()
        .map(|job| (job.prompt.clone(), job.blank.clone()))
        .collect();
    jobs.into_iter().for_each(|job| engine.submit(job).unwrap());
    let groups = finish(&mut engine);
    let mut largest = 0.0_f32;
    for (group, (prompt, blank)) in groups.iter().zip(&prompts) {
        let token_ids: Vec<&[u32]> = group
            .responses
            .iter()
            .map(|response| response.token_ids.as_slice())
            .collect();
        let scored = engine.score(prompt, &token_ids).unwrap();
        for (response, scored) in group.responses.iter().zip(scored) {
            for (index, token) in scored.iter().enumerate() {
                assert_eq!(token.token, response.token_ids[index]);
                let difference = (token.logprob - response.rollout_logprobs[index]).abs();
                let entropy = (token.entropy - response.entropies[index]).abs();
                largest = largest.max(difference);
                // The same arithmetic in the same order, however the tokens came.
                assert_eq!(difference, 0.0, "logprob {index}");
                // A token at the nucleus's edge may fall on the other side; its weight bounds the effect.
                assert!(entropy < 1e-3, "entropy {index}: {entropy}");
            }
            // The blank streams are another prompt's, but for a prompt without an image.
            let differs = response.blank_logprobs != response.rollout_logprobs;
            assert_eq!(differs, blank.is_some());
            assert_eq!(response.blank_logprobs.len(), response.token_ids.len());
            assert_eq!(response.blank_entropies.len(), response.token_ids.len());
        }
    }
    println!("largest |decoded - teacher-forced| = {largest:e}");
}

#[test]
fn responses_stop_at_the_end_token_or_at_the_limit_and_show_no_vision_token() {
    let model = Model::load();
    let tokens = &model.processor.config.tokens;
    for response in responses(&model, 16, 8, 200) {
        let (last, body) = response.token_ids.split_last().unwrap();
        assert!(body.iter().all(|id| !tokens.eos.contains(id)));
        match response.finish_reason {
            FinishReason::Stop => assert!(tokens.eos.contains(last)),
            FinishReason::Length => assert_eq!(response.token_ids.len(), 200),
        }
        assert!(
            response
                .token_ids
                .iter()
                .all(|id| !tokens.banned().contains(id))
        );
        assert!(
            response
                .rollout_logprobs
                .iter()
                .all(|&logprob| logprob <= 0.0)
        );
    }
}

#[test]
fn a_greedy_response_beside_others_is_what_greedy_decoding_alone_says() {
    let model = Model::load();
    let mut settings = model.settings(1, 40);
    settings.sampling.temperature = 0.0;
    let mut engine = model.engine(settings);
    for job in model.jobs(1) {
        engine.submit(job).unwrap();
    }
    let alone = finish(&mut engine);
    let without = responses(&model, 5, 3, 40);
    assert!(alone.iter().all(|group| group.greedy.is_none()));
    for rows in [1, 3, 16] {
        let mut engine = model.engine(model.settings(rows, 40));
        for job in model.jobs(3) {
            let has_greedy = true;
            engine.submit(Job { has_greedy, ..job }).unwrap();
        }
        let groups = finish(&mut engine);
        for (group, alone) in groups.iter().zip(&alone) {
            let (greedy, alone) = (group.greedy.as_ref().unwrap(), &alone.responses[0]);
            assert_eq!(greedy.token_ids, alone.token_ids, "{rows} rows");
            assert_eq!(greedy.finish_reason, alone.finish_reason);
            assert_eq!(greedy.rollout_logprobs, alone.rollout_logprobs);
            assert!(greedy.blank_logprobs.is_empty());
        }
        // The others are as without it.
        let others: Vec<Response> = groups.into_iter().flat_map(|g| g.responses).collect();
        assert_eq!(others, without, "{rows} rows");
    }
}

#[test]
fn new_weights_may_come_between_two_steps() {
    let model = Model::load();
    let mut engine = model.engine(model.settings(4, 30));
    model
        .jobs(2)
        .into_iter()
        .for_each(|job| engine.submit(job).unwrap());
    for _ in 0..5 {
        engine.step().unwrap();
    }
    let same = model.loader.load(&model.weights, Haste::Background);
    engine.set_weights(same.unwrap(), PolicyVersion(1)).unwrap();
    let same_weights = responses(&model, 4, 2, 30);
    let groups = finish(&mut engine);
    let versions: Vec<_> = groups
        .iter()
        .flat_map(|g| &g.responses)
        .map(|r| (r.first_version.0, r.last_version.0))
        .collect();
    assert!(
        versions.contains(&(0, 1)) && versions.contains(&(1, 1)),
        "{versions:?}"
    );
    for (ours, expected) in groups.iter().flat_map(|g| &g.responses).zip(&same_weights) {
        assert_eq!(ours.token_ids, expected.token_ids);
    }
}
