//! Publication: the parameters as one mapped f32 file, then the announcement on the control page.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use shared::control::LearnerControl;
use shared::ids::PolicyVersion;
use shared::weights::{self, Filled};

use crate::model::Parameters;

/// Published versions that stay on disk: the newest, and the one that engines may still be leaving.
const KEEP: usize = 2;
const FAILED: &str = "nothing was published, the rollouts keep the last version";

/// How a version is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// It is durable and announced when the call returns.
    Now,
    /// The same, and it is to be validated.
    Validated,
    /// The values are taken now; the disk is waited for, and the version announced, while the next step is computed.
    Later,
}

/// Publishes one version after the other.
#[derive(Debug)]
pub struct Publisher {
    run_dir: PathBuf,
    /// On its way to the disk.
    pending: Option<JoinHandle<Result<()>>>,
}

impl Publisher {
    /// For a run folder.
    #[must_use]
    pub fn new(run_dir: &Path) -> Self {
        Self {
            run_dir: run_dir.to_owned(),
            pending: None,
        }
    }

    /// Writes the parameters as `version`, announces it, and returns the file. Nothing is announced unless it is durable.
    ///
    /// # Errors
    /// That of a version before, where it comes out only now.
    pub fn publish(
        &mut self,
        control: &LearnerControl,
        version: PolicyVersion,
        parameters: &Parameters,
        haste: Haste,
    ) -> Result<PathBuf> {
        self.finish()?;
        let layout = parameters.layout();
        let filled = Filled::new(&self.run_dir, version, layout.total_bytes, |out| {
            parameters
                .write_f32(&layout, out)
                .map_err(Box::<dyn std::error::Error + Send + Sync>::from)
        })
        .context(FAILED)?;
        let run_dir = self.run_dir.clone();
        match haste {
            Haste::Later => {
                let announcer = control.announcer()?;
                let finish = move || {
                    filled.finish().context(FAILED)?;
                    announcer.publish(version);
                    weights::prune(&run_dir, version, KEEP)?;
                    Ok(())
                };
                let thread = std::thread::Builder::new().name("publish".to_owned());
                self.pending = Some(thread.spawn(finish).context("cannot start a thread")?);
            }
            Haste::Now | Haste::Validated => {
                filled.finish().context(FAILED)?;
                match haste {
                    Haste::Validated => control.publish_to_validate(version),
                    _ => control.publish(version),
                }
                weights::prune(&run_dir, version, KEEP)?;
            }
        }
        Ok(weights::path(&self.run_dir, version))
    }

    /// Waits until the version published last is announced.
    ///
    /// # Errors
    /// What became of it instead.
    pub fn finish(&mut self) -> Result<()> {
        match self.pending.take() {
            Some(thread) => thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the publication died, which is a bug"))),
            None => Ok(()),
        }
    }
}

impl Drop for Publisher {
    /// Only after an error that has been told, or will be.
    fn drop(&mut self) {
        if let Some(thread) = self.pending.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use models::names::TensorSpec;
    use shared::run_dir;
    use tch::Tensor;

    use super::*;
    use crate::model::Parameter;

    fn parameters(value: f32) -> Parameters {
        let spec = TensorSpec {
            name: "a".to_owned(),
            shape: vec![2],
        };
        let tensor = Tensor::from_slice(&[value, value]);
        Parameters::from_entries(vec![Parameter::new(spec, tensor)])
    }

    fn published(run_dir: &Path, version: u64) -> Vec<f32> {
        let path = weights::path(run_dir, PolicyVersion(version));
        let mut tensors = Tensor::read_safetensors(path).unwrap();
        tensors.remove(0).1.try_into().unwrap()
    }

    #[test]
    fn what_is_published_later_has_the_values_of_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path();
        run_dir::create(run_dir).unwrap();
        let control = LearnerControl::create_or_open(run_dir).unwrap();
        let mut publisher = Publisher::new(run_dir);
        let parameters = parameters(1.0);
        for version in 0..5 {
            let haste = [Haste::Now, Haste::Later][usize::from(version > 0)];
            publisher
                .publish(&control, PolicyVersion(version), &parameters, haste)
                .unwrap();
            if haste == Haste::Now {
                assert_eq!(control.version(), Some(PolicyVersion(version)));
            }
            // The next step is under way.
            let mut tensor = parameters.get("a").unwrap();
            let _ = tensor.f_add_scalar_(1.0).unwrap();
        }
        publisher.finish().unwrap();
        assert_eq!(control.version(), Some(PolicyVersion(4)));
        assert_eq!(control.publications(), 5);
        assert_eq!(published(run_dir, 4), [5.0, 5.0]);
        assert_eq!(published(run_dir, 3), [4.0, 4.0]);
        assert_eq!(weights::versions(run_dir).unwrap().len(), KEEP);
    }

    #[test]
    fn a_version_that_fails_later_is_not_announced_and_the_next_one_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path();
        run_dir::create(run_dir).unwrap();
        let control = LearnerControl::create_or_open(run_dir).unwrap();
        let mut publisher = Publisher::new(run_dir);
        let mut publish = |version, haste| {
            publisher.publish(&control, PolicyVersion(version), &parameters(1.0), haste)
        };
        publish(0, Haste::Now).unwrap();
        // A folder stands where the file belongs: it cannot get its name.
        let target = weights::path(run_dir, PolicyVersion(1));
        std::fs::create_dir_all(target.join("in the way")).unwrap();
        publish(1, Haste::Later).unwrap();
        let error = format!("{:#}", publish(2, Haste::Later).unwrap_err());
        assert!(error.starts_with(FAILED), "{error}");
        assert_eq!(control.version(), Some(PolicyVersion(0)));
    }
}
