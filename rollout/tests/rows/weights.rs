//! Weights replaced in place.

use rollout::engine::{Engine, Haste};
use shared::ids::PolicyVersion;

use crate::fixture_model::{Model, finish};
use crate::generation::greedily;
use crate::setup::{
    assert_close, changed_weights, ids, loader, row_settings, rows, sampling, settings,
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
