//! The run folder: who may read it, how its files come to be, and who may use it.
//!
//! Folders are 0700, files 0600. A file is written under a temporary name, made durable and then renamed, so that a
//! reader sees it whole or not at all. A failed fsync is never tried again: the system may have dropped the data.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// The file that tells a run folder from any other.
const MARKER: &str = ".tor-run";
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// How long to wait for a lock whose holder may be dying: a killed process frees it when its last thread is gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// What [`create`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or an empty folder: this run begins.
    Fresh,
    /// A run: this one goes on.
    Existing,
}

/// Makes the run folder, or finds the run that it holds. Both programs call it, in any order. A folder that holds
/// something else is refused, unless that is a `config.toml` put there beforehand.
pub fn create(run_dir: &Path) -> Result<Found> {
    let marker = run_dir.join(MARKER);
    if marker
        .try_exists()
        .map_err(Error::io("look for", &marker))?
    {
        return Ok(Found::Existing);
    }
    create_folder(run_dir)?;
    let mut entries = fs::read_dir(run_dir).map_err(Error::io("list", run_dir))?;
    let is_foreign = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            ![MARKER, "config.toml"]
                .iter()
                .any(|name| entry.file_name() == *name)
        })
    };
    if entries.any(is_foreign) {
        // The other program may have made the run between the two looks.
        let is_run = marker
            .try_exists()
            .map_err(Error::io("look for", &marker))?;
        return if is_run {
            Ok(Found::Existing)
        } else {
            Err(Error::NotARun {
                path: run_dir.to_owned(),
            })
        };
    }
    let mode = fs::Permissions::from_mode(FOLDER_MODE);
    fs::set_permissions(run_dir, mode).map_err(Error::io("restrict access to", run_dir))?;
    create_file(&marker)?;
    Ok(Found::Fresh)
}

/// Makes a folder inside the run folder, with its parents, unless it is there.
pub fn create_folder(path: &Path) -> Result<()> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(path);
    made.map_err(Error::io("create folder", path))
}

/// An empty file, for reading and writing by this user only; one that was there is emptied.
pub fn create_file(path: &Path) -> Result<File> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE);
    options.open(path).map_err(Error::io("create", path))
}

/// Writes a whole file so that after any crash it is either the old one or the new one.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = temporary(path);
    let written = create_file(&temporary)
        .and_then(|mut file| {
            file.write_all(content)
                .map_err(|source| storage_error(source, "write", path, content.len() as u64))?;
            sync(&file, path)
        })
        .and_then(|()| rename(&temporary, path));
    if written.is_err() {
        discard(&temporary);
    }
    written
}

/// Gives the file its length with every block allocated: a mapped file with holes dies of SIGBUS when the disk is full.
pub fn allocate(file: &File, path: &Path, bytes: u64) -> Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // A file system that can't: writing the zeros allocates just as well.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = vec![0; 1 << 20];
            let mut left = bytes;
            let mut file = file;
            while left > 0 {
                let count = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let written = file.write_all(&zeros[..count]);
                written.map_err(|source| storage_error(source, "allocate", path, bytes))?;
                left -= count as u64;
            }
            file.seek(SeekFrom::Start(0))
                .map_err(Error::io("rewind", path))?;
            Ok(())
        }
        Err(errno) => Err(storage_error(errno.into(), "allocate", path, bytes)),
    }
}

/// Makes a file's content durable. Not tried again when it fails.
pub fn sync(file: &File, path: &Path) -> Result<()> {
    file.sync_all().map_err(|source| {
        storage_error(
            source,
            "fsync",
            path,
            file.metadata().map_or(0, |data| data.len()),
        )
    })
}

/// Renames, and makes the new name durable.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename to", to))?;
    let folder = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync_folder(folder)
}

/// Makes the names in a folder durable.
pub fn sync_folder(path: &Path) -> Result<()> {
    let folder = File::open(path).map_err(Error::io("open folder", path))?;
    folder.sync_all().map_err(Error::io("fsync folder", path))
}

/// A name beside `path` to write to before renaming; no other process uses it.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp-{}", std::process::id()))
}

/// Whether a name was made by [`temporary`], by whatever process.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.contains(".tmp-")
}

/// Removes a temporary file after a failure. The failure is what gets reported, not this.
pub(crate) fn discard(path: &Path) {
    let _ = fs::remove_file(path);
}

/// Takes the file's lock for as long as the file is open, or says which process holds it.
pub(crate) fn lock(file: &File, path: &Path, what: &'static str) -> Result<()> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", path)(source)),
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_PATIENCE => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::InUse {
                    what,
                    path: path.to_owned(),
                    holder: "process".to_owned(),
                });
            }
        }
    }
}

/// Takes a lock file, creating it, and leaves this process's id in it.
pub(crate) fn lock_file(path: &Path, what: &'static str, role: &str) -> Result<File> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE);
    let mut file = options.open(path).map_err(Error::io("open", path))?;
    if let Err(error) = lock(&file, path, what) {
        let Error::InUse { .. } = error else {
            return Err(error);
        };
        let mut pid = String::new();
        let known = (&file).take(32).read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
        let pid = if known { pid.trim() } else { "unknown" };
        let path = path.parent().unwrap_or(path).to_owned();
        return Err(Error::InUse {
            what,
            path,
            holder: format!("{role} (pid {pid})"),
        });
    }
    file.set_len(0).map_err(Error::io("write", path))?;
    writeln!(file, "{}", std::process::id()).map_err(Error::io("write", path))?;
    Ok(file)
}

/// An `Io`, or `StorageFull` where that is what it was.
fn storage_error(source: io::Error, action: &'static str, path: &Path, needed_bytes: u64) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::StorageFull {
            path: path.to_owned(),
            needed_bytes,
        },
        _ => Error::io(action, path)(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_run_folder_is_private_and_found_again() {
        let parent = tempfile::tempdir().unwrap();
        let run_dir = parent.path().join("runs/a");
        assert_eq!(create(&run_dir).unwrap(), Found::Fresh);
        assert_eq!(create(&run_dir).unwrap(), Found::Existing);
        assert_eq!(
            (mode(&run_dir), mode(&run_dir.join(MARKER))),
            (0o700, 0o600)
        );
        // An empty folder, or one with a configuration put there first, will do.
        let open = parent.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(open.join("config.toml"), b"").unwrap();
        assert_eq!(create(&open).unwrap(), Found::Fresh);
        assert_eq!(mode(&open), 0o700);
    }

    #[test]
    fn a_folder_of_something_else_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), b"x").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = create(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("is not empty and holds no run; choose another --run-dir"),
            "{error}"
        );
        assert_eq!(mode(folder.path()), 0o755);
        let file = folder.path().join("thesis.tex");
        assert!(create(&file).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        replace_file(&path, b"one").unwrap();
        replace_file(&path, b"two!").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two!");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing = folder.path().join("missing/config.toml");
        assert!(replace_file(&missing, b"x").is_err());
    }

    #[test]
    fn a_full_disk_says_what_it_needed() {
        let error =
            storage_error(Errno::NOSPC.into(), "allocate", Path::new("x/y"), 42).to_string();
        assert!(
            error.starts_with("no space left for x/y: it needs 42 bytes; free some space"),
            "{error}"
        );
    }
}
