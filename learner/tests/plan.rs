//! `learner plan`: what it says for models of real size, and that an update takes what was planned.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test binary"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use models::random::{self, Dtype, SHARD_BYTES};
use serde_json::Value;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data")
        .join(name)
}

fn learner(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_learner"))
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// The config.json of a Qwen2.5-VL of that size.
fn config(folder: &Path, changes: &[(&str, Value)]) -> PathBuf {
    let text = std::fs::read_to_string(data("bench/config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in changes {
        json[*key] = value.clone();
    }
    json["rope_scaling"]["mrope_section"] = serde_json::json!([16, 24, 24]);
    json["vision_config"] = serde_json::json!({
        "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
        "in_chans": 3, "out_hidden_size": json["hidden_size"], "patch_size": 14, "spatial_merge_size": 2,
        "spatial_patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2, "temporal_patch_size": 2, "model_type": "qwen2_5_vl"
    });
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), json.to_string()).unwrap();
    folder.to_owned()
}

fn of_3b(folder: &Path) -> PathBuf {
    let sizes = [
        ("hidden_size", 2048),
        ("num_hidden_layers", 36),
        ("num_attention_heads", 16),
        ("num_key_value_heads", 2),
        ("intermediate_size", 11_008),
        ("vocab_size", 151_936),
    ];
    config(folder, &sizes.map(|(key, size)| (key, size.into())))
}

fn of_7b(folder: &Path) -> PathBuf {
    let sizes = [
        ("hidden_size", 3584),
        ("num_hidden_layers", 28),
        ("num_attention_heads", 28),
        ("num_key_value_heads", 4),
        ("intermediate_size", 18_944),
        ("vocab_size", 152_064),
    ];
    let mut changes = sizes.map(|(key, size)| (key, Value::from(size))).to_vec();
    changes.push(("tie_word_embeddings", false.into()));
    config(folder, &changes)
}

/// GiB of each line of a plan.
struct Table(String);

impl Table {
    fn of(folder: &Path, model: &Path, args: &[&str]) -> Self {
        let model = model.to_str().unwrap();
        let output = learner(folder, &[&["plan", "--model", model][..], args].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        println!("{args:?}\n{text}");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self(text)
    }

    fn gib(&self, name: &str) -> f64 {
        let line = self.0.lines().find(|line| line.ends_with(name));
        let line = line.unwrap_or_else(|| panic!("no line {name}"));
        let mut words = line.split_whitespace();
        let number: f64 = words.next().unwrap().parse().unwrap();
        match words.next().unwrap() {
            "MiB" => number / 1024.0,
            _ => number,
        }
    }
}

#[test]
fn models_of_real_size() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (small, large) = (of_3b(&folder.join("3b")), of_7b(&folder.join("7b")));
    let table = |model: &Path, args: &[&str]| Table::of(folder, model, args);
    let gpu = ["--device", "cuda:0", "--algo", "dapo"];

    // Qwen2.5-VL-3B has 3,754,622,976 weights, 7B 8,292,166,656; a GiB is 2^30 bytes.
    let full = table(&small, &gpu);
    for (name, gib) in [
        ("weights that are trained, f32", 14.0),
        ("their copy that products read", 7.0),
        ("gradients, f32", 14.0),
        ("AdamW's two moments, f32", 28.0),
    ] {
        assert!(
            (full.gib(name) - gib).abs() < 0.06,
            "{name}: {}",
            full.gib(name)
        );
    }
    assert!(!full.0.contains("reference model"));
    let large_full = table(&large, &gpu);
    assert!((large_full.gib("weights that are trained, f32") - 30.9).abs() < 0.06);
    assert!((large_full.gib("AdamW's two moments, f32") - 61.8).abs() < 0.06);

    // A KL term needs the reference, in bf16.
    let grpo = table(&small, &["--device", "cuda:0", "--algo", "grpo"]);
    assert!((grpo.gib("reference model") - 7.0).abs() < 0.06);

    // 36 layers: what each reads, and one layer's products.
    let checkpointed = table(&small, &[&gpu[..], &["--checkpoint-layers"]].concat());
    let kept = "activations of the decoder";
    assert!(checkpointed.gib(kept) < full.gib(kept) / 8.0);
    let half = table(
        &small,
        &[&gpu[..], &["--micro-batch-tokens", "8192"]].concat(),
    );
    assert!((half.gib(kept) / full.gib(kept) - 0.5).abs() < 0.01);

    // With LoRA nothing of the size of the model is there but the model, in bf16.
    let lora = table(&large, &[&gpu[..], &["--lora-rank", "64"]].concat());
    assert!((lora.gib("weights that are frozen") - 15.4).abs() < 0.06);
    assert!(lora.gib("AdamW's two moments, f32") < 1.5);
    // In f32 there is no copy.
    let f32 = table(&small, &[&gpu[..], &["--dtype", "f32"]].concat());
    assert!(!f32.0.contains("copy") && f32.gib("in all") > full.gib("in all"));
}

/// A 7B model trained on this CPU: refused in one line, before anything is loaded or made.
#[test]
fn what_cannot_fit_is_refused_with_what_would_help() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let table = Table::of(folder, &of_7b(&folder.join("7b")), &["--algo", "dapo"]);
    let free = table.0.lines().find(|line| line.contains("free on cpu"));
    let free = free.unwrap().split_whitespace().next().unwrap();
    if free.parse::<f64>().unwrap() >= table.gib("in all") {
        println!("skipped: this machine has room for a 7B model in f32");
        return;
    }
    let last = table.0.lines().last().unwrap();
    assert!(
        last.starts_with("with --") || last.starts_with("even --"),
        "{last}"
    );
}

/// Peak memory of `learner bench` against what it planned, with all activations and with the layers' inputs alone.
#[test]
fn an_update_takes_what_was_planned() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    // A third of the layers: a third of the time.
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for entry in std::fs::read_dir(data("bench")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, source.join(path.file_name().unwrap())).unwrap();
    }
    let text = std::fs::read_to_string(source.join("config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["num_hidden_layers"] = 4.into();
    std::fs::write(source.join("config.json"), json.to_string()).unwrap();
    let plan = random::Plan {
        config: source,
        seed: 1,
        dtype: Dtype::F32,
        shard_bytes: SHARD_BYTES,
    };
    random::write(&plan, &model, |_, _| ()).unwrap();
    for more in [&[][..], &["--checkpoint-layers"]] {
        let shape = "bench --model model --prompts 2 --group-size 6 --new-tokens 100 --image 448x448 --rounds 1 --json out.json";
        let args: Vec<&str> = shape.split(' ').chain(more.iter().copied()).collect();
        let output = learner(folder.path(), &args);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = std::fs::read_to_string(folder.path().join("out.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let mib = |key: &str| json[key].as_f64().unwrap();
        let (planned, peak) = (mib("planned_memory_mib"), mib("peak_memory_mib"));
        println!("{more:?}: planned {planned:.0} MiB, taken {peak:.0} MiB");
        assert!(
            (planned / peak - 1.0).abs() < 0.25,
            "planned {planned}, taken {peak}"
        );
    }
}
