//! A read-only memory map of a file: the one place of this crate that needs `unsafe`.
#![allow(unsafe_code, reason = "mapping a file")]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

/// The bytes of a file, mapped.
#[derive(Debug)]
pub(super) struct Mapped(Mmap);

impl Mapped {
    /// Maps a regular file; a pipe or a device would block or never end.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
        if !metadata.is_file() {
            return Err(Error::Checkpoint {
                path: path.to_path_buf(),
                problem: "not a regular file".into(),
            });
        }
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the map is read-only and only lent as `&[u8]`. Published files never change: every writer of ours
        // makes a temporary file and renames it, and the hub's files are written once.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Self(map))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
