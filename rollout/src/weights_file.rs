//! A checkpoint as the file that the graphs point into: as it is when it has their layout, else an f32 copy of it in the
//! temporary folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use models::checkpoint::{Checkpoint, F32Layout, write_f32_watched};
use models::config::ModelConfig;
use models::graph::WEIGHTS_FILE;
use shared::telemetry::Progress;
use tempfile::TempDir;

use crate::available::Disk;
use crate::memory::gib;
use crate::stop::Stop;

/// How the folders of copies are called.
const PREFIX: &str = "rollout-f32-";
/// A copy that takes this much deserves a word about where it goes.
const LARGE: u64 = 256 << 20;
/// Locked in a copy's folder while its process lives.
const LOCK: &str = "lock";

/// A weights file; a converted one lives as long as this does. Once an engine has loaded it, it is mapped and this may go.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    _copy: Option<Copy>,
}

/// The folder of a copy. Dropped in this order: the lock is free when the folder is gone.
#[derive(Debug)]
struct Copy {
    folder: TempDir,
    _lock: File,
}

impl WeightsFile {
    /// `checkpoint` is a Hugging Face folder or one .safetensors file. One in another layout is converted, which
    /// `progress` shows and `stop` ends.
    ///
    /// # Errors
    /// A checkpoint that does not belong to `config`, or no room for the copy.
    pub fn of(
        checkpoint: &Path,
        config: &ModelConfig,
        progress: &Progress,
        stop: &Stop,
    ) -> Result<Self> {
        let layout = F32Layout::new(&models::names::tensors(config));
        let file = if checkpoint.is_dir() {
            checkpoint.join(WEIGHTS_FILE)
        } else {
            checkpoint.to_owned()
        };
        // The engine takes this name only, and no link: it would look for the weights where that leads.
        let is_usable = file.file_name().is_some_and(|name| name == WEIGHTS_FILE)
            && !file.is_symlink()
            && layout.matches(&file).unwrap_or(false);
        if is_usable {
            return Ok(Self {
                path: file,
                _copy: None,
            });
        }
        let opened = Checkpoint::open(checkpoint)?;
        opened.check(config)?;
        let parent = std::env::temp_dir();
        remove_abandoned(&parent);
        let total = layout.total_bytes as u64;
        let disk = Disk::of(&parent)
            .context("no place for an f32 copy of the weights; set TMPDIR to a folder")?;
        check_room(checkpoint, &parent, total, disk)?;
        tracing::info!(
            "writing an f32 copy of the weights ({}) to {}{}: {} is not in the engine's layout",
            gib(total),
            parent.display(),
            if disk.is_memory {
                ", which is memory"
            } else {
                ""
            },
            checkpoint.display(),
        );
        if total >= LARGE {
            tracing::info!(
                "TMPDIR chooses another folder; `scripts/export_onnx.sh {} OUT` makes a copy to keep, for --model OUT",
                checkpoint.display()
            );
        }
        let copy = Copy::make(&parent)?;
        let path = copy.folder.path().join(WEIGHTS_FILE);
        let start = Instant::now();
        let mut watch = |written| {
            progress.note(&format!("converted {} of {}", gib(written), gib(total)));
            if stop.is_raised() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "stopped"));
            }
            Ok(())
        };
        let written = write_f32_watched(&path, &opened, config, &mut watch);
        if stop.is_raised() {
            bail!("stopped while the weights were converted; nothing is left behind");
        }
        written?;
        tracing::info!("written in {:.1} s", start.elapsed().as_secs_f64());
        Ok(Self {
            path,
            _copy: Some(copy),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn check_room(checkpoint: &Path, folder: &Path, needed: u64, disk: Disk) -> Result<()> {
    if needed > disk.free_bytes {
        bail!(
            "no room for an f32 copy of {}: it takes {}, {} has {} free; set TMPDIR to a folder with more",
            checkpoint.display(),
            gib(needed),
            folder.display(),
            gib(disk.free_bytes)
        );
    }
    Ok(())
}

impl Copy {
    fn make(parent: &Path) -> Result<Self> {
        let make = || -> io::Result<Self> {
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            // Renamed when it is locked: another process never finds it free.
            let unlocked = folder.path().join("new");
            let lock = File::create(&unlocked)?;
            lock.lock()?;
            std::fs::rename(unlocked, folder.path().join(LOCK))?;
            Ok(Self {
                folder,
                _lock: lock,
            })
        };
        make().with_context(|| {
            format!(
                "cannot make a folder in {} for an f32 copy of the weights; set TMPDIR to another",
                parent.display()
            )
        })
    }
}

/// Removes this user's copies whose process was killed.
fn remove_abandoned(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let is_ours = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        let user = rustix::process::getuid().as_raw();
        name.to_string_lossy().starts_with(PREFIX)
            && entry
                .metadata() // not of what a link leads to
                .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user)
    };
    for folder in entries.filter(is_ours).map(|entry| entry.path()) {
        let Ok(lock) = File::open(folder.join(LOCK)) else {
            continue;
        };
        if lock.try_lock().is_ok() && std::fs::remove_dir_all(&folder).is_ok() {
            tracing::info!(
                "removed {}, left by a run that was killed",
                folder.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_is_one_line_with_both_sizes_and_what_to_do() {
        let disk = Disk {
            free_bytes: 3 << 30,
            is_memory: false,
        };
        let check = |needed| check_room(Path::new("model"), Path::new("/tmp"), needed, disk);
        assert!(check(3 << 30).is_ok());
        assert_eq!(
            check(12 << 30).unwrap_err().to_string(),
            "no room for an f32 copy of model: it takes 12.0 GiB, /tmp has 3.0 GiB free; set TMPDIR to a folder with more"
        );
    }

    #[test]
    fn only_abandoned_copies_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let alive = Copy::make(parent.path()).unwrap();
        // As after SIGKILL: the lock is free, the folder stays.
        let Copy {
            folder,
            _lock: lock,
        } = Copy::make(parent.path()).unwrap();
        let dead = folder.keep();
        drop(lock);
        let begun = parent.path().join(format!("{PREFIX}begun"));
        let other = parent.path().join("other");
        for folder in [&begun, &other] {
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::write(other.join(LOCK), b"").unwrap();
        let link = parent.path().join(format!("{PREFIX}link"));
        std::os::unix::fs::symlink(&other, &link).unwrap();
        remove_abandoned(parent.path());
        assert!(!dead.exists());
        assert!(alive.folder.path().exists() && begun.exists() && other.exists());
        assert!(link.is_symlink());
    }

    #[test]
    fn a_copy_goes_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        drop(Copy::make(parent.path()).unwrap());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
