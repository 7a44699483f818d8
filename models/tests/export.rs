//! The exporter as users run it: what it writes, what it leaves alone, and what it says about bad input.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails where it stands; its numbers are small"
)]
#![allow(missing_docs, reason = "a test binary")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use models::checkpoint::{Checkpoint, F32Layout, write_f32};
use models::config::ModelConfig;
use models::onnx::weight_inputs;
use tests::Fixtures;

fn model() -> PathBuf {
    Fixtures::open().unwrap().model()
}

fn export(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_models"))
        .arg("export")
        .args(arguments)
        .output()
        .unwrap()
}

fn succeed(arguments: &[&Path]) -> String {
    let output = export(arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that a failed export prints.
fn fail(arguments: &[&Path]) -> String {
    let output = export(arguments);
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    message
}

fn copy_of_model(folder: &Path) -> PathBuf {
    let copy = folder.join("model");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(model()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn a_folder_is_written_whole_then_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("deep/onnx");
    succeed(&[&model(), &out]);
    for name in [
        "decoder.onnx",
        "vision.onnx",
        "config.json",
        "tokenizer.json",
        "preprocessor_config.json",
    ] {
        assert!(out.join(name).exists(), "{name}");
    }
    let config = ModelConfig::from_dir(&out).unwrap();
    let layout = F32Layout::new(&models::names::tensors(&config));
    assert!(layout.matches(&out.join("model.safetensors")).unwrap());
    let leftovers = fs::read_dir(out.parent().unwrap()).unwrap().count() - 1;
    assert_eq!(leftovers, 0);

    let graph_inode = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
    let before = (graph_inode("decoder.onnx"), graph_inode("vision.onnx"));
    let said = succeed(&[&model(), &out]);
    assert!(said.contains("decoder.onnx: unchanged"), "{said}");
    assert_eq!(
        (graph_inode("decoder.onnx"), graph_inode("vision.onnx")),
        before
    );
}

#[test]
fn the_newest_weights_of_a_run_are_linked_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let config = ModelConfig::from_dir(&model()).unwrap();
    let checkpoint = Checkpoint::open(&model()).unwrap();
    let publish = |version: u64| {
        let folder = run.join(format!("weights/v{version:08}"));
        fs::create_dir_all(&folder).unwrap();
        write_f32(&folder.join("model.safetensors"), &checkpoint, &config).unwrap();
        folder.join("model.safetensors")
    };
    publish(2);
    let newest = publish(10);
    fs::create_dir_all(run.join("weights/v00000011")).unwrap(); // begun, not published
    fs::write(
        run.join("config.toml"),
        format!("[run]\nmodel = {:?}\n", model().display().to_string()),
    )
    .unwrap();

    let run_flag = |run: &Path| format!("--run-dir={}", run.display());
    let said = succeed(&[Path::new(&run_flag(&run))]);
    let exported = run.join("onnx/model.safetensors");
    assert!(said.contains("model.safetensors: linked"), "{said}");
    assert_eq!(
        fs::metadata(&exported).unwrap().ino(),
        fs::metadata(&newest).unwrap().ino()
    );

    let newer = publish(12);
    let said = succeed(&[Path::new(&run_flag(&run))]);
    assert!(
        said.contains("decoder.onnx: unchanged") && said.contains("model.safetensors: linked"),
        "{said}"
    );
    assert_eq!(
        fs::metadata(&exported).unwrap().ino(),
        fs::metadata(&newer).unwrap().ino()
    );
    let said = succeed(&[Path::new(&run_flag(&run))]);
    assert!(said.contains("model.safetensors: unchanged"), "{said}");

    let empty = folder.path().join("empty");
    assert!(fail(&[Path::new(&run_flag(&empty))]).contains("published no weights yet"));
}

#[test]
fn bad_input_gives_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("onnx");
    assert!(fail(&[&folder.path().join("absent"), &out]).contains("config.json"));

    let copy = copy_of_model(folder.path());
    let weights = copy.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    assert!(fail(&[&copy, &out]).contains("model.safetensors"));

    // The same table with one tensor under another name.
    let name = b"model.norm.weight";
    let at = bytes
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    let mut renamed = bytes.clone();
    renamed[at] = b'x';
    fs::write(&weights, &renamed).unwrap();
    assert!(fail(&[&copy, &out]).contains("`model.norm.weight` is missing"));

    fs::write(&weights, &bytes).unwrap();
    let config_path = copy.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(&config_path).unwrap()).unwrap();
    let text = if config.get("text_config").is_some() {
        &mut config["text_config"]
    } else {
        &mut config
    };
    let doubled = text["intermediate_size"].as_u64().unwrap() * 2;
    text["intermediate_size"] = doubled.into();
    fs::write(&config_path, config.to_string()).unwrap();
    let message = fail(&[&copy, &out]);
    assert!(
        message.contains("mlp.gate_proj.weight") && message.contains("wrong shape"),
        "{message}"
    );
    assert!(!out.exists());
}

/// The ONNX checker and a plain ONNX Runtime, where Python has them.
#[test]
fn the_onnx_checker_and_plain_onnx_runtime_accept_the_folder() {
    const SCRIPT: &str = "
import sys
try:
    import onnx
except ImportError:
    sys.exit(3)
for name in ('vision', 'decoder'):
    onnx.checker.check_model(f'{sys.argv[1]}/{name}.onnx', full_check=True)
    print(name, 'passes the checker of onnx', onnx.__version__)
try:
    import onnxruntime
except ImportError:
    sys.exit(0)
for name in ('vision', 'decoder'):
    onnxruntime.InferenceSession(f'{sys.argv[1]}/{name}.onnx', providers=['CPUExecutionProvider'])
    print(name, 'opens in onnxruntime', onnxruntime.__version__)
";
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("onnx");
    succeed(&[&model(), &out]);
    let python = std::env::var_os("ONNX_CHECKER_PYTHON").unwrap_or_else(|| "python3".into());
    match Command::new(&python)
        .args(["-c", SCRIPT])
        .arg(&out)
        .output()
    {
        Ok(output) if output.status.success() => {
            print!("{}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(output) if output.status.code() == Some(3) => println!("skipped: python3 has no `onnx`"),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => println!("skipped: no python3 ({error})"),
    }
}

#[test]
fn the_checkpoint_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy_of_model(folder.path());
    let before = fs::read(model.join("model.safetensors")).unwrap();
    let said = fail(&[&model, &model]);
    assert!(said.contains("give another OUT"), "{said}");
    assert!(before == fs::read(model.join("model.safetensors")).unwrap());
}

#[test]
fn graphs_for_devices_lie_in_folders_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy_of_model(folder.path());
    let mut sizes = Vec::new();
    for (options, out) in [
        (&["--form=cpu"][..], "onnx"),
        (&["--form=trt"], "onnx-trt"),
        (&["--form=cuda"], "onnx-cuda"),
    ] {
        let options = options.iter().map(Path::new);
        let arguments: Vec<&Path> = [model.as_path()].into_iter().chain(options).collect();
        let said = succeed(&arguments);
        let out = model.join(out);
        assert!(said.contains(&out.display().to_string()), "{said}");
        let weights = weight_inputs(&fs::read(out.join("decoder.onnx")).unwrap()).unwrap();
        assert!(out.join("vision.onnx").exists());
        // Where the graph says that a weight lies there is one: its numbers are those of the checkpoint.
        let file = fs::read(out.join("model.safetensors")).unwrap();
        let checkpoint = Checkpoint::open(&model).unwrap();
        for weight in &weights {
            assert_eq!(weight.location, "model.safetensors");
            let name = weight.name.strip_suffix(".f32").unwrap_or(&weight.name);
            let parts = name
                .split('+')
                .map(|part| checkpoint.read_f32(part).unwrap());
            let expected: Vec<u8> = parts.flatten().flat_map(f32::to_le_bytes).collect();
            let got = &file[weight.offset..weight.offset + weight.length];
            assert!(got == expected, "{}", weight.name);
        }
        sizes.push(weights.len());
    }
    assert_eq!(sizes[0], 0);
    assert!(sizes[1] > 0 && sizes[1] == sizes[2], "{sizes:?}");
}

#[test]
fn options_that_mean_nothing_for_a_form_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("onnx");
    for (options, message) in [
        ("--dtype=f32", "--dtype means nothing for --form cpu"),
        (
            "--candidates=8",
            "--candidates means nothing for --form cpu",
        ),
        (
            "--form=cuda --slots=64",
            "--slots means nothing for --form cuda",
        ),
        (
            "--form=cuda --decomposed",
            "--decomposed means nothing for --form cuda",
        ),
        (
            "--form=trt --cache=rows",
            "--cache means nothing for --form trt",
        ),
        ("--form=cuda --dtype=f32", "give --cache rows"),
        ("--form=trt --candidates=3840", "TensorRT takes 1 to 3839"),
    ] {
        let mut arguments = vec![model(), out.clone()];
        arguments.extend(options.split(' ').map(PathBuf::from));
        let arguments: Vec<&Path> = arguments.iter().map(PathBuf::as_path).collect();
        let said = fail(&arguments);
        assert!(said.contains(message), "{options}: {said}");
        assert!(!out.exists());
    }
}
