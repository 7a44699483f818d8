//! The ONNX Runtime library, its options and its providers.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use models::checkpoint::{PANEL, PackedMatrix};
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor, ToShape};

use super::threads::{Gate, Pool, Spawner};
use super::{EngineKind, Haste, Threads, operators};
use crate::engine::library;
use crate::engine::packed::Packed;
use crate::error::{Error, Result};

const PACKED_CONTEXT: &str = "handing over the packed matrices";

/// What a session is opened with, its graph apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening<'a> {
    /// Where the weights file lies.
    pub(super) folder: &'a Path,
    pub(super) kind: EngineKind,
    pub(super) threads: Threads,
    pub(super) spawner: &'a Spawner,
    pub(super) gate: &'a Gate,
    /// Whether it runs all the time.
    pub(super) is_hot: bool,
    pub(super) haste: Haste,
}

impl Opening<'_> {
    /// A session of `graph`; `packed` are the packed matrices that it asks for.
    pub(super) fn open(
        &self,
        graph: &[u8],
        packed: Vec<(String, Arc<DynValue>)>,
    ) -> Result<Session> {
        let mut builder = self.options()?;
        for (name, tensor) in packed {
            builder = builder
                .with_external_initializer(name, tensor)
                .map_err(runtime(PACKED_CONTEXT))?;
        }
        // ONNX Runtime files our operators' domain in a table of the process when a session first brings it, and two sessions
        // that do so at the same moment collide: until one is open they come one by one.
        static IS_FILED: Mutex<bool> = Mutex::new(false);
        let mut is_filed = IS_FILED.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = if *is_filed {
            drop(is_filed);
            builder.commit_from_memory(graph)
        } else {
            let opened = builder.commit_from_memory(graph);
            *is_filed = opened.is_ok();
            opened
        };
        opened.map_err(runtime("opening the graph"))
    }

    fn options(&self) -> Result<SessionBuilder> {
        let builder = with_provider(
            Session::builder(environment()?).map_err(runtime("making session options"))?,
            self.kind,
        )?;
        let set = || -> ort::Result<SessionBuilder> {
            Ok(builder
                .with_operators(operators::domain(self.threads.count)?)?
                .with_intra_threads(self.threads.count)?
                .with_thread_manager(Pool::new(self.spawner, self.threads, self.gate))?
                // Every pass has its own shapes: remembered memory plans would only pile up.
                .with_memory_pattern(false)?
                // Threads that wait for the next operator spin only in the session that runs all the time.
                .with_intra_op_spinning(self.is_hot)?
                // Between two passes the cores are the sampler's.
                .with_config_entry("session.force_spinning_stop", "1")?
                // The session's own threads are not in the background.
                .with_config_entry(
                    "session.prepack.enable_parallel",
                    match self.haste {
                        Haste::Now => "1",
                        Haste::Background => "0",
                    },
                )?
                .with_config_entry(
                    "session.model_external_initializers_file_folder_path",
                    self.folder.to_string_lossy(),
                )?)
        };
        set().map_err(runtime("making session options"))
    }
}

/// Packed matrices under the names that a graph knows them by.
pub(super) fn packed_tensors(
    layout: &[PackedMatrix],
    matrices: Vec<Packed>,
) -> Result<Vec<(String, Arc<DynValue>)>> {
    let mut tensors = Vec::with_capacity(3 * layout.len());
    for (place, matrix) in layout.iter().zip(matrices) {
        let channels = [place.num_panels(), PANEL];
        match matrix {
            Packed::Float(panels) => {
                tensors.push((place.panels_name(), tensor(place.shape(), panels)?));
            }
            Packed::Int8(matrix) => {
                tensors.push((place.panels_name(), tensor(place.shape(), matrix.integers)?));
                tensors.push((place.scales_name(), tensor(channels, matrix.scales)?));
                tensors.push((place.sums_name(), tensor(channels, matrix.sums)?));
            }
        }
    }
    Ok(tensors)
}

fn tensor<T: PrimitiveTensorElementType + Debug + Clone + 'static>(
    shape: impl ToShape,
    values: Vec<T>,
) -> Result<Arc<DynValue>> {
    let tensor = Tensor::from_array((shape, values)).map_err(runtime(PACKED_CONTEXT))?;
    Ok(Arc::new(tensor.into_dyn()))
}

/// Checks that the engine's library and provider load, before anything costly is done.
///
/// # Errors
/// The library that is missing, and what to do about it.
pub fn probe(kind: EngineKind) -> Result<()> {
    with_provider(
        Session::builder(environment()?).map_err(runtime("making session options"))?,
        kind,
    )
    .map(drop)
}

fn with_provider(builder: SessionBuilder, kind: EngineKind) -> Result<SessionBuilder> {
    let provider: ExecutionProviderDispatch = match kind {
        EngineKind::Cpu => return Ok(builder),
        EngineKind::Cuda => ort::ep::CUDA::default().build(),
        EngineKind::Trt => ort::ep::TensorRT::default().build(),
    };
    builder
        .with_execution_providers([provider.error_on_failure()])
        // An operator that the device cannot run is an error, never a quiet detour over the CPU.
        .and_then(SessionBuilder::with_disable_cpu_fallback)
        .map_err(|error| unavailable(kind, &error))
}

/// An engine whose provider does not load.
pub(super) fn unavailable<R>(kind: EngineKind, error: &ort::Error<R>) -> Error {
    let (engine, library) = match kind {
        EngineKind::Cpu => ("cpu", "libonnxruntime.so"),
        EngineKind::Cuda => ("cuda", "libonnxruntime_providers_cuda.so"),
        EngineKind::Trt => ("trt", "libonnxruntime_providers_tensorrt.so"),
    };
    Error::Provider {
        engine,
        library,
        cause: one_line(error.message()),
        remedy: remedy(kind),
    }
}

fn remedy(kind: EngineKind) -> String {
    let tensorrt = if kind == EngineKind::Trt {
        " --tensorrt"
    } else {
        ""
    };
    format!(
        "run `scripts/setup.sh --cuda{tensorrt}`, which brings the wheels of onnxruntime-gpu 1.31.1 and CUDA 13 (libcuda.so.1 \
         is the GPU's driver: series 580 or newer), or set ORT_DYLIB_PATH and LD_LIBRARY_PATH to libraries of your own; or \
         use --engine cpu"
    )
}

/// ONNX Runtime's environment: one per process by its own rule.
pub(super) fn environment() -> Result<&'static Environment> {
    static ENVIRONMENT: OnceLock<Result<Environment, (PathBuf, String)>> = OnceLock::new();
    let made = ENVIRONMENT.get_or_init(|| {
        let path = library::path();
        let logger = Arc::new(|level, _: &str, _: &str, location: &str, message: &str| {
            log(level, location, message);
        });
        let builder =
            ort::init_from(&path).map_err(|error| (path.clone(), one_line(&error.to_string())))?;
        let built = builder
            .with_name("rollout")
            .with_telemetry(false)
            .with_logger(logger)
            .build();
        built.map_err(|error| (path, one_line(error.message())))
    });
    made.as_ref()
        .map_err(|(path, cause)| Error::RuntimeLibrary {
            path: path.clone(),
            cause: cause.clone(),
        })
}

/// How the ONNX Runtime library that loads was built, its version included.
///
/// # Errors
/// No library loads.
pub fn build_info() -> Result<&'static str> {
    environment().map(|_| ort::info())
}

/// What ONNX Runtime says by itself. Its errors come back as results too, so here they are details.
fn log(level: LogLevel, location: &str, message: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info => {
            tracing::trace!(target: "onnxruntime", "{location}: {message}");
        }
        LogLevel::Warning | LogLevel::Error | LogLevel::Fatal => {
            tracing::debug!(target: "onnxruntime", "{location}: {message}");
        }
    }
}

/// An [`Error::Runtime`]; for `map_err`.
pub(super) fn runtime<R>(context: &'static str) -> impl Fn(ort::Error<R>) -> Error {
    move |error| Error::Runtime {
        context,
        message: one_line(error.message()),
    }
}

pub(super) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
