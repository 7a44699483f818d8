//! The engine's loop over rows.

use models::graph::{Elements, Operators};
use rollout::engine::{Engine, EngineSettings, HeadSettings, Provider, RowModel, RowSettings};
use shared::ids::PolicyVersion;

use crate::fixture_model::{Model, finish};
use crate::setup::{TOLERANCE, row_model, sampling, settings};

#[test]
fn the_engines_loop_is_the_same_over_rows() {
    let model = Model::load();
    let sampling = sampling(&model, 0.0);
    let mut engine = model.engine(settings(&model, &sampling));
    for job in model.jobs(4) {
        engine.submit(job).unwrap();
    }
    let expected = finish(&mut engine);
    for num_rows in [1, 3, 16] {
        let device = row_model(&model, &model.weights, num_rows, 64, &sampling);
        let mut engine = Engine::on_device(settings(&model, &sampling), device, PolicyVersion(3));
        for job in model.jobs(4) {
            engine.submit(job).unwrap();
        }
        let got = finish(&mut engine);
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!(got.ticket, expected.ticket);
            assert_eq!(got.responses.len(), 4);
            for (got, expected) in got.responses.iter().zip(&expected.responses) {
                assert_eq!(got.token_ids, expected.token_ids, "{num_rows} rows");
                assert_eq!(got.finish_reason, expected.finish_reason);
                assert_eq!(got.last_version, PolicyVersion(3));
                let streams = [
                    (&got.rollout_logprobs, &expected.rollout_logprobs),
                    (&got.entropies, &expected.entropies),
                    (&got.blank_logprobs, &expected.blank_logprobs),
                    (&got.blank_entropies, &expected.blank_entropies),
                ];
                for (got, expected) in streams {
                    assert_eq!(got.len(), expected.len());
                    let close = |(got, expected): (&f32, &f32)| (got - expected).abs() < TOLERANCE;
                    assert!(
                        got.iter().zip(expected).all(close),
                        "{got:?}, not {expected:?}"
                    );
                }
            }
        }
        assert!(engine.is_idle() && engine.has_room());
        engine
            .replace_weights(&model.weights, PolicyVersion(4))
            .unwrap();
        assert_eq!(engine.version(), PolicyVersion(4));
    }
}

#[test]
fn a_layout_in_which_nothing_could_run_is_refused() {
    let model = Model::load();
    let config = &model.processor.config;
    let sampling = sampling(&model, 1.0);
    let good = RowSettings {
        provider: Provider::Cpu(1),
        elements: Elements::F32,
        operators: Operators::Native,
        rows: 4,
        decoded_rows: 2,
        slots: 64,
        candidates: 4,
        max_wanted: 16,
    };
    let few = RowSettings {
        rows: 3,
        ..good.clone()
    };
    let half = RowSettings {
        elements: Elements::Bf16,
        ..good
    };
    for (settings, reason) in [(few, "2 responses need 4 rows"), (half, "use f32")] {
        let head = HeadSettings::new(&sampling, config.text.vocab_size);
        let refused = RowModel::load(config, &model.weights, settings, head).unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    // Longer than a row.
    let device = row_model(&model, &model.weights, 1, 4, &sampling);
    let settings = EngineSettings {
        max_response_tokens: 250,
        ..settings(&model, &sampling)
    };
    let mut engine = Engine::on_device(settings, device, PolicyVersion(0));
    let refused = engine
        .submit(model.jobs(1).remove(0))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("--max-response-tokens"), "{refused}");
}
