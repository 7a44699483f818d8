//! Greedy continuations over the cache: one prompt by one, and all together in one ragged batch.

use rollout::engine::{ForwardInputs, KvCache};
use serde_json::Value;

use super::setup::{Setup, Start, prefill};

/// Decodes `steps` tokens for each prompt: prefilled together into a scratch cache, copied row by row into the decode
/// cache, decoded together.
fn greedy(setup: &mut Setup, starts: &[Start], steps: usize) -> Vec<Vec<u32>> {
    let rows = starts.len();
    let sequences: Vec<_> = starts.iter().map(|start| start.sequence.clone()).collect();
    let longest = sequences
        .iter()
        .map(|sequence| sequence.ids.len())
        .max()
        .unwrap();
    let wanted: Vec<Vec<usize>> = sequences
        .iter()
        .map(|sequence| vec![sequence.ids.len() - 1])
        .collect();
    let mut scratch = KvCache::new(&setup.config.text, 1, 1);
    let mut logits = prefill(&mut setup.model, &mut scratch, &sequences, 0, &wanted);

    // One row more than is used: a pass works on the rows at the front.
    let mut cache = KvCache::new(&setup.config.text, rows + 1, longest + steps + 3);
    for (row, sequence) in sequences.iter().enumerate() {
        cache
            .copy_rows(&scratch, row, row..row + 1, sequence.ids.len())
            .unwrap();
    }
    let mut responses = vec![Vec::new(); rows];
    for step in 0..steps {
        let best: Vec<u32> = logits.iter().map(|row| argmax(row)).collect();
        for (response, &token) in responses.iter_mut().zip(&best) {
            response.push(token);
        }
        let token_ids: Vec<i64> = best.iter().map(|&token| i64::from(token)).collect();
        let positions: Vec<i64> = starts
            .iter()
            .map(|start| start.next_position + step as i64)
            .collect();
        let lengths: Vec<i32> = sequences
            .iter()
            .map(|sequence| (sequence.ids.len() + step + 1) as i32)
            .collect();
        let logit_positions: Vec<i64> = (0..rows as i64).collect();
        let inputs = ForwardInputs {
            rows,
            width: 1,
            token_ids: &token_ids,
            position_ids: &[&positions[..]; 3].concat(),
            image_embeds: &[],
            image_positions: &[],
            lengths: &lengths,
            logit_positions: &logit_positions,
        };
        let next = setup.model.forward(&mut cache, &inputs).unwrap();
        logits = next.rows().unwrap().map(<[f32]>::to_vec).collect();
    }
    responses
}

fn argmax(logits: &[f32]) -> u32 {
    let (best, _) = logits
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .unwrap();
    best as u32
}

/// The reference's continuation and the index of the first token that f32 noise may decide: a margin below 2e-3.
fn expected(case: &Value, kind: &str, margins: &str) -> (Vec<u32>, usize) {
    let tokens: Vec<u32> = case[kind]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect();
    let margins = case[margins].as_array().unwrap();
    let unsure = margins
        .iter()
        .position(|margin| margin.as_f64().unwrap() < 2e-3);
    let sure = unsure.unwrap_or(tokens.len());
    (tokens, sure)
}

#[test]
fn greedy_continuations_match_one_by_one_and_batched() {
    let mut setup = Setup::new();
    let greedy_json = setup.fixtures.json("greedy").unwrap();
    let cases = greedy_json["prompts"].as_array().unwrap();
    let prompts = setup.prompts.clone();
    let mut starts = Vec::new();
    for case in cases {
        let index = case["index"].as_u64().unwrap() as usize;
        starts.push(setup.start(prompts.iter().find(|prompt| prompt.index == index).unwrap()));
    }
    let steps = greedy_json["n"].as_u64().unwrap() as usize;
    let batched = greedy(&mut setup, &starts, steps);
    let mut compared = 0;
    for (index, case) in cases.iter().enumerate() {
        let alone = greedy(&mut setup, &starts[index..=index], steps).remove(0);
        for (kind, margins, got) in [
            ("single", "single_margins", &alone),
            ("batch_left_padded", "batch_margins", &batched[index]),
        ] {
            let (expected, sure) = expected(case, kind, margins);
            assert_eq!(got[..sure], expected[..sure], "prompt {index}, {kind}");
            compared += sure;
        }
    }
    println!("{compared} greedy tokens equal");
}
