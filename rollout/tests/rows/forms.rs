//! Other graphs over the same rows give the same answers: attention and rotation in products and sums, for TensorRT builds that
//! refuse them as operators, and the graph for ONNX Runtime's CUDA provider.

use models::graph::Operators;
use rollout::engine::{Engine, RowForm, RowSettings};
use shared::ids::PolicyVersion;

use crate::fixture_model::{Model, finish};
use crate::setup::{TOLERANCE, loader, row_settings, sampling, settings};

#[test]
fn decomposed_attention_answers_as_the_engine_does() {
    answers_as_the_engine_does(RowForm::Trt(Operators::Decomposed));
}

#[test]
fn the_graph_for_cuda_answers_as_the_engine_does() {
    answers_as_the_engine_does(RowForm::Cuda);
}

fn answers_as_the_engine_does(form: RowForm) {
    let model = Model::load();
    let sampling = sampling(&model, 0.0);
    let mut engine = model.engine(settings(&model, &sampling));
    let row_settings = RowSettings {
        form,
        ..row_settings(3)
    };
    let device = loader(&model, row_settings, &sampling).load(&model.weights);
    let version = PolicyVersion(0);
    let mut device = Engine::new(settings(&model, &sampling), device.unwrap(), version).unwrap();
    for job in model.jobs(2) {
        engine.submit(job).unwrap();
    }
    for job in model.jobs(2) {
        device.submit(job).unwrap();
    }
    for (got, expected) in finish(&mut device).iter().zip(finish(&mut engine)) {
        for (got, expected) in got.responses.iter().zip(&expected.responses) {
            assert_eq!(got.token_ids, expected.token_ids);
            let streams = [
                (&got.rollout_logprobs, &expected.rollout_logprobs),
                (&got.blank_logprobs, &expected.blank_logprobs),
            ];
            for (got, expected) in streams {
                let close = |(got, expected): (&f32, &f32)| (got - expected).abs() < TOLERANCE;
                assert!(
                    got.iter().zip(expected).all(close),
                    "{got:?}, not {expected:?}"
                );
            }
        }
    }
}
