//! Where the fixtures lie.

use std::path::{Path, PathBuf};

/// The repository's own: these tests are about this program, not about parity with another set.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/qwen2_5_vl")
}
