//! The ONNX Runtime library, its options and its providers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use models::checkpoint::{GROUP, PANEL, QuantizedMatrix};
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Tensor};

use super::threads::{Gate, Pool, Spawner};
use super::{EngineKind, Haste, Threads, operators};
use crate::engine::int8::Int8Matrix;
use crate::engine::library;
use crate::error::{Error, Result};

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
    /// A session of `graph`; `int8` are the 8-bit matrices that it asks for.
    pub(super) fn open(&self, graph: &[u8], int8: Vec<(String, Arc<DynValue>)>) -> Result<Session> {
        let mut builder = self.options()?;
        for (name, tensor) in int8 {
            builder = builder
                .with_external_initializer(name, tensor)
                .map_err(runtime("handing over the 8-bit matrices"))?;
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

/// 8-bit matrices under the names that a graph knows them by.
pub(super) fn int8_tensors(
    layout: &[QuantizedMatrix],
    matrices: Vec<Int8Matrix>,
) -> Result<Vec<(String, Arc<DynValue>)>> {
    const CONTEXT: &str = "handing over the 8-bit matrices";
    let mut tensors = Vec::with_capacity(3 * layout.len());
    for (place, matrix) in layout.iter().zip(matrices) {
        let panels = [place.num_panels(), PANEL];
        let integers = [place.num_panels(), place.num_groups(), PANEL, GROUP];
        let integers = Tensor::from_array((integers, matrix.integers)).map_err(runtime(CONTEXT))?;
        let scales = Tensor::from_array((panels, matrix.scales)).map_err(runtime(CONTEXT))?;
        let sums = Tensor::from_array((panels, matrix.sums)).map_err(runtime(CONTEXT))?;
        tensors.push((place.integers_name(), Arc::new(integers.into_dyn())));
        tensors.push((place.scales_name(), Arc::new(scales.into_dyn())));
        tensors.push((place.sums_name(), Arc::new(sums.into_dyn())));
    }
    Ok(tensors)
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
    let (engine, library, provider): (_, _, ExecutionProviderDispatch) = match kind {
        EngineKind::Cpu => return Ok(builder),
        EngineKind::Cuda => (
            "cuda",
            "libonnxruntime_providers_cuda.so",
            ort::ep::CUDA::default().build(),
        ),
        EngineKind::Trt => (
            "trt",
            "libonnxruntime_providers_tensorrt.so",
            ort::ep::TensorRT::default().build(),
        ),
    };
    builder
        .with_execution_providers([provider.error_on_failure()])
        // An operator that the device cannot run is an error, never a quiet detour over the CPU.
        .and_then(SessionBuilder::with_disable_cpu_fallback)
        .map_err(|error| Error::Provider {
            engine,
            library,
            cause: one_line(error.message()),
            remedy: remedy(kind),
        })
}

fn remedy(kind: EngineKind) -> String {
    let tensorrt = if kind == EngineKind::Trt {
        ", tensorrt-cu13-libs >=10.15.1,<11"
    } else {
        ""
    };
    format!(
        "unpack the onnxruntime-gpu 1.31.1 wheel, point ORT_DYLIB_PATH at its onnxruntime/capi/libonnxruntime.so.1.31.1 \
         and put the CUDA 13 libraries (wheels nvidia-cublas, nvidia-cuda-runtime, nvidia-cudnn-cu13{tensorrt}) on \
         LD_LIBRARY_PATH; or use --engine cpu"
    )
}

/// ONNX Runtime's environment: one per process by its own rule.
fn environment() -> Result<&'static Environment> {
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
