//! What can go wrong in the engine, by cause.

use std::path::PathBuf;

/// Result of this crate's library functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything the engine reports.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ONNX Runtime library itself is not there or is too old.
    #[error(
        "cannot load ONNX Runtime from {}: {cause}; run scripts/setup.sh, or set ORT_DYLIB_PATH to libonnxruntime.so 1.31.1",
        path.display()
    )]
    RuntimeLibrary {
        /// The file that was tried.
        path: PathBuf,
        /// The loader's words.
        cause: String,
    },
    /// An engine other than the CPU was asked for and its provider does not load. There is no fall-back.
    #[error("engine `{engine}` is not available: {library} does not load ({cause}); {remedy}")]
    Provider {
        /// The engine as the command line names it.
        engine: &'static str,
        /// File name of the provider's library.
        library: &'static str,
        /// ONNX Runtime's words.
        cause: String,
        /// What to do about it.
        remedy: String,
    },
    /// The engine's libraries load, but there is no graph for it.
    #[error("engine `{0}`: its libraries load, but this loader makes models for the CPU only")]
    NoGraph(&'static str),
    /// 8-bit products would saturate.
    #[error(
        "--precision int8 needs a CPU with VNNI instructions (avx512_vnni or avx_vnni): others are faster with --precision f32"
    )]
    Int8,
    /// The weights file is not the layout that the graph points into.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The weights file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// ONNX Runtime refused a model or a run.
    #[error("ONNX Runtime, {context}: {message}")]
    Runtime {
        /// What was being done.
        context: &'static str,
        /// ONNX Runtime's words.
        message: String,
    },
    /// A tensor handed to the engine has the wrong size.
    #[error("{tensor}: expected {expected} elements, got {got}")]
    Shape {
        /// The argument's name.
        tensor: &'static str,
        /// Elements the other arguments imply.
        expected: usize,
        /// Elements that came.
        got: usize,
    },
    /// A key/value cache is too small, or a row is outside it.
    #[error("key/value cache: {reason}")]
    Cache {
        /// What does not fit.
        reason: String,
    },
    /// TensorRT's engines cannot be kept.
    #[error("cannot keep TensorRT's engines in {}: {cause}", folder.display())]
    EngineFiles {
        /// Where they were to be kept.
        folder: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// A device's provider does not run all of a graph: on another, weights could not be inputs, nor the cache be written in
    /// place.
    #[error("engine `{engine}`, {what}: {found}; {remedy}")]
    Fragmented {
        /// The engine as the command line names it.
        engine: &'static str,
        /// The graph.
        what: &'static str,
        /// What was found.
        found: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// An engine on the CPU was given what only one on a device takes, or the other way round.
    #[error("these weights, or this place in a cache, were made for another engine")]
    OtherEngine,
    /// Reading the model's files.
    #[error(transparent)]
    Model(#[from] models::Error),
    /// A row of logits gave no token.
    #[error(transparent)]
    Sampler(#[from] crate::sampler::Error),
}
