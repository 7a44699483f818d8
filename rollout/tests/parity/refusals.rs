//! What the engine refuses, and with which words.

use models::checkpoint::{Checkpoint, write_f32};
use models::config::ModelConfig;
use rollout::engine::{EngineKind, EngineModel, KvCache, Pass, Piece, Threads};
use shared::record::Precision;
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
        match EngineModel::load(
            &config,
            &fixtures.model().join("none"),
            Threads::new(Some(1), false),
            kind,
            Precision::F32,
        ) {
            Err(error @ rollout::Error::Provider { .. }) => {
                let message = error.to_string();
                println!("{message}");
                assert!(
                    message.contains(library) && message.contains("onnxruntime-gpu 1.31.1"),
                    "{message}"
                );
                assert!(!message.contains('\n'), "{message}");
            }
            // Where the libraries are installed the next thing to be missing is the graph.
            Err(rollout::Error::NoGraph(_)) => println!("{library} loads here"),
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
        EngineModel::load(
            &config,
            &folder.path().join(name),
            Threads::new(Some(1), false),
            EngineKind::Cpu,
            Precision::F32,
        )
        .map(drop)
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
    let mut cache = KvCache::new(&setup.config.text, 2).unwrap();
    let vocab_size = setup.config.text.vocab_size as u32;
    let positions: [&[i64]; 3] = [&[0, 1]; 3];
    let good = Piece {
        token_ids: &[1, 2],
        positions,
        prefix_blocks: &[1],
        prefix: 7,
        own_blocks: &[0],
        own: 3,
    };
    // What no pass takes.
    let many = [0; 40];
    let many_positions = [0; 40];
    for bad in [
        Piece {
            token_ids: &[],
            positions: [&[]; 3],
            ..good
        },
        Piece {
            positions: [&[0, 1], &[0, 1], &[0]],
            ..good
        },
        Piece { prefix: 33, ..good },
        Piece { prefix: 0, ..good },
        Piece { own: 31, ..good },
        Piece {
            token_ids: &many,
            positions: [&many_positions; 3],
            ..good
        },
    ] {
        let message = Pass::default().push(&bad).unwrap_err().to_string();
        assert!(message.contains("do not fit"), "{message}");
    }
    // What this model or this cache does not take.
    let mut forward = |piece: &Piece<'_>, change: &dyn Fn(&mut Pass)| {
        let mut pass = Pass::default();
        pass.push(piece).unwrap();
        change(&mut pass);
        let logits = setup.model.forward(&mut cache, pass)?;
        Ok::<_, rollout::Error>(logits.rows()?.len())
    };
    assert_eq!(forward(&good, &|pass| pass.want(1)).unwrap(), 1);
    for (piece, change, word) in [
        (
            Piece {
                token_ids: &[1, vocab_size],
                ..good
            },
            (&|_: &mut Pass| {}) as &dyn Fn(&mut Pass),
            "vocabulary",
        ),
        (
            Piece {
                own_blocks: &[2],
                ..good
            },
            &|_: &mut Pass| {},
            "block",
        ),
        (
            Piece {
                prefix_blocks: &[u32::MAX],
                ..good
            },
            &|_: &mut Pass| {},
            "block",
        ),
        (good, &|pass: &mut Pass| pass.want(2), "position"),
        (
            good,
            &|pass: &mut Pass| pass.push_image(0, &[0.0]),
            "image_embeds",
        ),
    ] {
        let message = forward(&piece, change).unwrap_err().to_string();
        assert!(message.contains(word), "{word}: {message}");
    }
    let empty = setup.model.forward(&mut cache, Pass::default());
    assert!(empty.unwrap_err().to_string().contains("without tokens"));
}
