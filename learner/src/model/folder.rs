//! Weights as a plain Hugging Face folder.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::parameters::Parameters;

/// Files of a model folder that go along with its weights; larger ones are not what a model folder holds.
const COMPANIONS: [&str; 3] = ["json", "txt", "jinja"];
const MAX_COMPANION_BYTES: u64 = 64 << 20;
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Writes a model folder at `to`: the weights, f32 or `bf16`, and configuration, tokenizer and templates of the folder
/// `from`. The folder appears whole or not at all; an existing one of that name is replaced.
pub fn save(parameters: &Parameters, from: &Path, to: &Path, bf16: bool) -> Result<()> {
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    ensure!(
        !to.exists() || to.join("config.json").exists(),
        "{} exists and is no model folder; give another one",
        to.display()
    );
    let staging = tempfile::Builder::new()
        .prefix(".model-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot write in {}", parent.display()))?;
    copy_companions(from, staging.path())?;
    parameters.save(&staging.path().join(WEIGHTS), bf16)?;
    for entry in fs::read_dir(staging.path())? {
        fs::File::open(entry?.path())?.sync_all()?;
    }
    if to.exists() {
        // Renaming cannot replace a folder that is not empty: the old one steps aside first.
        let aside = tempfile::Builder::new()
            .prefix(".model-")
            .tempdir_in(parent)?;
        fs::rename(to, aside.path().join("old"))
            .with_context(|| format!("cannot replace {}", to.display()))?;
        fs::rename(staging.keep(), to).with_context(|| format!("cannot write {}", to.display()))?;
    } else {
        fs::rename(staging.keep(), to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    fs::File::open(parent)?
        .sync_all()
        .with_context(|| format!("cannot write {}", parent.display()))
}

pub(crate) fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        let is_companion = path
            .extension()
            .is_some_and(|extension| COMPANIONS.iter().any(|known| extension == *known));
        let metadata = fs::metadata(&path)?; // through links: the hub's cache is made of them
        if is_companion
            && metadata.is_file()
            && metadata.len() <= MAX_COMPANION_BYTES
            && name != INDEX
        {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            fs::write(to.join(name), bytes)
                .with_context(|| format!("cannot write in {}", to.display()))?;
        }
    }
    Ok(())
}
