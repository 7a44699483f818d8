//! `--precision int8` on the fixture model: the same promises as in f32, and how far its policy is from the f32 one.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod fixture_model;

use fixture_model::{Model, finish};
use rollout::engine::{Engine, FinishedGroup, PromptInputs};
use shared::record::Precision;

fn groups(model: &Model, rows: usize) -> Vec<FinishedGroup> {
    let mut engine = model.engine(model.settings(rows, 40));
    for job in model.jobs(4) {
        engine.submit(job).unwrap();
    }
    finish(&mut engine)
}

#[test]
fn responses_do_not_depend_on_the_rows_in_flight() {
    for precision in [Precision::Int8, Precision::Int8Head] {
        let model = Model::load_as(precision);
        let alone = groups(&model, 1);
        for rows in [3, 16, 64] {
            for (one, other) in alone.iter().zip(groups(&model, rows)) {
                assert_eq!(
                    one.responses, other.responses,
                    "{precision} with {rows} rows"
                );
            }
        }
    }
}

/// Mean and largest |d logprob| of the responses of `groups` under another engine.
fn mismatch(other: &mut Engine, prompts: &[PromptInputs], groups: &[FinishedGroup]) -> (f64, f64) {
    let mut differences = Vec::new();
    for (prompt, group) in prompts.iter().zip(groups) {
        let responses: Vec<&[u32]> = group
            .responses
            .iter()
            .map(|response| response.token_ids.as_slice())
            .collect();
        let scores = other.score(prompt, &responses).unwrap();
        for (response, scores) in group.responses.iter().zip(scores) {
            for (logprob, score) in response.rollout_logprobs.iter().zip(scores) {
                differences.push(f64::from((logprob - score.logprob).abs()));
            }
        }
    }
    let largest = differences.iter().copied().fold(0.0, f64::max);
    let count = f64::from(u32::try_from(differences.len()).unwrap());
    (differences.iter().sum::<f64>() / count, largest)
}

#[test]
fn logprobs_are_those_of_the_rounded_policy_which_is_near_the_whole_one() {
    let whole = Model::load();
    let [without_head, with_head] = [Precision::Int8, Precision::Int8Head].map(|precision| {
        let (mean, largest) = mismatch_of(precision, &whole);
        println!("{precision} against f32: mean |d logprob| {mean:.4}, largest {largest:.3}");
        // Rounded it must be, and no more than that: the model is small and steep (a blanked image moves its logprobs by 2.5
        // nats in the mean), a wrong scale would be off by whole nats.
        assert!(mean > 1e-4 && mean < 0.4, "{mean}");
        mean
    });
    assert!(
        without_head != with_head,
        "the head is rounded where it should not be, or not where it should"
    );
}

/// [`mismatch`] of what an engine of this precision generates, with an f32 engine. It agrees with itself.
fn mismatch_of(precision: Precision, whole: &Model) -> (f64, f64) {
    let rounded = Model::load_as(precision);
    let groups = groups(&rounded, 16);
    let prompts: Vec<PromptInputs> = rounded.jobs(4).into_iter().map(|job| job.prompt).collect();
    // Read again by the same engine: decoding and scoring are the same arithmetic, to the last bit.
    let mut same = rounded.engine(rounded.settings(16, 40));
    assert_eq!(mismatch(&mut same, &prompts, &groups), (0.0, 0.0));
    let mut other = whole.engine(whole.settings(16, 40));
    mismatch(&mut other, &prompts, &groups)
}
