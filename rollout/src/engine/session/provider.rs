//! Sessions whose weights are inputs, on an execution provider.

use std::path::PathBuf;

use models::graph::Elements;
use ort::ep;
use ort::session::Session;
use ort::session::builder::SessionBuilder;

use super::memory::Memory;
use super::runtime::{environment, one_line, runtime};
use crate::error::{Error, Result};

/// What runs a graph of standard operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// The CPU, with so many threads: for tests, f32 only.
    Cpu(usize),
    /// TensorRT, with the CUDA provider behind it. Engines are kept in this folder, which makes the second start quick.
    TensorRt(PathBuf),
}

/// Least, usual and most of a dimension.
pub(super) type Span = [usize; 3];

/// Shapes that an engine is built for: for each input that has any, its dimensions.
pub(super) type Profile = Vec<(String, Vec<Span>)>;

impl Provider {
    /// A session of `graph`.
    pub(super) fn open(
        &self,
        graph: &[u8],
        elements: Elements,
        profile: &Profile,
    ) -> Result<Session> {
        let builder =
            Session::builder(environment()?).map_err(runtime("making session options"))?;
        let builder = builder
            // Every pass has its own shapes: remembered memory plans would only pile up.
            .with_memory_pattern(false)
            .map_err(runtime("making session options"))?;
        let mut builder = match self {
            Self::Cpu(threads) => builder
                .with_intra_threads(*threads)
                .map_err(runtime("making session options"))?,
            Self::TensorRt(folder) => {
                let tensorrt = tensorrt(folder, elements, profile);
                self.with_tensorrt(builder, tensorrt)?
            }
        };
        builder
            .commit_from_memory(graph)
            .map_err(runtime("opening the graph"))
    }

    /// Where the sessions' weights and caches lie.
    pub(super) fn memory(&self, session: &Session) -> Result<Memory> {
        match self {
            Self::Cpu(_) => Ok(Memory::host()),
            Self::TensorRt(_) => Memory::cuda(session),
        }
    }

    /// Whether an engine takes only shapes that it was built for.
    pub(super) fn has_profiles(&self) -> bool {
        matches!(self, Self::TensorRt(_))
    }

    fn with_tensorrt(
        &self,
        builder: SessionBuilder,
        tensorrt: ep::TensorRT,
    ) -> Result<SessionBuilder> {
        let providers = [
            tensorrt.build().error_on_failure(),
            ep::CUDA::default().build().error_on_failure(),
        ];
        builder
            .with_execution_providers(providers)
            .and_then(SessionBuilder::with_disable_cpu_fallback)
            .map_err(|error| Error::Provider {
                engine: "trt",
                library: "libonnxruntime_providers_tensorrt.so",
                cause: one_line(error.message()),
                remedy: super::runtime::remedy(super::EngineKind::Trt),
            })
    }
}

fn tensorrt(folder: &std::path::Path, elements: Elements, profile: &Profile) -> ep::TensorRT {
    let folder = folder.to_string_lossy();
    let [least, usual, most] = [0, 1, 2].map(|which| shapes(profile, which));
    ep::TensorRT::default()
        // Weights are inputs: an engine is right for all of them.
        .with_engine_cache(true)
        .with_engine_cache_path(&folder)
        .with_timing_cache(true)
        .with_timing_cache_path(&folder)
        .with_bf16(elements == Elements::Bf16)
        .with_profile_min_shapes(least)
        .with_profile_opt_shapes(usual)
        .with_profile_max_shapes(most)
}

/// `input:1x2,other:3`, of the least, usual or most.
fn shapes(profile: &Profile, which: usize) -> String {
    let shape = |(name, dims): &(String, Vec<Span>)| {
        let dims: Vec<String> = dims.iter().map(|span| span[which].to_string()).collect();
        format!("{name}:{}", dims.join("x"))
    };
    profile.iter().map(shape).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_written_as_tensorrt_reads_them() {
        let profile = vec![
            ("input_ids".to_owned(), vec![[1, 2, 3], [4, 5, 6]]),
            ("chosen".to_owned(), vec![[7, 8, 9]]),
        ];
        assert_eq!(shapes(&profile, 0), "input_ids:1x4,chosen:7");
        assert_eq!(shapes(&profile, 2), "input_ids:3x6,chosen:9");
    }
}
