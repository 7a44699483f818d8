//! Checkpoints of random weights: what is written opens, holds what was promised, and depends on the seed alone.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test fails where it stands; its numbers are small"
)]
#![allow(missing_docs, reason = "a test binary")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use models::checkpoint::{Checkpoint, F32Layout};
use models::config::ModelConfig;
use models::names;
use models::random::{Dtype, Plan, write};

/// A folder with the configuration of a tiny model and two companions.
fn source(folder: &Path) -> PathBuf {
    let source = folder.join("source");
    fs::create_dir(&source).unwrap();
    let config = serde_json::json!({
        "model_type": "qwen2_5_vl", "tie_word_embeddings": false, "initializer_range": 0.05,
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 3000, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "eos_token_id": 1, "image_token_id": 2, "video_token_id": 3, "vision_start_token_id": 4,
        "vision_end_token_id": 5,
        "vision_config": {
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "in_chans": 3,
            "patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2, "window_size": 112,
            "out_hidden_size": 64, "fullatt_block_indexes": [1], "tokens_per_second": 2
        }
    });
    fs::write(source.join("config.json"), config.to_string()).unwrap();
    fs::write(source.join("tokenizer.json"), "{\"kept\": \"as it is\"}").unwrap();
    fs::write(source.join("merges.txt"), "a b\n").unwrap();
    source
}

fn models(source: &Path, out: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_models"))
        .args(["random", "--config"])
        .arg(source)
        .args(more)
        .arg(out)
        .output()
        .unwrap()
}

fn succeed(source: &Path, out: &Path, more: &[&str]) {
    let output = models(source, out, more);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{message}");
    assert_eq!(message, "", "a small checkpoint shows no progress");
}

/// The one line that a refused call prints.
fn fail(source: &Path, out: &Path, more: &[&str]) -> String {
    let output = models(source, out, more);
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    message
}

fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn the_folder_is_a_checkpoint_of_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    let out = folder.path().join("deep/out");
    succeed(&source.join("config.json"), &out, &["--seed", "3"]);

    let config = ModelConfig::from_dir(&out).unwrap();
    let checkpoint = Checkpoint::open(&out).unwrap();
    checkpoint.check(&config).unwrap();
    let specs = names::tensors(&config);
    assert_eq!(checkpoint.names().count(), specs.len());
    for name in ["config.json", "tokenizer.json", "merges.txt"] {
        let read = |folder: &Path| fs::read(folder.join(name)).unwrap();
        assert_eq!(read(&out), read(&source), "{name}");
    }
    assert!(!out.join("vocab.json").exists());
    // An export then links it instead of copying.
    let layout = F32Layout::new(&specs);
    assert!(layout.matches(&out.join("model.safetensors")).unwrap());
    let leftovers = fs::read_dir(out.parent().unwrap()).unwrap().count() - 1;
    assert_eq!(leftovers, 0);

    for spec in specs {
        let values = checkpoint.read_f32(&spec.name).unwrap();
        if spec.name.contains("norm") || spec.name.ends_with("ln_q.weight") {
            assert!(values.iter().all(|&value| value == 1.0), "{}", spec.name);
            continue;
        }
        let deviation = if spec.name.ends_with("bias") {
            0.005
        } else {
            0.05
        };
        let count = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let variance = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / count;
        // Five standard errors.
        let error = 5.0 * deviation / count.sqrt();
        assert!(mean.abs() < error, "{}: mean {mean}", spec.name);
        assert!(
            (variance.sqrt() - deviation).abs() < error,
            "{}: {}",
            spec.name,
            variance.sqrt()
        );
        let beyond = values
            .iter()
            .filter(|v| f64::from(v.abs()) > 2.0 * deviation)
            .count();
        if count > 10_000.0 {
            // 4.55 % of a normal distribution.
            assert!(
                (beyond as f64 / count - 0.0455).abs() < 0.01,
                "{}: {beyond}",
                spec.name
            );
        }
    }
    // Matrices of one shape are not copies of each other.
    let gate = names::text_layer(0, "mlp.gate_proj.weight");
    let up = names::text_layer(0, "mlp.up_proj.weight");
    assert_ne!(
        checkpoint.read_f32(&gate).unwrap(),
        checkpoint.read_f32(&up).unwrap()
    );
}

#[test]
fn the_bytes_depend_on_the_seed_and_not_on_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    let out = |name: &str| folder.path().join(name);
    succeed(&source, &out("a"), &["--seed", "3"]);
    succeed(&source, &out("other"), &["--seed", "4"]);
    let status = Command::new(env!("CARGO_BIN_EXE_models"))
        .env("RAYON_NUM_THREADS", "1")
        .args(["random", "--seed", "3", "--config"])
        .args([&source, &out("b")])
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(weights(&out("a")), weights(&out("b")));
    assert_ne!(weights(&out("a")), weights(&out("other")));
}

#[test]
fn shorter_types_hold_the_same_numbers_rounded() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    let wide = folder.path().join("f32");
    succeed(&source, &wide, &[]);
    let wide = Checkpoint::open(&wide).unwrap();
    for (dtype, relative) in [("bf16", 1.0 / 256.0), ("f16", 1.0 / 2048.0)] {
        let out = folder.path().join(dtype);
        succeed(&source, &out, &["--dtype", dtype]);
        let narrow = Checkpoint::open(&out).unwrap();
        narrow.check(&ModelConfig::from_dir(&out).unwrap()).unwrap();
        for name in wide.names() {
            let (wide, narrow) = (wide.read_f32(name).unwrap(), narrow.read_f32(name).unwrap());
            for (wide, narrow) in wide.iter().zip(narrow) {
                // f16 has a least step of 2^-24 near 0.
                let tolerance = f32::max(wide.abs() * relative, 6e-8);
                assert!(
                    (wide - narrow).abs() <= tolerance,
                    "{name}: {wide} {narrow}"
                );
            }
        }
    }
}

#[test]
fn a_large_checkpoint_is_cut_into_shards_of_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |shard_bytes| Plan {
        config: source_once(folder.path()),
        seed: 9,
        dtype: Dtype::Bf16,
        shard_bytes,
    };
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let mut last = (0, 0);
    write(&plan(u64::MAX), &whole, |done, total| last = (done, total)).unwrap();
    assert_eq!(last.0, last.1);
    let written = write(&plan(100_000), &cut, |_, _| {}).unwrap();
    assert_eq!(written.bytes, last.1);
    assert!(!cut.join("model.safetensors").exists());
    let shards: Vec<&String> = written
        .files
        .iter()
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    assert!(shards.len() > 2);
    for (index, name) in shards.iter().enumerate() {
        assert_eq!(
            **name,
            format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len())
        );
        // No more than the limit, but for a tensor that is larger: the embedding and the head.
        let size = fs::metadata(cut.join(name)).unwrap().len();
        let tensors = Checkpoint::open(&cut.join(name)).unwrap().names().count();
        assert!(size < 100_000 + 4096 || tensors == 1, "{name}: {size}");
    }
    let (whole, cut_checkpoint) = (
        Checkpoint::open(&whole).unwrap(),
        Checkpoint::open(&cut).unwrap(),
    );
    cut_checkpoint
        .check(&ModelConfig::from_dir(&cut).unwrap())
        .unwrap();
    for name in whole.names() {
        assert_eq!(
            whole.read_f32(name).unwrap(),
            cut_checkpoint.read_f32(name).unwrap(),
            "{name}"
        );
    }
}

fn source_once(folder: &Path) -> PathBuf {
    let there = folder.join("source");
    if there.exists() {
        there
    } else {
        source(folder)
    }
}

#[test]
fn bad_calls_are_refused_in_one_line_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();

    let filled = home.join("filled");
    fs::create_dir(&filled).unwrap();
    fs::write(filled.join("precious"), "x").unwrap();
    assert!(fail(&source, &filled, &[]).contains("not empty"));
    assert_eq!(fs::read_dir(&filled).unwrap().count(), 1);

    let nowhere = fail(&folder.path().join("nowhere"), &home.join("out"), &[]);
    assert!(nowhere.contains("nowhere"), "{nowhere}");

    let bad = folder.path().join("bad.json");
    let text = fs::read_to_string(source.join("config.json")).unwrap();
    fs::write(&bad, text.replace("qwen2_5_vl", "llama")).unwrap();
    let message = fail(&bad, &home.join("out"), &[]);
    assert!(
        message.contains("bad.json") && message.contains("model_type"),
        "{message}"
    );
    fs::write(&bad, text.replace("0.05", "-1")).unwrap();
    let message = fail(&bad, &home.join("out"), &[]);
    assert!(
        message.contains("bad.json") && message.contains("initializer_range"),
        "{message}"
    );
    fs::write(&bad, "{").unwrap();
    assert!(fail(&bad, &home.join("out"), &[]).contains("bad.json"));
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "only `filled`");

    let empty = home.join("empty");
    fs::create_dir(&empty).unwrap();
    succeed(&source, &empty, &[]);
}
