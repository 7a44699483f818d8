//! The device's engine over the fixture model, and how its answers are compared.

use std::path::{Path, PathBuf};

use models::graph::{Elements, Operators};
use rollout::engine::rows::Rows;
use rollout::engine::{
    EngineSettings, HeadSettings, Provider, RowForm, RowLoader, RowModel, RowSettings,
};
use rollout::sampler::{Sampling, Scored};

use crate::fixture_model::Model;

/// Largest difference of log-probabilities between the two engines, in nats.
pub(crate) const TOLERANCE: f32 = 1e-4;
pub(crate) const MAX_TOKENS: usize = 24;
/// Prompts in the cache at a time.
pub(crate) const PROMPTS: usize = 2;

pub(crate) fn sampling(model: &Model, temperature: f32) -> Sampling {
    let mut sampling = model.settings(1, MAX_TOKENS).sampling;
    sampling.temperature = temperature;
    sampling
}

pub(crate) fn row_settings(num_rows: usize) -> RowSettings {
    RowSettings {
        provider: Provider::Cpu(1),
        elements: Elements::F32,
        form: RowForm::Trt(Operators::Native),
        rows: num_rows + PROMPTS + 1,
        decoded_rows: num_rows,
        slots: 256,
        candidates: 64,
        max_wanted: 16,
        max_patches: 1024,
    }
}

pub(crate) fn loader(model: &Model, settings: RowSettings, sampling: &Sampling) -> RowLoader {
    let config = &model.processor.config;
    let head = HeadSettings::new(sampling, config.text.vocab_size);
    RowLoader::new(config, settings, head).unwrap()
}

pub(crate) fn row_model(
    model: &Model,
    weights: &Path,
    num_rows: usize,
    candidates: usize,
    sampling: &Sampling,
) -> RowModel {
    let settings = RowSettings {
        candidates,
        ..row_settings(num_rows)
    };
    loader(model, settings, sampling).load(weights).unwrap()
}

pub(crate) fn rows(
    model: &Model,
    weights: &Path,
    num_rows: usize,
    candidates: usize,
    sampling: &Sampling,
) -> Rows {
    let row_model = row_model(model, weights, num_rows, candidates, sampling);
    Rows::new(row_model, sampling.clone()).unwrap()
}

pub(crate) fn settings(model: &Model, sampling: &Sampling) -> EngineSettings {
    EngineSettings {
        sampling: sampling.clone(),
        ..model.settings(8, MAX_TOKENS)
    }
}

pub(crate) fn ids(tokens: &[Scored]) -> Vec<u32> {
    tokens.iter().map(|token| token.token).collect()
}

pub(crate) fn assert_close(what: &str, got: &[Scored], logprobs: &[f32], entropies: &[f32]) -> f32 {
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

/// The same file with every weight a little larger.
pub(crate) fn changed_weights(weights: &Path, folder: &Path) -> PathBuf {
    let mut bytes = std::fs::read(weights).unwrap();
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    for word in bytes[8 + header..].as_chunks_mut::<4>().0 {
        *word = (f32::from_le_bytes(*word) * 1.03).to_le_bytes();
    }
    let path = folder.join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    path
}
