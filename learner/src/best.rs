//! `checkpoints/best`: a link to the checkpoint whose validation was the best so far. It may be moved with its folder.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use shared::run_dir;

use crate::checkpoint;

const NAME: &str = "best";
const TEMPORARY: &str = ".best";

/// The link.
#[must_use]
pub fn path(run_dir: &Path) -> PathBuf {
    checkpoint::root(run_dir).join(NAME)
}

/// Makes the checkpoint of a step the best one, at once.
pub fn link(run_dir: &Path, step: u64) -> Result<()> {
    let (path, temporary) = (path(run_dir), checkpoint::root(run_dir).join(TEMPORARY));
    let link = || -> Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => symlink(checkpoint::name(step), &temporary)?,
        }
        Ok(run_dir::rename(&temporary, &path)?)
    };
    link().with_context(|| format!("cannot make the link {}", path.display()))
}

/// The step of the best checkpoint; `None` when there is none, or it is gone.
#[must_use]
pub fn step(run_dir: &Path) -> Option<u64> {
    let target = fs::read_link(path(run_dir)).ok()?;
    let step = checkpoint::step_of(target.to_str()?)?;
    checkpoint::path(run_dir, step).is_dir().then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run folder with checkpoints of these steps: nothing is in them.
    fn run(steps: &[u64]) -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        for &step in steps {
            fs::create_dir_all(checkpoint::path(run.path(), step)).unwrap();
        }
        run
    }

    fn left(run_dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(checkpoint::root(run_dir)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_link_moves_is_relative_and_names_what_is_there() {
        let run = run(&[5, 10]);
        assert_eq!(step(run.path()), None);
        link(run.path(), 5).unwrap();
        assert_eq!(step(run.path()), Some(5));
        // An interrupted move leaves its temporary name.
        symlink(
            "step-00000007",
            checkpoint::root(run.path()).join(TEMPORARY),
        )
        .unwrap();
        link(run.path(), 10).unwrap();
        assert_eq!(step(run.path()), Some(10));
        assert_eq!(
            fs::read_link(path(run.path())).unwrap(),
            Path::new("step-00000010")
        );
        assert_eq!(left(run.path()), ["best", "step-00000005", "step-00000010"]);
        fs::remove_dir(checkpoint::path(run.path(), 10)).unwrap();
        assert_eq!(step(run.path()), None, "what it names is gone");
        for odd in ["elsewhere", "../step-00000005", "step-x"] {
            fs::remove_file(path(run.path())).unwrap();
            symlink(odd, path(run.path())).unwrap();
            assert_eq!(step(run.path()), None, "{odd}");
        }
    }

    #[test]
    fn the_best_one_is_spared_and_not_counted() {
        let run = run(&[2, 4, 6, 8, 10]);
        link(run.path(), 4).unwrap();
        checkpoint::prune(run.path(), 2).unwrap();
        let expected = ["best", "step-00000004", "step-00000008", "step-00000010"];
        assert_eq!(left(run.path()), expected);
        // The best one among the newest, and a better one: the former goes.
        link(run.path(), 10).unwrap();
        checkpoint::prune(run.path(), 1).unwrap();
        assert_eq!(left(run.path()), ["best", "step-00000010"]);
    }

    #[test]
    fn a_folder_in_its_place_is_left_alone() {
        let run = run(&[5]);
        fs::create_dir(path(run.path())).unwrap();
        let error = format!("{:#}", link(run.path(), 5).unwrap_err());
        assert!(error.contains("checkpoints/best"), "{error}");
        assert!(path(run.path()).is_dir());
    }
}
