//! Who may import whom: `models` and `shared` stand alone, `rollout` and `learner` never see each other, one engine each.

use std::collections::BTreeSet;
use std::process::Command;

/// The workspace's members and the two engines: the only names whose edges are fixed.
const WATCHED: [&str; 8] = [
    "models", "shared", "rollout", "learner", "geo-mini", "tests", "ort", "tch",
];

/// (crate, dependency) as they may stand in a manifest; dev-dependencies apart.
const ALLOWED: [(&str, &str); 8] = [
    ("rollout", "models"),
    ("rollout", "shared"),
    ("rollout", "ort"),
    ("learner", "models"),
    ("learner", "shared"),
    ("learner", "tch"),
    ("tests", "models"),
    ("tests", "shared"),
];

/// `tests` is a loader of reference values beside its test programs: the parity tests of the others use it.
const ALLOWED_DEV: [(&str, &str); 3] = [
    ("models", "tests"),
    ("rollout", "tests"),
    ("learner", "tests"),
];

#[test]
fn crates_import_only_what_the_design_allows() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();

    let mut edges = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            let from = package["name"].as_str().unwrap();
            let to = dependency["name"].as_str().unwrap();
            if WATCHED.contains(&to) {
                edges.insert((from, to, dependency["kind"] == "dev"));
            }
        }
    }
    // The programs import what they are made of: an empty list would mean that this test reads nothing.
    assert!(
        edges.contains(&("rollout", "ort", false)) && edges.contains(&("learner", "tch", false))
    );
    for (from, to, is_dev) in edges {
        let allowed =
            ALLOWED.contains(&(from, to)) || (is_dev && ALLOWED_DEV.contains(&(from, to)));
        assert!(
            allowed,
            "`{from}` must not depend on `{to}` (see the layout in the README)"
        );
    }
}
