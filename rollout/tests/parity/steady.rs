//! A row's logits do not depend on the rows around it. Steps must agree to the last bit: else what is sampled would
//! depend on what else is in flight. A prompt's pass may differ in the last bits with the width it is padded to.

use rollout::engine::{ForwardInputs, KvCache};

use super::setup::{Setup, prefill};

/// One decode step for the first rows of `cache`, each holding as many tokens as `lengths` says.
fn step(
    setup: &mut Setup,
    cache: &mut KvCache,
    lengths: &[usize],
    tokens: &[i64],
) -> Vec<Vec<f32>> {
    let rows = lengths.len();
    let positions: Vec<i64> = lengths.iter().map(|&length| length as i64).collect();
    let after: Vec<i32> = lengths.iter().map(|&length| length as i32 + 1).collect();
    let logit_positions: Vec<i64> = (0..rows as i64).collect();
    let inputs = ForwardInputs {
        rows,
        width: 1,
        token_ids: &tokens[..rows],
        position_ids: &[&positions[..]; 3].concat(),
        image_embeds: &[],
        image_positions: &[],
        lengths: &after,
        logit_positions: &logit_positions,
    };
    let logits = setup.model.forward(cache, &inputs).unwrap();
    logits.rows().unwrap().map(<[f32]>::to_vec).collect()
}

fn largest_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_prompts_logits_hardly_depend_on_its_padding() {
    let mut setup = Setup::new();
    let prompts = setup.prompts.clone();
    let starts: Vec<_> = prompts
        .iter()
        .map(|prompt| setup.start(prompt).sequence)
        .collect();
    let together = setup.forward(&starts);
    for (start, together) in starts.iter().zip(&together) {
        let alone = setup.forward(std::slice::from_ref(start)).remove(0);
        let largest = largest_difference(&alone, together);
        println!(
            "prompt of {} tokens: largest difference {largest:e}",
            start.ids.len()
        );
        assert!(largest <= 1e-4, "{largest:e}");
    }
}

#[test]
fn a_step_is_the_same_beside_longer_rows_and_in_a_larger_cache() {
    let mut setup = Setup::new();
    let prompts = setup.prompts.clone();
    let starts: Vec<_> = prompts
        .iter()
        .map(|prompt| setup.start(prompt).sequence)
        .collect();
    let lengths: Vec<usize> = starts.iter().map(|start| start.ids.len()).collect();
    let longest = lengths.iter().copied().max().unwrap();
    let mut batch = KvCache::new(&setup.config.text, starts.len() + 2, 3 * longest);
    let mut alone = Vec::new();
    for (row, start) in starts.iter().enumerate() {
        let mut scratch = KvCache::new(&setup.config.text, 1, 1);
        prefill(
            &mut setup.model,
            &mut scratch,
            std::slice::from_ref(start),
            0,
            &[vec![0]],
        );
        batch
            .copy_rows(&scratch, 0, row..row + 1, lengths[row])
            .unwrap();
        let mut cache = KvCache::new(&setup.config.text, 1, lengths[row] + 1);
        cache.copy_rows(&scratch, 0, 0..1, lengths[row]).unwrap();
        alone.extend(step(&mut setup, &mut cache, &lengths[row..=row], &[7]));
    }
    let together = step(&mut setup, &mut batch, &lengths, &vec![7; lengths.len()]);
    assert_eq!(alone, together);
}

#[test]
fn a_step_is_the_same_with_any_number_of_rows() {
    let mut setup = Setup::new();
    let prompt = setup.prompts[0].clone();
    let start = setup.start(&prompt).sequence;
    let length = start.ids.len();
    let mut scratch = KvCache::new(&setup.config.text, 1, 1);
    prefill(
        &mut setup.model,
        &mut scratch,
        &[start],
        0,
        &[vec![length - 1]],
    );
    let vocab_size = setup.config.text.vocab_size as i64;
    let tokens: Vec<i64> = (0..33).map(|row| (7 + 13 * row) % vocab_size).collect();
    let mut reference = Vec::new();
    for rows in [33, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 32] {
        let mut cache = KvCache::new(&setup.config.text, rows, length + 40);
        cache.copy_rows(&scratch, 0, 0..rows, length).unwrap();
        let logits = step(&mut setup, &mut cache, &vec![length; rows], &tokens);
        if reference.is_empty() {
            reference = logits;
        } else {
            assert_eq!(logits, reference[..rows], "{rows} rows");
        }
    }
}
