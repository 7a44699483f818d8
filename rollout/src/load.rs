//! Picks the engine and joins it with weights.

use std::collections::VecDeque;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use models::config::ModelConfig;
use shared::config::Engine as EngineName;
use shared::record::Precision;

use crate::engine::{EngineKind, EngineLoader, EngineModel, Haste, Threads, probe};

/// The graphs of one model on the engine that was asked for; `auto` keeps those that may still turn out to work.
#[derive(Debug)]
pub struct ModelLoader {
    candidates: VecDeque<(EngineKind, EngineLoader)>,
    is_known: bool,
}

impl ModelLoader {
    /// Finds the engine's libraries.
    ///
    /// # Errors
    /// The engine that was named does not load; there is no fall-back.
    pub fn new(
        config: &ModelConfig,
        engine: EngineName,
        threads: Threads,
        precision: Precision,
    ) -> Result<Self> {
        let mut candidates = VecDeque::new();
        for &kind in kinds(engine) {
            match EngineLoader::new(config, threads, kind, precision) {
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

    /// Whether the CPU engine is the only one left: then the model has to fit into the system's memory.
    #[must_use]
    pub fn is_on_cpu(&self) -> bool {
        self.candidates
            .iter()
            .all(|(kind, _)| *kind == EngineKind::Cpu)
    }

    /// Joins the graphs with the weights file of a publication.
    ///
    /// # Errors
    /// Weights that do not fit the model; or an engine that does not run it, when it was named.
    pub fn load(&mut self, weights: &Path, haste: Haste) -> Result<EngineModel> {
        loop {
            let Some((kind, loader)) = self.candidates.front() else {
                bail!("no engine is left to try")
            };
            match loader.load(weights, haste) {
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
