//! Resident memory does not grow with the number of passes or of new weights. Alone in its process: others' memory
//! would count too.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails where it stands; its numbers are small"
)]
#![allow(missing_docs, reason = "a test binary")]
#![allow(dead_code, reason = "the parity tests use the rest of the set-up")]

mod common;
mod fixture_model;
#[path = "parity/setup.rs"]
mod setup;

use fixture_model::{Model, finish};
use rollout::engine::{EngineKind, EngineLoader, Haste, Threads};
use setup::Setup;
use shared::record::Precision;

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

/// One test at a time: each measures the whole process.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn resident_memory_after_500_groups_is_that_after_50() {
    let _alone = ALONE.lock();
    let model = Model::load();
    let mut engine = model.engine(model.settings(16, 24));
    let mut seen = Vec::new();
    for round in 1..=100 {
        for job in model.jobs(4) {
            engine.submit(job).unwrap();
        }
        assert_eq!(finish(&mut engine).len(), 5);
        if round % 10 == 0 {
            seen.push(resident_bytes());
        }
    }
    println!(
        "resident MiB after 50, 100 ... 500 groups: {:?}",
        seen.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>()
    );
    let (early, late) = (seen[0], seen[9]);
    assert!(late <= early + early / 50, "{seen:?}");
}

#[test]
fn resident_memory_is_flat_over_passes_and_over_new_weights() {
    let _alone = ALONE.lock();
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
    let threads = Threads::new(Some(2), false);
    let loader =
        EngineLoader::new(&setup.config, threads, EngineKind::Cpu, Precision::F32).unwrap();
    let mut seen = Vec::new();
    for round in 0..24 {
        for rows in [1, 3, 8, 2, 5] {
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
        setup.model = loader.load(&weights, Haste::Now).unwrap();
        seen.push(resident_bytes());
    }
    // What the allocator holds back goes up and down by some MiB; a leak lifts the middle of every eight rounds.
    let middle = |rounds: std::ops::Range<usize>| {
        let mut window = seen[rounds].to_vec();
        window.sort_unstable();
        window[window.len() / 2]
    };
    let (early, late) = (middle(8..16), middle(16..24));
    println!(
        "resident: {} MiB in rounds 8 to 15, {} MiB in rounds 16 to 23",
        early >> 20,
        late >> 20
    );
    assert!(late < early + (6 << 20), "{seen:?}");
}
