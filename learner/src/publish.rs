//! Publication: the parameters as one mapped f32 file, then the announcement on the control page.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use shared::control::LearnerControl;
use shared::ids::PolicyVersion;
use shared::weights;

use crate::model::Parameters;

/// Published versions that stay on disk: the newest, and the one that engines may still be leaving.
const KEEP: usize = 2;

/// Writes the parameters as `version`, announces it, to be validated or not, and returns the file. Nothing is announced unless
/// it is durable.
pub fn publish(
    run_dir: &Path,
    control: &LearnerControl,
    version: PolicyVersion,
    parameters: &Parameters,
    is_validated: bool,
) -> Result<PathBuf> {
    let layout = parameters.layout();
    let path = weights::publish(run_dir, version, layout.total_bytes, |out| {
        parameters
            .write_f32(&layout, out)
            .map_err(Box::<dyn std::error::Error + Send + Sync>::from)
    })
    .context("nothing was published, the rollouts keep the last version")?;
    if is_validated {
        control.publish_to_validate(version);
    } else {
        control.publish(version);
    }
    weights::prune(run_dir, version, KEEP)?;
    Ok(path)
}
