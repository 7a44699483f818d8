//! How a run begins: what is there already, and what is said about it.

use std::path::Path;

use anyhow::{Result, ensure};
use shared::config::RunConfig;
use shared::control::LearnerControl;
use shared::ring::Consumer;

use crate::checkpoint::{self, Saved};
use crate::device;
use crate::model::lora::LoraSettings;
use crate::update::Policy;

/// The checkpoint to go on from. Without `--resume` a run folder that has one is refused: training over it would lose it.
pub(crate) fn find_saved(run_dir: &Path, resume: bool) -> Result<Option<Saved>> {
    let saved = checkpoint::newest(run_dir)?;
    match &saved {
        Some(saved) => ensure!(
            resume,
            "{} has a checkpoint of step {}: add --resume to go on, or choose another --run-dir",
            run_dir.display(),
            saved.step
        ),
        None if resume => tracing::info!(
            "no checkpoint yet in {}: starting at step 0",
            run_dir.display()
        ),
        None => {}
    }
    Ok(saved)
}

/// A new run in a used folder: records that are left there may be of another configuration.
pub(crate) fn discard_rings(control: &LearnerControl) -> Result<()> {
    for path in control.ring_paths() {
        let num_bytes = Consumer::open(&path)?.discard_unread();
        if num_bytes > 0 {
            tracing::info!(
                "dropped {num_bytes} unread bytes of an earlier run in {}",
                path.display()
            );
        }
    }
    Ok(())
}

pub(crate) fn report_start(config: &RunConfig, saved: Option<&Saved>, policy: &Policy) {
    let num_trained: usize = policy
        .model
        .parameters()
        .trainable()
        .map(|parameter| parameter.tensor.numel())
        .sum();
    let (model, run_dir) = (config.run.model.display(), config.run.run_dir.display());
    tracing::info!(
        "{model}: {num_trained} trained parameters, {} on {}, libtorch {}; run folder {run_dir}",
        device::dtype(config.learner.dtype, config.learner.device),
        config.learner.device,
        device::version()
    );
    if let Some(lora) = policy.model.parameters().lora() {
        let LoraSettings { rank, alpha, .. } = lora.settings();
        tracing::info!(
            "LoRA of rank {rank}, alpha {alpha}, on {} layers; all else is frozen",
            lora.layers().len()
        );
    }
    let Some(saved) = saved else { return };
    tracing::info!(
        "resuming after step {} from {}",
        saved.step,
        saved.dir.display()
    );
    let now = serde_json::to_value(config).unwrap_or_default();
    for (table, keys) in now.as_object().into_iter().flatten() {
        for (key, value) in keys.as_object().into_iter().flatten() {
            let before = &saved.config[table][key];
            let is_adaptive = key == "kl_coef" && config.learner.objective.kl_target.is_some();
            if before != value && !is_adaptive {
                tracing::warn!("[{table}] {key} was {before} at the checkpoint and is {value} now");
            }
        }
    }
}
