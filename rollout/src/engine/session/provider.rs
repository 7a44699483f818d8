//! Sessions whose weights are inputs, on an execution provider.

use ort::ep;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::EngineKind;
use super::memory::Memory;
use super::owner::{self, check_is_on_cuda, check_is_one_engine};
use super::runtime::{environment, runtime, unavailable};
use super::tensorrt::{EngineFiles, TensorRt};
use crate::error::{Error, Result};

const OPTIONS: &str = "making session options";

/// What runs a graph of standard operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// The CPU, with so many threads: for tests, f32 only.
    Cpu(usize),
    /// ONNX Runtime's CUDA provider.
    Cuda,
    /// TensorRT, with the CUDA provider behind it for its memory.
    TensorRt(TensorRt),
}

/// Least, usual and most of a dimension.
pub(super) type Span = [usize; 3];

/// Shapes that an engine is built for: for each input that has any, its dimensions.
pub(super) type Profile = Vec<(String, Vec<Span>)>;

impl Provider {
    /// A session of `graph`; `name` is that of its part in messages.
    pub(super) fn open(
        &self,
        name: &'static str,
        graph: &[u8],
        profile: &Profile,
    ) -> Result<Session> {
        match self {
            Self::Cpu(threads) => {
                let mut builder = builder()?
                    .with_intra_threads(*threads)
                    .map_err(runtime(OPTIONS))?;
                commit(&mut builder, graph)
            }
            Self::Cuda => {
                let session = commit(&mut with_cuda()?, graph)?;
                check_is_on_cuda(&session, name)?;
                Ok(session)
            }
            Self::TensorRt(trt) => {
                let files = trt.files(graph, profile);
                files.create()?;
                if !files.is_built() {
                    tracing::info!(
                        "TensorRT builds the {name} engine, once: minutes for a large model"
                    );
                }
                let open = || commit(&mut with_tensorrt(trt, &files, profile)?, graph);
                let session = match open() {
                    Err(Error::Runtime { message, .. }) if files.remove_stale(&message) => open()?,
                    opened => opened?,
                };
                check_is_one_engine(&session, name)?;
                Ok(session)
            }
        }
    }

    /// Where the sessions' weights and caches lie.
    pub(super) fn memory(&self, session: &Session) -> Result<Memory> {
        match self {
            Self::Cpu(_) => Ok(Memory::host()),
            Self::Cuda | Self::TensorRt(_) => Memory::cuda(session),
        }
    }

    /// Whether an engine takes only shapes that it was built for.
    pub(super) fn has_profiles(&self) -> bool {
        matches!(self, Self::TensorRt(_))
    }
}

fn builder() -> Result<SessionBuilder> {
    let builder = Session::builder(environment()?).map_err(runtime(OPTIONS))?;
    // Every pass has its own shapes: remembered memory plans would only pile up.
    builder.with_memory_pattern(false).map_err(runtime(OPTIONS))
}

fn with_cuda() -> Result<SessionBuilder> {
    recording()?
        .with_execution_providers([cuda().build().error_on_failure()])
        .map_err(|error| unavailable(EngineKind::Cuda, &error))
}

/// Options under which ONNX Runtime remembers which provider it gives what.
fn recording() -> Result<SessionBuilder> {
    builder()?
        .with_config_entry(owner::RECORD, "1")
        .map_err(runtime(OPTIONS))
}

/// Weights and caches are large, and made once: memory is taken as it is asked for.
fn cuda() -> ep::CUDA {
    ep::CUDA::default().with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
}

fn with_tensorrt(trt: &TensorRt, files: &EngineFiles, profile: &Profile) -> Result<SessionBuilder> {
    let builder = recording()?
        // TensorRT shall see the graph as it was written: it optimises by itself.
        .with_optimization_level(GraphOptimizationLevel::Disable)
        .map_err(runtime(OPTIONS))?;
    let providers = [
        trt.provider(files, profile).build().error_on_failure(),
        cuda().build().error_on_failure(),
    ];
    builder
        .with_execution_providers(providers)
        .and_then(SessionBuilder::with_disable_cpu_fallback)
        .map_err(|error| unavailable(EngineKind::Trt, &error))
}

fn commit(builder: &mut SessionBuilder, graph: &[u8]) -> Result<Session> {
    builder
        .commit_from_memory(graph)
        .map_err(runtime("opening the graph"))
}
