//! Weights replaced in place.

use rollout::engine::{Engine, Haste};
use shared::ids::PolicyVersion;

use crate::fixture_model::{Model, finish};
use crate::generation::greedily;
use crate::setup::{
    TOLERANCE, assert_close, changed_weights, ids, loader, row_settings, rows, sampling, settings,
};

#[test]
fn weights_replaced_in_place_are_those_of_a_fresh_start() {
    let model = Model::load();
    let sampling = sampling(&model, 0.0);
    let folder = tempfile::tempdir().unwrap();
    let other = changed_weights(&model.weights, folder.path());
    let mut rows = rows(&model, &model.weights, 3, 64, &sampling);
    let before = greedily(&mut rows, &model, 1, &sampling);
    let loader = loader(&model, row_settings(3), &sampling);
    let mut staged = loader.stage(&other).unwrap();
    rows.model_mut().replace_weights(&mut staged).unwrap();
    let after = greedily(&mut rows, &model, 1, &sampling);
    let mut fresh = crate::setup::rows(&model, &other, 3, 64, &sampling);
    let fresh = greedily(&mut fresh, &model, 1, &sampling);
    assert_eq!(after, fresh);
    assert_ne!(after, before);
    let loaded = model.loader.load(&other, Haste::Now).unwrap();
    let mut engine = Engine::new(settings(&model, &sampling), loaded, PolicyVersion(0)).unwrap();
    model
        .jobs(1)
        .into_iter()
        .for_each(|job| engine.submit(job).unwrap());
    for (got, expected) in after.iter().zip(finish(&mut engine)) {
        let expected = &expected.responses[0];
        assert_eq!(ids(got), expected.token_ids);
        assert_close(
            "changed",
            got,
            &expected.rollout_logprobs,
            &expected.entropies,
        );
    }
    // A file that is not this model's changes nothing.
    let wrong = folder.path().join("wrong");
    std::fs::create_dir(&wrong).unwrap();
    let wrong = wrong.join("model.safetensors");
    std::fs::write(&wrong, b"no weights").unwrap();
    let error = loader.stage(&wrong).unwrap_err().to_string();
    assert!(
        error.contains("model.safetensors") && !error.contains('\n'),
        "{error}"
    );
    assert_eq!(greedily(&mut rows, &model, 1, &sampling), after);
}

#[test]
fn responses_under_way_go_on_with_new_weights_as_on_the_cpu() {
    let model = Model::load();
    let sampling = sampling(&model, 0.0);
    let folder = tempfile::tempdir().unwrap();
    let other = changed_weights(&model.weights, folder.path());
    let loader = loader(&model, row_settings(8), &sampling);
    let device = loader.load(&model.weights).unwrap();
    let mut device = Engine::new(settings(&model, &sampling), device, PolicyVersion(0)).unwrap();
    let mut cpu = model.engine(settings(&model, &sampling));
    for engine in [&mut device, &mut cpu] {
        for job in model.jobs(2).into_iter().take(2) {
            engine.submit(job).unwrap();
        }
        for _ in 0..5 {
            engine.step().unwrap();
        }
    }
    let staged = loader.stage(&other).unwrap();
    device.set_weights(staged, PolicyVersion(1)).unwrap();
    let loaded = model.loader.load(&other, Haste::Now).unwrap();
    cpu.set_weights(loaded, PolicyVersion(1)).unwrap();
    let mut num_mixed = 0;
    for (got, expected) in finish(&mut device).iter().zip(finish(&mut cpu)) {
        for (got, expected) in got.responses.iter().zip(&expected.responses) {
            assert_eq!(got.token_ids, expected.token_ids);
            assert_eq!(got.first_version, expected.first_version);
            assert_eq!(got.last_version, expected.last_version);
            num_mixed += usize::from(got.first_version != got.last_version);
            for (got, expected) in got.rollout_logprobs.iter().zip(&expected.rollout_logprobs) {
                assert!((got - expected).abs() < TOLERANCE, "{got}, not {expected}");
            }
        }
    }
    assert!(num_mixed > 0, "no response was under way");
}
