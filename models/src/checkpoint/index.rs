//! `model.safetensors.index.json`: which shard holds which tensor. It is untrusted and may name no file outside its
//! folder, but for the links that the hub's own cache makes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::json::Object;
use crate::{Error, Result};

const FILE: &str = "model.safetensors.index.json";
const MAX_INDEX_BYTES: u64 = 32 << 20;

/// Shard file -> names of its tensors; `None` when the folder has no index.
pub(super) fn read(folder: &Path) -> Result<Option<BTreeMap<PathBuf, BTreeSet<String>>>> {
    let Some(top) = Object::open(&folder.join(FILE), MAX_INDEX_BYTES)? else {
        return Ok(None);
    };
    let weight_map = top
        .object("weight_map")?
        .ok_or_else(|| top.missing("weight_map"))?;
    let mut by_file: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for tensor in weight_map.keys() {
        let file = weight_map
            .string_opt(tensor)?
            .ok_or_else(|| weight_map.missing(tensor))?;
        by_file.entry(file).or_default().insert(tensor.to_string());
    }
    by_file
        .into_iter()
        .map(|(file, tensors)| Ok((resolve(folder, file)?, tensors)))
        .collect::<Result<_>>()
        .map(Some)
}

/// Path of a shard, refused when it leads out of the folder.
fn resolve(folder: &Path, file: &str) -> Result<PathBuf> {
    let problem = |problem: &str| Error::Checkpoint {
        path: folder.join(FILE),
        problem: format!("names the shard {file:?}, {problem}"),
    };
    let mut components = Path::new(file).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(name)), None) if name == file);
    if !plain {
        return Err(problem(
            "which is not a plain file name: a shard must lie beside its index",
        ));
    }
    let path = folder.join(file);
    let target = match path.canonicalize() {
        Ok(target) => target,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(problem("which is missing: download the checkpoint in full"));
        }
        Err(error) => return Err(Error::io(&path)(error)),
    };
    let home = folder.canonicalize().map_err(Error::io(folder))?;
    let inside = target.parent() == Some(&home)
        || hub_blobs(&home).is_some_and(|blobs| target.parent() == Some(&blobs));
    if !inside {
        return Err(problem(
            "which links to a place outside its folder: copy the file there instead",
        ));
    }
    Ok(path)
}

/// Where the files of a hub cache's `snapshots/<revision>` folder link to: `blobs` beside `snapshots`.
fn hub_blobs(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.parent()?;
    (snapshots.file_name() == Some(OsStr::new("snapshots")))
        .then(|| snapshots.with_file_name("blobs"))
}
