//! `scripts/export_onnx.sh`: an ONNX folder that the reference checker accepts and a plain ONNX Runtime opens.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tests::Fixtures;
use tests::programs::output;

const CHECK: &str = r#"
import sys, onnx, onnxruntime
folder = sys.argv[1]
for name in ("vision", "decoder"):
    path = f"{folder}/{name}.onnx"
    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    print(name, [i.name for i in session.get_inputs()])
"#;

fn export(model: &Path, out: &Path) -> Result<()> {
    let path = |path: &Path| path.to_str().map(str::to_owned).context("UTF-8 path");
    let result = output("models", &["export", &path(model)?, &path(out)?])?;
    assert!(
        result.status.success(),
        "{}",
        String::from_utf8_lossy(&result.stderr)
    );
    Ok(())
}

#[test]
fn the_exported_folder_passes_the_checker_and_opens() -> Result<()> {
    let Some(python) = std::env::var_os("ONNX_CHECKER_PYTHON") else {
        println!("skipped: ONNX_CHECKER_PYTHON is not set (scripts/test.sh sets it)");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("onnx");
    export(&Fixtures::open()?.model(), &out)?;
    let result = Command::new(python)
        .arg("-c")
        .arg(CHECK)
        .arg(&out)
        .output()?;
    let text = String::from_utf8_lossy(&result.stderr);
    assert!(result.status.success(), "{text}");
    Ok(())
}

#[test]
fn new_weights_cost_the_weights_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("onnx");
    let model = Fixtures::open()?.model();
    export(&model, &out)?;
    let made = |name: &str| std::fs::metadata(out.join(name)).and_then(|data| data.modified());
    let graph = made("decoder.onnx")?;
    export(&model, &out)?;
    assert_eq!(made("decoder.onnx")?, graph, "the graph was written again");
    Ok(())
}
