//! The generator as scripts/build_geo_mini.sh runs it.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(missing_docs, reason = "a test binary")]

use std::path::Path;
use std::process::Command;

fn geo_mini(arguments: &[&str], out: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_geo-mini"))
        .args(arguments)
        .arg("--out")
        .arg(out)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_same_call_writes_the_same_solutions() {
    let folder = tempfile::tempdir().unwrap();
    let sft = |name: &str, share: &str| {
        let out = folder.path().join(name);
        geo_mini(
            &["sft", "--rows", "30", "--wrong-method-share", share],
            &out,
        );
        std::fs::read(out).unwrap()
    };
    let first = sft("a.parquet", "0.5");
    assert!(first == sft("b.parquet", "0.5"));
    assert!(first != sft("c.parquet", "0"));
}

#[test]
fn the_skeleton_is_the_shipped_models_folder_without_weights() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("skeleton");
    geo_mini(&["skeleton"], &out);
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("model");
    for entry in std::fs::read_dir(&out).unwrap() {
        let name = entry.unwrap().file_name();
        let (made, shipped) = (out.join(&name), shipped.join(&name));
        assert!(
            std::fs::read(made).unwrap() == std::fs::read(shipped).unwrap(),
            "{name:?}"
        );
    }
}
