//! What must not drift: a row's logits with the batch around it, and memory with the number of passes.

use rollout::engine::{EngineKind, EngineLoader, ForwardInputs, KvCache};

use super::setup::{Setup, prefill};

/// One decode step for each of `rows` rows of `cache`, which hold `length` tokens each.
fn step(
    setup: &mut Setup,
    cache: &mut KvCache,
    rows: usize,
    length: usize,
    tokens: &[i64],
) -> Vec<Vec<f32>> {
    let positions = vec![length as i64; 3 * rows];
    let lengths = vec![length as i32 + 1; rows];
    let logit_positions: Vec<i64> = (0..rows as i64).collect();
    let inputs = ForwardInputs {
        rows,
        width: 1,
        token_ids: &tokens[..rows],
        position_ids: &positions,
        image_embeds: &[],
        image_positions: &[],
        lengths: &lengths,
        logit_positions: &logit_positions,
    };
    let logits = setup.model.forward(cache, &inputs).unwrap();
    logits.rows().unwrap().map(<[f32]>::to_vec).collect()
}

#[test]
fn a_rows_logits_do_not_depend_on_the_rows_beside_it() {
    let mut setup = Setup::new();
    let prompt = setup
        .prompts
        .iter()
        .find(|prompt| !prompt.images.is_empty())
        .unwrap()
        .clone();
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
    let mut reference: Vec<Vec<f32>> = Vec::new();
    for rows in [33, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 32] {
        let mut cache = KvCache::new(&setup.config.text, rows, length + 40);
        cache.copy_rows(&scratch, 0, 0..rows, length).unwrap();
        let logits = step(&mut setup, &mut cache, rows, length, &tokens);
        if reference.is_empty() {
            reference = logits;
            continue;
        }
        let largest = logits
            .iter()
            .flatten()
            .zip(reference.iter().flatten())
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        println!("{rows} rows against 33: largest difference {largest:e}");
        assert!(largest <= 1e-5, "{rows} rows: {largest:e}");
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 4096
}

#[test]
fn resident_memory_is_flat_over_passes_and_over_new_weights() {
    let mut setup = Setup::new();
    let prompts = setup.prompts.clone();
    let starts: Vec<_> = prompts
        .iter()
        .map(|prompt| setup.start(prompt).with_response(&prompt.responses[0]))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("model.safetensors");
    let checkpoint = models::checkpoint::Checkpoint::open(&setup.fixtures.model()).unwrap();
    models::checkpoint::write_f32(&weights, &checkpoint, &setup.config).unwrap();
    let loader = EngineLoader::new(&setup.config, 2, EngineKind::Cpu).unwrap();
    let mut seen = Vec::new();
    for round in 0..30 {
        for rows in [1, 3, 16, 2, 7, 31] {
            let batch: Vec<_> = starts
                .iter()
                .cycle()
                .skip(round)
                .take(rows)
                .cloned()
                .collect();
            setup.forward(&batch);
        }
        for prompt in prompts.iter().filter(|prompt| !prompt.images.is_empty()) {
            setup.start(prompt);
        }
        setup.model = loader.load(&weights).unwrap();
        seen.push(resident_bytes());
    }
    let growth = seen[29].saturating_sub(seen[9]);
    println!(
        "resident: {} MiB after 10 rounds, {} MiB after 30",
        seen[9] >> 20,
        seen[29] >> 20
    );
    assert!(
        growth < 8 << 20,
        "grew by {growth} bytes in 20 rounds: {seen:?}"
    );
}
