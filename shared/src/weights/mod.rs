//! Publications: one folder per policy version, complete and durable before it has its name, never changed afterwards.
//!
//! `runs/X/weights/v00000012/model.safetensors`. Making a version known is the learner's next step
//! (`LearnerControl::publish`): a follower learns of it from the control page, never from the folder.

mod publish;

use std::fs;
use std::path::{Path, PathBuf};

pub use publish::publish;

use crate::error::{Error, Result};
use crate::ids::PolicyVersion;
use crate::run_dir;

const FILE_NAME: &str = "model.safetensors";

/// The file of a version.
pub fn path(run_dir: &Path, version: PolicyVersion) -> PathBuf {
    folder(run_dir, version).join(FILE_NAME)
}

/// The highest version that is complete.
pub fn newest(run_dir: &Path) -> Result<Option<PolicyVersion>> {
    Ok(versions(run_dir)?.last().copied())
}

/// All versions that are complete, lowest first.
pub fn versions(run_dir: &Path) -> Result<Vec<PolicyVersion>> {
    let mut versions = begun(run_dir)?;
    versions.retain(|version| path(run_dir, *version).is_file());
    Ok(versions)
}

/// Removes all versions but the `keep` highest, and what an interrupted publication left; returns the removed versions.
/// Processes that have an old one mapped keep it until they let go. Only the publisher may call it.
pub fn prune(run_dir: &Path, keep: usize) -> Result<Vec<PolicyVersion>> {
    for version in begun(run_dir)? {
        remove_temporaries(&folder(run_dir, version))?;
    }
    let mut versions = versions(run_dir)?;
    versions.truncate(versions.len().saturating_sub(keep));
    for version in &versions {
        // The file first, so that an interrupted removal leaves no folder that looks complete.
        let file = path(run_dir, *version);
        fs::remove_file(&file).map_err(Error::io("remove", &file))?;
        let folder = folder(run_dir, *version);
        fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    Ok(versions)
}

/// All versions that have a folder, lowest first.
fn begun(run_dir: &Path) -> Result<Vec<PolicyVersion>> {
    let root = root(run_dir);
    let entries = match fs::read_dir(&root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", &root))?,
    };
    let mut versions = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("list", &root))?.file_name();
        versions.extend(name.to_str().and_then(parse));
    }
    versions.sort_unstable();
    Ok(versions)
}

fn remove_temporaries(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(run_dir::is_temporary)
        {
            fs::remove_file(entry.path()).map_err(Error::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

fn root(run_dir: &Path) -> PathBuf {
    run_dir.join("weights")
}

fn folder(run_dir: &Path, version: PolicyVersion) -> PathBuf {
    root(run_dir).join(format!("v{:08}", version.0))
}

/// The version of a folder's name, if it is one that `folder` makes.
fn parse(name: &str) -> Option<PolicyVersion> {
    let digits = name.strip_prefix('v').filter(|digits| digits.len() >= 8)?;
    let is_plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| is_plain).map(PolicyVersion)
}
