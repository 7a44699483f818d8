//! What the hub's cache folder holds of a data set: `refs/REVISION` names a commit, `snapshots/COMMIT` has its files.

use std::fs;
use std::path::{Path, PathBuf};

use super::hub_name::{HubName, is_commit, is_plain};
use super::limits::DatasetLimits;
use super::locate::{candidates, pick, shard, split_of};

/// Most revisions that a message lists.
const MAX_LISTED: usize = 8;

/// The split's files in the cache, when all of them are there.
pub(super) fn cached(
    repository: &Path,
    name: HubName,
    split: Option<&str>,
    limits: &DatasetLimits,
) -> Result<Vec<PathBuf>, String> {
    let snapshot = snapshot_of(repository, name)?;
    let files = candidates(&snapshot, limits).map_err(|error| error.to_string())?;
    let files = pick(files, name.text, split)?;
    // A cache may hold one split only, and it may be the wrong one.
    if let (None, Some(only)) = (split, files.first().map(|file| split_of(file)))
        && ["test", "val", "dev", "eval"]
            .iter()
            .any(|word| only.starts_with(word))
    {
        return Err(format!(
            "its split {only} alone; say {}@{only} if that is meant",
            name.text
        ));
    }
    for file in &files {
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        if let Some((split, _, count)) = stem.and_then(shard) {
            let shards = files.iter().filter_map(|file| {
                let (other, ..) = shard(file.file_stem()?.to_str()?)?;
                (other == split).then_some(())
            });
            let there = shards.count();
            if there < count {
                return Err(format!("{there} of the {count} files of {split}"));
            }
        }
    }
    Ok(files.iter().map(|file| snapshot.join(file)).collect())
}

/// The cached folder of a revision: a commit's own, or the one that a branch or a tag was last seen at.
fn snapshot_of(repository: &Path, name: HubName) -> Result<PathBuf, String> {
    let snapshots = repository.join("snapshots");
    let commit = if is_commit(name.revision) {
        name.revision.to_owned()
    } else {
        let file = repository.join("refs").join(name.revision);
        match fs::read_to_string(file) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => return Err(lacking(repository, name)),
        }
    };
    if !is_plain(&commit) {
        return Err(format!("its refs/{} names no revision", name.revision));
    }
    let snapshot = snapshots.join(commit);
    if snapshot.is_dir() {
        return Ok(snapshot);
    }
    Err(lacking(repository, name))
}

/// What the cache lacks of a name, and which revisions it has instead.
fn lacking(repository: &Path, name: HubName) -> String {
    let mut there = Vec::new();
    list_refs(&repository.join("refs"), "", &mut there);
    let commits = fs::read_dir(repository.join("snapshots"));
    let commits = commits.into_iter().flatten().flatten();
    there.extend(
        commits
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|commit| is_commit(commit))
            .take(MAX_LISTED),
    );
    there.sort_unstable();
    there.dedup();
    if there.is_empty() {
        return "nothing of it".to_owned();
    }
    there.truncate(MAX_LISTED);
    format!(
        "nothing of its revision {}; there is {}",
        name.revision,
        there.join(", ")
    )
}

/// Names of branches and tags below `folder`; those with a slash lie deeper.
fn list_refs(folder: &Path, below: &str, names: &mut Vec<String>) {
    let entries = fs::read_dir(folder);
    for entry in entries.into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let name = format!("{below}{name}");
        let depth = name.matches('/').count();
        if names.len() >= MAX_LISTED || depth > 4 {
            return;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list_refs(&entry.path(), &format!("{name}/"), names),
            _ => names.push(name),
        }
    }
}
