//! Writing a version so that it appears whole or not at all.
#![allow(
    unsafe_code,
    reason = "maps a file that has no name yet, to fill it without a second copy"
)]

use std::fs::File;
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
    Filled::new(run_dir, version, len, fill)?.finish()
}

/// A version whose bytes are all there, but not yet on the disk, and without its name. Dropped, it was never there.
#[derive(Debug)]
pub struct Filled {
    run_dir: PathBuf,
    version: PolicyVersion,
    temporary: PathBuf,
    /// Both are there until it is finished.
    mapped: Option<(File, MmapMut)>,
}

impl Filled {
    /// The first half of [`publish`]: what takes the publisher's own data.
    pub fn new<E>(
        run_dir: &Path,
        version: PolicyVersion,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> std::result::Result<(), E>,
    ) -> Result<Self>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        run_dir::create_folder(&folder(run_dir, version))?;
        let mut filled = Self {
            run_dir: run_dir.to_owned(),
            version,
            temporary: run_dir::temporary(&path(run_dir, version)),
            mapped: None,
        };
        let temporary = &filled.temporary;
        let file = run_dir::create_file(temporary)?;
        run_dir::allocate(&file, temporary, len as u64)?;
        // SAFETY: no other process opens the file before it is renamed, nothing truncates it, and all its blocks exist.
        let map = unsafe { MmapMut::map_mut(&file) };
        let mut map = map.map_err(Error::io("map", temporary))?;
        fill(&mut map).map_err(|source| Error::Fill {
            version: version.0,
            source: source.into(),
        })?;
        filled.mapped = Some((file, map));
        Ok(filled)
    }

    /// The second half: durable, then under its name.
    pub fn finish(mut self) -> Result<PathBuf> {
        let target = path(&self.run_dir, self.version);
        if let Some((file, map)) = self.mapped.take() {
            map.flush().map_err(Error::io("write", &self.temporary))?;
            drop(map);
            run_dir::sync(&file, &self.temporary)?;
        }
        run_dir::rename(&self.temporary, &target)?;
        run_dir::sync_folder(&super::root(&self.run_dir))?;
        Ok(target)
    }
}

impl Drop for Filled {
    /// In vain where it has its name.
    fn drop(&mut self) {
        run_dir::discard(&self.temporary);
        // Stays where it holds a publication of this version.
        let _ = std::fs::remove_dir(folder(&self.run_dir, self.version));
    }
}
