//! Greedy continuations over the cache: one prompt by one, and all together in one ragged batch.

use serde_json::Value;

use super::setup::{Row, Sequence, Setup, Start, prefill, step};

/// Decodes `steps` tokens for each prompt: read together, decoded together.
fn greedy(setup: &mut Setup, starts: &[Start], steps: usize) -> Vec<Vec<u32>> {
    let sequences: Vec<_> = starts.iter().map(|start| start.sequence.clone()).collect();
    let last = |sequence: &Sequence| vec![sequence.ids.len() - 1];
    let wanted: Vec<Vec<usize>> = sequences.iter().map(last).collect();
    let mut cache = setup.cache(&sequences);
    let (blocks, mut logits) = prefill(&mut setup.model, &mut cache, &sequences, &wanted);
    let mut rows: Vec<Row> = starts
        .iter()
        .zip(blocks)
        .map(|(start, blocks)| Row {
            prompt_blocks: blocks,
            prompt_tokens: start.sequence.ids.len(),
            next_position: start.next_position,
            ..Row::default()
        })
        .collect();
    let mut responses = vec![Vec::new(); starts.len()];
    for _ in 0..steps {
        let best: Vec<u32> = logits.iter().map(|row| argmax(row)).collect();
        for (response, &token) in responses.iter_mut().zip(&best) {
            response.push(token);
        }
        logits = step(&mut setup.model, &mut cache, &mut rows, &best);
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
    Setup::each(|mut setup| {
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
    });
}
