//! What the engine refuses, and with which words.

use models::checkpoint::{Checkpoint, write_f32};
use models::config::ModelConfig;
use rollout::engine::{EngineKind, EngineModel, ForwardInputs, KvCache};
use tests::fixtures::Fixtures;

use super::setup::Setup;

#[test]
fn an_engine_without_its_libraries_names_them_and_the_remedy() {
    let fixtures = Fixtures::open().unwrap();
    let config = ModelConfig::from_dir(&fixtures.model()).unwrap();
    for (kind, library) in [
        (EngineKind::Cuda, "libonnxruntime_providers_cuda.so"),
        (EngineKind::Trt, "libonnxruntime_providers_tensorrt.so"),
    ] {
        match EngineModel::load(&config, &fixtures.model().join("none"), 1, kind) {
            Err(error @ rollout::Error::Provider { .. }) => {
                let message = error.to_string();
                println!("{message}");
                assert!(
                    message.contains(library) && message.contains("onnxruntime-gpu 1.31.1"),
                    "{message}"
                );
                assert!(!message.contains('\n'), "{message}");
            }
            // Where the libraries are installed the next thing to be missing is the weights file.
            Err(rollout::Error::Weights { .. }) => println!("{library} loads here"),
            other => panic!("{kind:?}: {other:?}"),
        }
    }
}

#[test]
fn weights_in_another_layout_are_refused() {
    let fixtures = Fixtures::open().unwrap();
    let config = ModelConfig::from_dir(&fixtures.model()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str| {
        EngineModel::load(&config, &folder.path().join(name), 1, EngineKind::Cpu).map(drop)
    };
    assert!(
        load("model.safetensors")
            .unwrap_err()
            .to_string()
            .contains("model.safetensors")
    );

    let weights = folder.path().join("model.safetensors");
    write_f32(
        &weights,
        &Checkpoint::open(&fixtures.model()).unwrap(),
        &config,
    )
    .unwrap();
    load("model.safetensors").unwrap();
    std::fs::copy(&weights, folder.path().join("other.safetensors")).unwrap();
    assert!(
        load("other.safetensors")
            .unwrap_err()
            .to_string()
            .contains("must be named")
    );

    let mut bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 4]).unwrap();
    assert!(
        load("model.safetensors")
            .unwrap_err()
            .to_string()
            .contains("not this model's weights")
    );
    bytes[20] ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    assert!(
        load("model.safetensors")
            .unwrap_err()
            .to_string()
            .contains("not this model's weights")
    );
}

#[test]
fn a_pass_that_does_not_fit_is_refused() {
    let mut setup = Setup::new();
    let mut cache = KvCache::new(&setup.config.text, 2, 4);
    let good = ForwardInputs {
        rows: 2,
        width: 2,
        token_ids: &[1, 2, 3, 4],
        position_ids: &[0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1],
        image_embeds: &[],
        image_positions: &[],
        lengths: &[2, 1],
        logit_positions: &[1, 2],
    };
    assert_eq!(
        setup
            .model
            .forward(&mut cache, &good)
            .unwrap()
            .rows()
            .unwrap()
            .len(),
        2
    );
    let vocab_size = setup.config.text.vocab_size as i64;
    for (bad, word) in [
        (
            ForwardInputs {
                token_ids: &[1, 2, 3],
                ..good
            },
            "token_ids",
        ),
        (
            ForwardInputs {
                token_ids: &[1, 2, 3, vocab_size],
                ..good
            },
            "vocabulary",
        ),
        (
            ForwardInputs {
                token_ids: &[1, 2, 3, -1],
                ..good
            },
            "vocabulary",
        ),
        (
            ForwardInputs {
                position_ids: &[0],
                ..good
            },
            "position_ids",
        ),
        (
            ForwardInputs {
                image_positions: &[0],
                ..good
            },
            "image_embeds",
        ),
        (
            ForwardInputs {
                logit_positions: &[4],
                ..good
            },
            "position",
        ),
        (
            ForwardInputs {
                lengths: &[3, 1],
                ..good
            },
            "do not fit",
        ),
        (
            ForwardInputs {
                lengths: &[0, 1],
                ..good
            },
            "do not fit",
        ),
    ] {
        let message = setup
            .model
            .forward(&mut cache, &bad)
            .unwrap_err()
            .to_string();
        assert!(message.contains(word), "{word}: {message}");
    }
    cache.reshape(1, 4);
    assert!(setup.model.forward(&mut cache, &good).is_err());
    cache.reshape(2, 1);
    assert!(setup.model.forward(&mut cache, &good).is_err());
}
