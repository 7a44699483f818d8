//! Where the fixtures lie.

use std::path::{Path, PathBuf};

/// Where the fixtures lie: `PARITY_FIXTURES`, else the repository's own.
pub(crate) fn fixtures() -> PathBuf {
    std::env::var_os("PARITY_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/qwen2_5_vl"),
        PathBuf::from,
    )
}
