//! Writing a version so that it appears whole or not at all.
#![allow(
    unsafe_code,
    reason = "maps a file that has no name yet, to fill it without a second copy"
)]

use std::path::{Path, PathBuf};

use memmap2::MmapMut;

use super::{folder, path};
use crate::error::{Error, Result};
use crate::ids::PolicyVersion;
use crate::run_dir;

/// Writes the `len` bytes of a version: allocated in full, mapped, filled by `fill`, made durable, renamed. Returns its
/// path. A version that exists is replaced; who has the old one mapped keeps it.
///
/// On a full disk, a failing `fill` or a failed fsync (never tried again) nothing appears and the temporary file is gone.
pub fn publish<E>(
    run_dir: &Path,
    version: PolicyVersion,
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> std::result::Result<(), E>,
) -> Result<PathBuf>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let target = path(run_dir, version);
    let folder = folder(run_dir, version);
    run_dir::create_folder(&folder)?;
    let temporary = run_dir::temporary(&target);
    let written = write(&temporary, version, len, fill)
        .and_then(|()| run_dir::rename(&temporary, &target))
        .and_then(|()| run_dir::sync_folder(&super::root(run_dir)));
    if let Err(error) = written {
        run_dir::discard(&temporary);
        // Stays where it holds an older publication of this version.
        let _ = std::fs::remove_dir(&folder);
        return Err(error);
    }
    Ok(target)
}

fn write<E>(
    temporary: &Path,
    version: PolicyVersion,
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> std::result::Result<(), E>,
) -> Result<()>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let file = run_dir::create_file(temporary)?;
    run_dir::allocate(&file, temporary, len as u64)?;
    // SAFETY: no other process opens the file before it is renamed, nothing truncates it, and all its blocks exist.
    let map = unsafe { MmapMut::map_mut(&file) };
    let mut map = map.map_err(Error::io("map", temporary))?;
    fill(&mut map).map_err(|source| Error::Fill {
        version: version.0,
        source: source.into(),
    })?;
    map.flush().map_err(Error::io("write", temporary))?;
    drop(map);
    run_dir::sync(&file, temporary)
}
