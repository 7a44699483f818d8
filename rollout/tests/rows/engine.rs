//! The engine's loop over rows.

use models::graph::Elements;
use rollout::engine::{Engine, EngineSettings, Haste, HeadSettings, RowLoader, RowSettings};
use shared::ids::PolicyVersion;

use crate::fixture_model::{Model, finish};
use crate::setup::{TOLERANCE, loader, row_model, row_settings, sampling, settings};

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
        let mut engine =
            Engine::new(settings(&model, &sampling), device, PolicyVersion(3)).unwrap();
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
        let loader = loader(&model, row_settings(num_rows), &sampling);
        let same = loader.stage(&model.weights).unwrap();
        engine.set_weights(same, PolicyVersion(4)).unwrap();
        assert_eq!(engine.version(), PolicyVersion(4));
        // Neither engine takes what is made for the other, and both go on.
        let other = model.loader.load(&model.weights, Haste::Now).unwrap();
        let refused = engine.set_weights(other, PolicyVersion(5)).unwrap_err();
        assert!(refused.to_string().contains("another engine"), "{refused}");
        assert_eq!(engine.version(), PolicyVersion(4));
        let mut on_cpu = model.engine(settings(&model, &sampling));
        let staged = loader.stage(&model.weights).unwrap();
        assert!(on_cpu.set_weights(staged, PolicyVersion(5)).is_err());
    }
}

#[test]
fn a_layout_in_which_nothing_could_run_is_refused() {
    let model = Model::load();
    let config = &model.processor.config;
    let sampling = sampling(&model, 1.0);
    let good = row_settings(2);
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
        let refused = RowLoader::new(config, settings, head).unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    // An image of more patches than the vision tower is built for.
    let few = RowSettings {
        max_patches: 4,
        ..row_settings(1)
    };
    let device = loader(&model, few, &sampling).load(&model.weights).unwrap();
    let mut engine = Engine::new(settings(&model, &sampling), device, PolicyVersion(0)).unwrap();
    let job = model.jobs(1).into_iter();
    let job = job.max_by_key(|job| job.prompt.patches.len()).unwrap();
    let refused = engine.score(&job.prompt, &[&[7]]).unwrap_err().to_string();
    assert!(refused.contains("lower --max-pixels"), "{refused}");
    let refused = engine.submit(job).unwrap_err().to_string();
    assert!(refused.contains("lower --max-pixels"), "{refused}");
    // Longer than a row.
    let device = row_model(&model, &model.weights, 1, 4, &sampling);
    let settings = EngineSettings {
        max_response_tokens: 250,
        ..settings(&model, &sampling)
    };
    let mut engine = Engine::new(settings, device, PolicyVersion(0)).unwrap();
    let refused = engine
        .submit(model.jobs(1).remove(0))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("--max-response-tokens"), "{refused}");
}
