//! `learner sft` as a program: it learns, saves a model folder, and does the same again with the same seed.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test binary"
)]

use std::path::Path;
use std::process::Command;

use learner::logprobs::logprobs;
use learner::model::{Group, MicroBatch, Model};
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use tch::{Device, Kind};
use tests::Fixtures;

/// Two samples with the images of the fixtures.
fn write_data(fixtures: &Fixtures, folder: &Path) {
    let mut lines = String::new();
    for (index, name) in fixtures.image_names().unwrap().iter().take(2).enumerate() {
        let file = format!("{index}.png");
        std::fs::write(folder.join(&file), fixtures.image(name).unwrap()).unwrap();
        let row = serde_json::json!({
            "images": [file], "problem": "<image>How long is it?", "answer": "7", "solution": "It is \\boxed{7}.",
        });
        lines += &format!("{row}\n");
    }
    std::fs::write(folder.join("data.jsonl"), lines).unwrap();
}

fn sft(fixtures: &Fixtures, folder: &Path, out: &str, extra: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_learner"))
        .args([
            "sft",
            "--steps",
            "4",
            "--batch",
            "2",
            "--warmup-steps",
            "1",
            "--lr",
            "3e-3",
            "--threads",
            "1",
        ])
        .arg("--model")
        .arg(fixtures.model())
        .arg("--data")
        .arg(folder.join("data.jsonl"))
        .arg("--out")
        .arg(folder.join(out))
        .args(extra)
        .output()
        .unwrap()
}

/// Mean logprob of a solution under a saved model, without its image.
fn mean_logprob(model: &Path, prompt_ids: &[u32], response: &[u32]) -> f64 {
    let config = ModelConfig::from_dir(model).unwrap();
    let model = Model::load(&config, &Checkpoint::open(model).unwrap(), Device::Cpu).unwrap();
    let batch = MicroBatch {
        groups: vec![Group {
            prompt_ids,
            images: &[],
            responses: vec![response],
        }],
    };
    logprobs(&model, &batch, 1.0)
        .unwrap()
        .0
        .mean(Kind::Double)
        .double_value(&[])
}

#[test]
fn sft_learns_and_repeats_itself() {
    let fixtures = Fixtures::open().unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_data(&fixtures, folder.path());
    for out in ["a", "b"] {
        let output = sft(&fixtures, folder.path(), out, &[]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let weights =
        |out: &str| std::fs::read(folder.path().join(out).join("model.safetensors")).unwrap();
    assert!(
        weights("a") == weights("b"),
        "the same seed gave other weights"
    );

    let tokenizer = models::tokenizer::Tokenizer::from_dir(&fixtures.model()).unwrap();
    let prompt = tokenizer.encode("How long is it?").unwrap();
    let response = tokenizer.encode("It is \\boxed{7}.").unwrap();
    let before = mean_logprob(&fixtures.model(), &prompt, &response);
    let after = mean_logprob(&folder.path().join("a"), &prompt, &response);
    println!("mean logprob of the solution: {before:.2} before, {after:.2} after");
    assert!(after > before + 0.5);

    // From nothing, and with micro-batches of one: another model, the same loss whatever the micro-batch.
    for (out, budget) in [("c", "1"), ("d", "16384")] {
        let output = sft(
            &fixtures,
            folder.path(),
            out,
            &["--init", "3", "--micro-batch-tokens", budget],
        );
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let (c, d) = (folder.path().join("c"), folder.path().join("d"));
    let difference = mean_logprob(&c, &prompt, &response) - mean_logprob(&d, &prompt, &response);
    assert!(
        difference.abs() < 1e-3,
        "micro-batches change the result by {difference}"
    );
}

/// A row that spells a control token is left out and named, as the rollout does: the others train as if it were not there.
#[test]
fn a_control_token_in_a_row_is_not_learnt() {
    let fixtures = Fixtures::open().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let row = |problem: &str, solution: &str| {
        let row = serde_json::json!({"images": [], "problem": problem, "answer": "2", "solution": solution});
        format!("{row}\n")
    };
    let write = |rows: &[String]| {
        std::fs::write(folder.path().join("data.jsonl"), rows.concat()).unwrap();
    };
    write(&[
        row("1 + 1?", "It is \\boxed{2}."),
        row("1 + 1?", "\\boxed{2}<|im_end|>\n<|im_start|>user"),
        row("1 + 1?<|image_pad|>", "\\boxed{2}"),
    ]);
    let output = sft(&fixtures, folder.path(), "a", &[]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{message}");
    for said in [
        "its solution holds the control token <|im_end|>",
        "its text holds the control token <|image_pad|>",
        "2 of 3 samples were left out",
    ] {
        assert!(message.contains(said), "{said}: {message}");
    }
    write(&[row("1 + 1?", "It is \\boxed{2}.")]);
    assert!(sft(&fixtures, folder.path(), "b", &[]).status.success());
    let weights =
        |out: &str| std::fs::read(folder.path().join(out).join("model.safetensors")).unwrap();
    assert!(weights("a") == weights("b"), "a row left out trains");

    write(&[row("1 + 1?", "<|im_end|>")]);
    let output = sft(&fixtures, folder.path(), "c", &[]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && message.contains("no sample can be used"),
        "{message}"
    );
    assert!(!folder.path().join("c").exists());
}

#[test]
fn a_data_set_without_solutions_is_refused() {
    let fixtures = Fixtures::open().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("data.jsonl"),
        "{\"images\": [], \"problem\": \"1 + 1?\", \"answer\": \"2\"}\n",
    )
    .unwrap();
    let output = sft(&fixtures, folder.path(), "out", &[]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && message.contains("no solution"),
        "{message}"
    );
    assert!(!folder.path().join("out").exists());
}
