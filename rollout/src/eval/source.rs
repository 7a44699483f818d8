//! Which weights are evaluated, with which tokenizer and image settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use models::processor::Processor;
use shared::config::DataArgs;
use shared::{config, weights};

use super::args::EvalArgs;
use crate::prompt::bounded;

/// A model to evaluate.
pub(super) struct EvalSource {
    pub(super) processor: Arc<Processor>,
    /// A Hugging Face folder or one .safetensors file.
    pub(super) checkpoint: PathBuf,
}

impl EvalSource {
    pub(super) fn open(args: &EvalArgs) -> Result<Self> {
        let Some(run_dir) = &args.run_dir else {
            let model = args
                .model
                .as_deref()
                .context("--model or --run-dir is needed")?;
            return Self::of_checkpoint(folder_of(model)?, model, &args.source);
        };
        let newest = weights::newest(run_dir)?;
        let Some(version) = newest else {
            bail!(
                "no weights in {}: has a learner run there?",
                run_dir.display()
            )
        };
        let folder = match &args.model {
            Some(model) => folder_of(model)?.to_owned(),
            None => model_of_run(run_dir)?,
        };
        Self::of_checkpoint(&folder, &weights::path(run_dir, version), &args.source)
    }

    fn of_checkpoint(folder: &Path, checkpoint: &Path, data: &DataArgs) -> Result<Self> {
        let mut processor = Processor::from_dir(folder)?;
        processor.images = bounded(&processor.images, data)?;
        Ok(Self {
            processor: Arc::new(processor),
            checkpoint: checkpoint.to_owned(),
        })
    }
}

/// The folder with config.json and the tokenizer.
fn folder_of(model: &Path) -> Result<&Path> {
    if !model.is_file() {
        return Ok(model); // a folder, or nothing: reading it says so
    }
    let folder = model
        .parent()
        .filter(|folder| folder.join("config.json").is_file());
    folder.with_context(|| {
        format!("no config.json beside {}: give its Hugging Face folder with --model, a run's weights with --run-dir", model.display())
    })
}

/// The model folder that a run was started with.
fn model_of_run(run_dir: &Path) -> Result<PathBuf> {
    let path = run_dir.join(config::FILE_NAME);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}: give the model folder with --model",
            path.display()
        )
    })?;
    let table: toml::Table = text
        .parse()
        .with_context(|| format!("{} is not TOML", path.display()))?;
    let model = table
        .get("run")
        .and_then(|run| run.get("model"))
        .and_then(toml::Value::as_str);
    model.map(PathBuf::from).with_context(|| {
        format!(
            "{} names no model: give its folder with --model",
            path.display()
        )
    })
}
