//! Bad input: one clear line that says what to do, a non-zero exit, nothing lost.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tests::Fixtures;
use tests::programs::{geo_mini, geo_mini_data, output};

use crate::run::{HANG, Run, STEPS};

/// Runs a program that must fail, and gives its last line of standard error.
pub(crate) fn complaint(program: &str, arguments: &[&str]) -> Result<String> {
    let result = output(program, arguments)?;
    let text = String::from_utf8_lossy(&result.stderr).into_owned();
    assert!(
        !result.status.success(),
        "{program} {arguments:?} ended well:\n{text}"
    );
    assert!(
        result.status.code().is_some(),
        "{program} {arguments:?} was killed by a signal:\n{text}"
    );
    assert!(
        !text.contains("panicked"),
        "{program} {arguments:?} panicked:\n{text}"
    );
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    Ok(line.context("it said nothing")?.to_owned())
}

pub(crate) fn assert_says(line: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(line.contains(part), "`{part}` is not in: {line}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// A copy of the fixture model whose weights file is changed by `change`.
fn model_with(change: impl FnOnce(Vec<u8>) -> Result<Vec<u8>>) -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let model = folder.path().join("model");
    fs::create_dir(&model)?;
    for entry in fs::read_dir(Fixtures::open()?.model())? {
        let entry = entry?;
        fs::copy(entry.path(), model.join(entry.file_name()))?;
    }
    let weights = model.join("model.safetensors");
    fs::write(&weights, change(fs::read(&weights)?)?)?;
    Ok((folder, model))
}

/// Rewrites the JSON header of a safetensors file.
fn with_header(
    bytes: &[u8],
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) -> Result<Vec<u8>> {
    let (length, rest) = bytes.split_at_checked(8).context("no length")?;
    let length = usize::try_from(u64::from_le_bytes(length.try_into()?))?;
    let (header, data) = rest.split_at_checked(length).context("no header")?;
    let mut header: serde_json::Map<_, _> = serde_json::from_slice(header)?;
    change(&mut header);
    let header = serde_json::to_vec(&header)?;
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend(data);
    Ok(out)
}

/// What each program says of a model folder.
fn all_complain(model: &Path, wanted: &[&str]) -> Result<()> {
    let run = tempfile::tempdir()?;
    let (run_dir, out) = (run.path().join("run"), run.path().join("onnx"));
    let data = geo_mini_data("test");
    let lines = [
        complaint(
            "learner",
            &["--run-dir", text(&run_dir), "--model", text(model)],
        )?,
        complaint(
            "rollout",
            &["eval", "--model", text(model), "--data", text(&data)],
        )?,
        complaint("models", &["export", text(model), text(&out)])?,
    ];
    for line in lines {
        assert_says(&line, wanted);
    }
    Ok(())
}

#[test]
fn no_such_model_folder() -> Result<()> {
    all_complain(Path::new("/no/such/folder"), &["/no/such/folder"])
}

#[test]
fn truncated_weights() -> Result<()> {
    let (_folder, model) = model_with(|mut bytes| {
        bytes.truncate(bytes.len() - 1000);
        Ok(bytes)
    })?;
    all_complain(&model, &["model.safetensors"])
}

#[test]
fn a_missing_tensor_is_named() -> Result<()> {
    let (_folder, model) = model_with(|bytes| {
        with_header(&bytes, |header| {
            if let Some(tensor) = header.remove("model.norm.weight") {
                header.insert("model.mystery.weight".to_owned(), tensor);
            }
        })
    })?;
    all_complain(&model, &["model.norm.weight"])
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() -> Result<()> {
    let mut shapes = (0, 0);
    let (_folder, model) = model_with(|bytes| {
        with_header(&bytes, |header| {
            let shape = &mut header["model.layers.0.mlp.down_proj.weight"]["shape"];
            shapes = (
                shape[0].as_u64().unwrap_or(0),
                shape[1].as_u64().unwrap_or(0),
            );
            *shape = serde_json::json!([shapes.1, shapes.0]);
        })
    })?;
    let expected = format!("[{}, {}]", shapes.0, shapes.1);
    let got = format!("[{}, {}]", shapes.1, shapes.0);
    all_complain(
        &model,
        &["model.layers.0.mlp.down_proj.weight", &expected, &got],
    )
}

#[test]
fn an_unknown_key_is_named_with_its_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("settings.toml");
    fs::write(&file, "[learner]\nbeat = 0.5\n")?;
    for program in ["learner", "rollout"] {
        let line = complaint(
            program,
            &[
                "--config",
                text(&file),
                "--run-dir",
                text(&folder.path().join("run")),
            ],
        )?;
        assert_says(&line, &["settings.toml", "beat", "beta"]);
    }
    Ok(())
}

#[test]
fn a_malformed_data_set_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("train.parquet");
    fs::write(&file, b"PAR1 this is no parquet file PAR1")?;
    let line = complaint(
        "rollout",
        &[
            "eval",
            "--data",
            text(&file),
            "--model",
            text(&Fixtures::open()?.model()),
        ],
    )?;
    assert_says(&line, &["train.parquet"]);
    Ok(())
}

#[test]
fn engines_without_their_libraries_name_them() -> Result<()> {
    let model = Fixtures::open()?.model();
    let data = geo_mini_data("test");
    for (engine, library) in [
        ("cuda", "libonnxruntime_providers_cuda.so"),
        ("trt", "libonnxruntime_providers_tensorrt.so"),
    ] {
        let line = complaint(
            "rollout",
            &[
                "eval",
                "--engine",
                engine,
                "--data",
                text(&data),
                "--model",
                text(&model),
            ],
        )?;
        assert_says(&line, &[library, "onnxruntime-gpu"]);
    }
    Ok(())
}

#[test]
fn a_run_folder_in_use_is_refused() -> Result<()> {
    let run = Run::new(STEPS)?;
    let first = run.learner(&[])?; // waits for a rollout
    while !run.dir().join("control").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let line = complaint(
        "learner",
        &["--run-dir", text(&run.dir()), "--model", text(&geo_mini())],
    )?;
    assert_says(&line, &["in use", text(&run.dir())]);
    first.kill()
}

#[test]
fn a_ring_of_another_layout_version_is_refused() -> Result<()> {
    let run = Run::new(STEPS)?;
    let rollout = run.rollout()?;
    run.learner(&[])?.succeed(HANG)?;
    rollout.succeed(HANG)?;
    let ring = fs::read_dir(run.dir().join("rings"))?
        .next()
        .context("the run made no ring")??
        .path();
    let mut bytes = fs::read(&ring)?;
    let version = bytes.get_mut(8).context("a header")?; // behind the magic
    *version = version.wrapping_add(1);
    fs::write(&ring, bytes)?;

    let more = (STEPS + 1).to_string();
    let line = complaint(
        "learner",
        &["--run-dir", text(&run.dir()), "--resume", "--steps", &more],
    )?;
    assert_says(&line, &["version", text(&ring)]);
    Ok(())
}

#[test]
fn prompts_that_are_too_long_are_counted_not_cut() -> Result<()> {
    let data = geo_mini_data("test");
    let result = output(
        "rollout",
        &[
            "eval",
            "--greedy",
            "--limit",
            "3",
            "--max-prompt-tokens",
            "10",
            "--data",
            text(&data),
            "--model",
            text(&geo_mini()),
        ],
    )?;
    let said = String::from_utf8_lossy(&result.stderr).into_owned()
        + &String::from_utf8_lossy(&result.stdout);
    assert_says(&said, &["3 were skipped", "45 tokens", "10 allowed"]);
    Ok(())
}

#[test]
fn broken_samples_inside_a_good_data_set_are_skipped_counted_and_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let good = Fixtures::open()?.image("triangle")?;
    fs::write(folder.path().join("good.png"), &good)?;
    fs::write(
        folder.path().join("bad.png"),
        good.get(..good.len() / 2).context("an image")?,
    )?;
    let file = folder.path().join("test.jsonl");
    let row = |id: &str, image: &str| {
        format!(
            r#"{{"id": "{id}", "problem": "<image>What?", "answer": "1", "images": ["{image}"]}}"#
        )
    };
    fs::write(
        &file,
        [row("one", "good.png"), row("two", "bad.png")].join("\n"),
    )?;
    let model = Fixtures::open()?.model();
    let result = output(
        "rollout",
        &[
            "eval",
            "--greedy",
            "--max-response-tokens",
            "4",
            "--data",
            text(&file),
            "--model",
            text(&model),
        ],
    )?;
    let said = String::from_utf8_lossy(&result.stderr).into_owned()
        + &String::from_utf8_lossy(&result.stdout);
    assert!(result.status.success(), "{said}");
    assert_says(&said, &["two", "1 skipped"]);
    Ok(())
}
