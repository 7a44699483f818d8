//! Publications: one folder per policy version, complete and durable before it has its name, never changed afterwards.
//!
//! `runs/X/weights/v00000012/model.safetensors`. Making a version known is the learner's next step
//! (`LearnerControl::publish`): a follower learns of it from the control page, never from the folder.

mod publish;

use std::fs;
use std::path::{Path, PathBuf};

pub use publish::{Filled, publish};

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

/// Removes all versions but `current` and the `keep - 1` before it, and what an interrupted publication left; returns the
/// removed versions. Those after `current` are of a learner that went further and died: this one went back.
/// Processes that have an old one mapped keep it until they let go. Only the publisher may call it.
pub fn prune(run_dir: &Path, current: PolicyVersion, keep: usize) -> Result<Vec<PolicyVersion>> {
    for version in begun(run_dir)? {
        remove_temporaries(&folder(run_dir, version))?;
    }
    let (mut versions, overtaken): (Vec<_>, Vec<_>) = versions(run_dir)?
        .into_iter()
        .partition(|version| *version <= current);
    versions.truncate(versions.len().saturating_sub(keep));
    versions.extend(overtaken);
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(run_dir: &Path, version: u64, byte: u8) -> PathBuf {
        let fill = |bytes: &mut [u8]| -> std::result::Result<(), Infallible> {
            bytes.fill(byte);
            Ok(())
        };
        publish(run_dir, PolicyVersion(version), 10_000, fill).unwrap()
    }

    #[test]
    fn a_publication_is_whole_private_and_at_its_place() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(newest(run.path()).unwrap(), None);
        let written = write(run.path(), 12, 7);
        assert_eq!(
            written,
            run.path().join("weights/v00000012/model.safetensors")
        );
        assert_eq!(written, path(run.path(), PolicyVersion(12)));
        assert_eq!(fs::read(&written).unwrap(), vec![7; 10_000]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&written), mode(written.parent().unwrap())),
            (0o600, 0o700)
        );
        assert_eq!(
            fs::read_dir(written.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file left"
        );
        // Again, after a resume: the old content stays with who has it open.
        let mut old = fs::File::open(&written).unwrap();
        write(run.path(), 12, 8);
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut old, &mut content).unwrap();
        assert_eq!(content, vec![7; 10_000]);
        assert_eq!(fs::read(&written).unwrap(), vec![8; 10_000]);
    }

    #[test]
    fn newest_and_prune_know_complete_versions_only() {
        let run = tempfile::tempdir().unwrap();
        for version in [3, 0, 11, 2] {
            write(run.path(), version, 0);
        }
        // What a learner that was killed while publishing leaves, and what others put there.
        let begun = folder(run.path(), PolicyVersion(12));
        fs::create_dir(&begun).unwrap();
        fs::write(begun.join(".model.safetensors.tmp-77"), b"half").unwrap();
        for name in ["v13", "notes", "v0000000x", "v+0000014"] {
            fs::create_dir(run.path().join("weights").join(name)).unwrap();
            fs::write(run.path().join("weights").join(name).join(FILE_NAME), b"").unwrap();
        }
        assert_eq!(newest(run.path()).unwrap(), Some(PolicyVersion(11)));
        assert_eq!(
            prune(run.path(), PolicyVersion(11), 2).unwrap(),
            [PolicyVersion(0), PolicyVersion(2)]
        );
        assert_eq!(
            versions(run.path()).unwrap(),
            [PolicyVersion(3), PolicyVersion(11)]
        );
        assert_eq!(fs::read_dir(&begun).unwrap().count(), 0);
        assert_eq!(prune(run.path(), PolicyVersion(11), 5).unwrap(), []);
    }

    #[test]
    fn a_learner_that_went_back_keeps_what_it_published() {
        let run = tempfile::tempdir().unwrap();
        for version in [14, 16, 17, 15] {
            write(run.path(), version, 0);
        }
        let current = PolicyVersion(15);
        assert_eq!(
            prune(run.path(), current, 2).unwrap(),
            [PolicyVersion(16), PolicyVersion(17)]
        );
        assert_eq!(newest(run.path()).unwrap(), Some(current));
    }

    #[test]
    fn a_failure_while_filling_leaves_nothing() {
        let run = tempfile::tempdir().unwrap();
        let error = publish(run.path(), PolicyVersion(1), 100, |_| {
            Err("tensor x is missing")
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "cannot write the weights of version 1");
        assert_eq!(fs::read_dir(run.path().join("weights")).unwrap().count(), 0);
        write(run.path(), 1, 5);
        assert!(publish(run.path(), PolicyVersion(1), 100, |_| Err("again")).is_err());
        assert_eq!(newest(run.path()).unwrap(), Some(PolicyVersion(1)));
    }

    #[test]
    fn a_full_disk_is_named_and_leaves_nothing() {
        // A file system in memory has a size that is known to be less.
        let run = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let far_too_much = 1 << 42;
        let error = publish(run.path(), PolicyVersion(1), far_too_much, |_| {
            Err("not reached")
        })
        .unwrap_err();
        let needed =
            matches!(error, Error::StorageFull { needed_bytes, .. } if needed_bytes == 1 << 42);
        assert!(needed || !run.path().starts_with("/dev/shm"), "{error}");
        assert_eq!(fs::read_dir(run.path().join("weights")).unwrap().count(), 0);
    }
}
