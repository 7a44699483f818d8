//! On a GPU, in bf16, against the engine for the CPU: `cargo test -p rollout --test rows on_gpu_ -- --ignored --nocapture`, with
//! `ORT_DYLIB_PATH` at ONNX Runtime's GPU build and its libraries on `LD_LIBRARY_PATH`.

use models::graph::{Elements, Operators};
use rollout::engine::rows::Rows;
use rollout::engine::{Engine, Provider, RowForm, RowSettings, TensorRt};
use rollout::sampler::Scored;
use shared::ids::PolicyVersion;
use tempfile::TempDir;

use crate::fixture_model::{Model, finish};
use crate::setup::{changed_weights, loader, row_settings, sampling, settings};

/// Largest difference of log-probabilities, in nats.
const LARGEST: f32 = 3e-2;
/// Largest mean of the differences over a few hundred tokens.
const MEAN: f32 = 3e-3;

#[test]
#[ignore = "needs an NVIDIA GPU, ONNX Runtime's GPU build and TensorRT"]
fn on_gpu_tensorrt_scores_and_decodes_as_the_cpu_does() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::TensorRt(TensorRt::new(folder.path().to_path_buf()));
    check(provider, RowForm::Trt(Operators::Native));
}

#[test]
#[ignore = "needs an NVIDIA GPU, ONNX Runtime's GPU build and TensorRT"]
fn on_gpu_tensorrt_does_so_with_decomposed_attention() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::TensorRt(TensorRt::new(folder.path().to_path_buf()));
    check(provider, RowForm::Trt(Operators::Decomposed));
}

#[test]
#[ignore = "needs an NVIDIA GPU and ONNX Runtime's GPU build"]
fn on_gpu_cuda_scores_and_decodes_as_the_cpu_does() {
    check(Provider::Cuda, RowForm::Cuda);
}

fn check(provider: Provider, form: RowForm) {
    let model = Model::load();
    let sampling = sampling(&model, 1.0);
    let row_settings = RowSettings {
        provider,
        form,
        elements: Elements::Bf16,
        ..row_settings(3)
    };
    let loader = loader(&model, row_settings, &sampling);
    let folder = TempDir::new().unwrap();
    let changed = changed_weights(&model.weights, folder.path());

    // What it decodes, with and without the image, is what the CPU says of the same tokens.
    let device = loader.load(&model.weights).unwrap();
    let mut device = Engine::new(settings(&model, &sampling), device, PolicyVersion(0)).unwrap();
    let jobs = model.jobs(3);
    model
        .jobs(3)
        .into_iter()
        .for_each(|job| device.submit(job).unwrap());
    let decoded = finish(&mut device);
    let mut cpu = model.engine(settings(&model, &sampling));
    let mut differences = Vec::new();
    for (group, job) in decoded.iter().zip(&jobs) {
        let responses = group.responses.iter();
        let tokens: Vec<&[u32]> = responses
            .map(|response| response.token_ids.as_slice())
            .collect();
        let seen = cpu.score(&job.prompt, &tokens).unwrap();
        for (got, expected) in group.responses.iter().zip(&seen) {
            collect(&mut differences, &got.rollout_logprobs, expected);
        }
        let Some(blank) = &job.blank else { continue };
        for (got, expected) in group
            .responses
            .iter()
            .zip(cpu.score(blank, &tokens).unwrap())
        {
            collect(&mut differences, &got.blank_logprobs, &expected);
        }
    }
    assert_small("decoded", &differences);

    // Weights replaced in place are those that are in use from then on.
    device
        .set_weights(loader.stage(&changed).unwrap(), PolicyVersion(1))
        .unwrap();
    let mut fresh = Rows::new(loader.load(&changed).unwrap(), sampling.clone()).unwrap();
    let mut differences = Vec::new();
    for (group, job) in decoded.iter().zip(&jobs) {
        let responses = group.responses.iter();
        let tokens: Vec<&[u32]> = responses
            .map(|response| response.token_ids.as_slice())
            .collect();
        let expected = fresh.score(&job.prompt, &tokens).unwrap();
        for (got, expected) in device
            .score(&job.prompt, &tokens)
            .unwrap()
            .iter()
            .zip(&expected)
        {
            let got: Vec<f32> = got.iter().map(|token| token.logprob).collect();
            collect(&mut differences, &got, expected);
        }
    }
    let largest = differences
        .iter()
        .fold(0.0_f32, |most, difference| most.max(difference.abs()));
    assert!(
        largest < 1e-6,
        "weights in place are {largest} apart from those of a fresh start"
    );
}

fn collect(differences: &mut Vec<f32>, got: &[f32], expected: &[Scored]) {
    assert_eq!(got.len(), expected.len());
    differences.extend(
        got.iter()
            .zip(expected)
            .map(|(got, expected)| got - expected.logprob),
    );
}

#[allow(clippy::print_stdout, reason = "a GPU is asked for the figures")]
fn assert_small(what: &str, differences: &[f32]) {
    let largest = differences
        .iter()
        .fold(0.0_f32, |most, difference| most.max(difference.abs()));
    let mean = differences.iter().sum::<f32>() / differences.len() as f32;
    println!(
        "{what}: {} tokens, largest {largest:e}, mean {mean:e}",
        differences.len()
    );
    assert!(
        largest < LARGEST && mean.abs() < MEAN,
        "{what}: largest {largest}, mean {mean}"
    );
}
