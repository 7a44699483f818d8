//! Picks the engine and joins it with weights.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use models::checkpoint::{Checkpoint, F32Layout, write_f32};
use models::config::ModelConfig;
use shared::config::Engine as EngineName;
use tempfile::TempDir;

use crate::engine::{EngineKind, EngineLoader, EngineModel, probe};

/// The graphs of one model on the engine that was asked for; `auto` keeps those that may still turn out to work.
#[derive(Debug)]
pub struct ModelLoader {
    candidates: VecDeque<(EngineKind, EngineLoader)>,
    is_known: bool,
}

impl ModelLoader {
    /// Finds the engine's libraries. `threads`: none = all cores.
    ///
    /// # Errors
    /// The engine that was named does not load; there is no fall-back.
    pub fn new(config: &ModelConfig, engine: EngineName, threads: Option<usize>) -> Result<Self> {
        let threads = threads.unwrap_or(0);
        let mut candidates = VecDeque::new();
        for &kind in kinds(engine) {
            match EngineLoader::new(config, threads, kind) {
                Ok(loader) => candidates.push_back((kind, loader)),
                Err(error) if engine == EngineName::Auto && kind != EngineKind::Cpu => {
                    tracing::debug!("{error}");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self {
            candidates,
            is_known: false,
        })
    }

    /// Joins the graphs with the weights file of a publication.
    ///
    /// # Errors
    /// Weights that do not fit the model; or an engine that does not run it, when it was named.
    pub fn load(&mut self, weights: &Path) -> Result<EngineModel> {
        loop {
            let Some((kind, loader)) = self.candidates.front() else {
                bail!("no engine is left to try")
            };
            match loader.load(weights) {
                Ok(model) => {
                    if !self.is_known {
                        tracing::info!("engine {}", name(*kind));
                        self.is_known = true;
                    }
                    return Ok(model);
                }
                Err(error) if self.candidates.len() > 1 && !self.is_known => {
                    tracing::info!(
                        "engine {} is installed but does not run this model: {error}",
                        name(*kind)
                    );
                    self.candidates.pop_front();
                }
                Err(error) => return Err(error).context("cannot load the weights"),
            }
        }
    }
}

/// Checks that a named engine's libraries load.
///
/// # Errors
/// The library that is missing, and what to do about it.
pub fn probe_engine(engine: EngineName) -> Result<()> {
    match kinds(engine) {
        [kind] => Ok(probe(*kind)?),
        _ => Ok(probe(EngineKind::Cpu)?),
    }
}

/// The engines that a name stands for, best first.
fn kinds(engine: EngineName) -> &'static [EngineKind] {
    match engine {
        EngineName::Auto => &[EngineKind::Trt, EngineKind::Cuda, EngineKind::Cpu],
        EngineName::Cpu => &[EngineKind::Cpu],
        EngineName::Cuda => &[EngineKind::Cuda],
        EngineName::Trt => &[EngineKind::Trt],
    }
}

/// As on the command line.
#[must_use]
pub fn name(kind: EngineKind) -> &'static str {
    match kind {
        EngineKind::Cpu => "cpu",
        EngineKind::Cuda => "cuda",
        EngineKind::Trt => "trt",
    }
}

/// A weights file in the layout that the graphs point into; a converted one lives as long as this does.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    _converted: Option<TempDir>,
}

impl WeightsFile {
    /// `checkpoint` is a Hugging Face folder or one .safetensors file. It is used as it is when it has the layout already, and
    /// converted to f32 in a temporary folder otherwise.
    ///
    /// # Errors
    /// A checkpoint that does not belong to `config`, or no room for the converted one.
    pub fn of(checkpoint: &Path, config: &ModelConfig) -> Result<Self> {
        let layout = F32Layout::new(&models::names::tensors(config));
        let file = if checkpoint.is_dir() {
            checkpoint.join("model.safetensors")
        } else {
            checkpoint.to_owned()
        };
        if has_layout(&file, &layout) {
            return Ok(Self {
                path: file,
                _converted: None,
            });
        }
        let opened = Checkpoint::open(checkpoint)?;
        opened.check(config)?;
        let folder = tempfile::tempdir().context("a folder for the converted weights")?;
        let path = folder.path().join("model.safetensors");
        write_f32(&path, &opened, config)?;
        Ok(Self {
            path,
            _converted: Some(folder),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Same header, same size, and a name that the graphs know: then the same tensors at the same places.
fn has_layout(file: &Path, layout: &F32Layout) -> bool {
    use std::io::Read as _;
    if file
        .file_name()
        .is_none_or(|name| name != "model.safetensors")
        || file.is_symlink()
    {
        return false;
    }
    let Ok(mut opened) = std::fs::File::open(file) else {
        return false;
    };
    let mut header = vec![0; layout.header.len()];
    opened.read_exact(&mut header).is_ok()
        && header == layout.header
        && opened
            .metadata()
            .is_ok_and(|metadata| metadata.len() == layout.total_bytes as u64)
}
