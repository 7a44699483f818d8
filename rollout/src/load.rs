//! Picks the engine and joins it with weights.

use std::collections::VecDeque;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use models::config::ModelConfig;
use shared::config::Engine as EngineName;
use shared::record::Precision;

use crate::device::DeviceLoad;
use crate::engine::{EngineKind, EngineLoader, Haste, ReadyWeights, RowLoader, Threads, probe};
use crate::error::Error;

/// The graphs of one model on the engine that was asked for; `auto` keeps those that may still turn out to work.
#[derive(Debug)]
pub struct ModelLoader {
    candidates: VecDeque<(EngineKind, Loader)>,
    /// Why better engines were passed over.
    passed: Vec<String>,
    /// Whether weights have been loaded: what loads is then settled, and a device has its model.
    is_known: bool,
}

/// The graphs on one engine.
#[derive(Debug)]
enum Loader {
    Cpu(Box<EngineLoader>),
    Device(Box<RowLoader>),
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
        device: &DeviceLoad,
    ) -> Result<Self> {
        let (mut candidates, mut passed) = (VecDeque::new(), Vec::new());
        for &kind in kinds(engine) {
            match Loader::new(config, kind, threads, precision, device) {
                Ok(loader) => candidates.push_back((kind, loader)),
                Err(error) if engine == EngineName::Auto && kind != EngineKind::Cpu => {
                    tracing::debug!("{error:#}");
                    passed.push(reason(kind, &error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            candidates,
            passed,
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
    pub fn load(&mut self, weights: &Path, haste: Haste) -> Result<ReadyWeights> {
        loop {
            let Some((kind, loader)) = self.candidates.front() else {
                bail!("no engine is left to try")
            };
            match loader.load(weights, haste, self.is_known) {
                Ok(ready) => {
                    if !self.is_known {
                        tracing::info!("{}", chosen(*kind, &self.passed));
                        self.is_known = true;
                    }
                    return Ok(ready);
                }
                Err(error) if self.candidates.len() > 1 && !self.is_known => {
                    tracing::info!(
                        "engine {} is installed but does not run this model: {error}",
                        name(*kind)
                    );
                    self.passed
                        .push(format!("{} does not run this model", name(*kind)));
                    self.candidates.pop_front();
                }
                Err(error) => return Err(error).context("cannot load the weights"),
            }
        }
    }
}

impl Loader {
    fn new(
        config: &ModelConfig,
        kind: EngineKind,
        threads: Threads,
        precision: Precision,
        device: &DeviceLoad,
    ) -> Result<Self> {
        if kind == EngineKind::Cpu {
            let loader = EngineLoader::new(config, threads, kind, precision)?;
            return Ok(Self::Cpu(Box::new(loader)));
        }
        probe(kind)?;
        if precision != Precision::F32 {
            let name = name(kind);
            bail!("engine `{name}` computes in bf16: --precision {precision} is for --engine cpu");
        }
        Ok(Self::Device(Box::new(match kind {
            EngineKind::Trt => device.trt(config)?,
            _ => device.cuda(config)?,
        })))
    }

    /// `has_model`: whether there is one on the device, whose weights are written over.
    fn load(&self, weights: &Path, haste: Haste, has_model: bool) -> Result<ReadyWeights, Error> {
        match self {
            Self::Cpu(loader) => Ok(loader.load(weights, haste)?.into()),
            Self::Device(loader) if has_model => Ok(loader.stage(weights)?.into()),
            Self::Device(loader) => Ok(loader.load(weights)?.into()),
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

/// Why an engine is passed over, in a few words.
fn reason(kind: EngineKind, error: &anyhow::Error) -> String {
    let name = name(kind);
    match error.downcast_ref::<Error>() {
        Some(Error::Provider { cause, .. }) => {
            // Of the loader's words, which file is missing.
            let cause = cause.rsplit("with error: ").next().unwrap_or_default();
            format!("{name}: {}", cause.trim_end_matches('.'))
        }
        _ => format!("{name}: {error:#}"),
    }
}

/// Which engine runs, and why not a better one.
fn chosen(kind: EngineKind, passed: &[String]) -> String {
    let name = name(kind);
    if passed.is_empty() {
        return format!("engine {name}");
    }
    format!(
        "engine {name} ({}); `rollout doctor` says more",
        passed.join("; ")
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_that_is_taken_is_named_with_the_reason() {
        assert_eq!(chosen(EngineKind::Trt, &[]), "engine trt");
        let missing = Error::Provider {
            engine: "trt",
            library: "libonnxruntime_providers_tensorrt.so",
            cause: "FAIL : Failed to load library x with error: libnvinfer.so.10: cannot open"
                .to_owned(),
            remedy: "install it".to_owned(),
        };
        let passed = [
            reason(EngineKind::Trt, &missing.into()),
            reason(EngineKind::Cuda, &anyhow::anyhow!("computes in bf16")),
        ];
        assert_eq!(
            chosen(EngineKind::Cpu, &passed),
            "engine cpu (trt: libnvinfer.so.10: cannot open; cuda: computes in bf16); `rollout doctor` says more"
        );
    }
}
