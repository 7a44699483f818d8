//! How TensorRT builds its engines and where it keeps them.
//!
//! An engine depends on the graph, the shapes it is built for, the GPU and TensorRT itself, and not on the weights, which are
//! inputs: building takes minutes once, and a new version of the weights nothing.

use std::path::{Path, PathBuf};

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _};
use xxhash_rust::xxh3::xxh3_64;

use super::provider::Profile;
use crate::error::{Error, Result};

/// Where the driver lists the machine's GPUs.
const GPUS: &str = "/proc/driver/nvidia/gpus";

/// What an engine that is kept, but was built by another TensorRT, makes ONNX Runtime say.
const STALE: &str = "could not deserialize engine from cache";

/// TensorRT's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorRt {
    /// Folder of the engines, which makes the second start quick.
    pub folder: PathBuf,
    /// How long an engine is searched for: 0 to 5, TensorRT's own default is 3.
    pub optimization_level: u8,
    /// Whether a step is recorded as a CUDA graph: fewer launches, but shapes must repeat.
    pub cuda_graph: bool,
}

/// One graph's engine.
#[derive(Debug)]
pub(super) struct EngineFiles {
    /// Of this engine alone.
    folder: PathBuf,
    /// Of all engines on this GPU: how fast their parts are.
    timings: PathBuf,
}

impl TensorRt {
    /// With the defaults for everything but the folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            optimization_level: 3,
            cuda_graph: false,
        }
    }

    /// Where the engine of `graph`, the bytes of one, for `profile` is kept on this machine's GPU.
    pub(super) fn files(&self, graph: &[u8], profile: &Profile) -> EngineFiles {
        self.files_on(&gpu(Path::new(GPUS)), graph, profile)
    }

    fn files_on(&self, gpu: &str, graph: &[u8], profile: &Profile) -> EngineFiles {
        let timings = self.folder.join(gpu);
        let shapes: String = (0..3).map(|which| shapes(profile, which)).collect();
        let key = xxh3_64(&[graph, shapes.as_bytes()].concat());
        let level = self.optimization_level;
        EngineFiles {
            folder: timings.join(format!("{key:016x}-{level}")),
            timings,
        }
    }

    /// The provider's options.
    ///
    /// No type is among them: without `trt_fp16_enable` and its like the network is strongly typed, so that bf16 stays bf16
    /// and the head's f32 stays f32; with them TensorRT would be free to compute the head in bf16.
    pub(super) fn options(
        &self,
        files: &EngineFiles,
        profile: &Profile,
    ) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let [least, usual, most] = [0, 1, 2].map(|which| shapes(profile, which));
        vec![
            ("trt_engine_cache_enable", "1".to_owned()),
            ("trt_engine_cache_path", text(&files.folder)),
            ("trt_timing_cache_enable", "1".to_owned()),
            ("trt_timing_cache_path", text(&files.timings)),
            (
                "trt_builder_optimization_level",
                self.optimization_level.to_string(),
            ),
            (
                "trt_cuda_graph_enable",
                u8::from(self.cuda_graph).to_string(),
            ),
            ("trt_profile_min_shapes", least),
            ("trt_profile_opt_shapes", usual),
            ("trt_profile_max_shapes", most),
        ]
    }

    /// The provider with these options.
    pub(super) fn provider(&self, files: &EngineFiles, profile: &Profile) -> ep::TensorRT {
        let options = self.options(files, profile).into_iter();
        options.fold(ep::TensorRT::default(), |provider, (key, value)| {
            provider.with_arbitrary_config(key, value)
        })
    }
}

impl EngineFiles {
    /// Makes the folder, which ONNX Runtime would do without saying why it cannot.
    pub(super) fn create(&self) -> Result<()> {
        std::fs::create_dir_all(&self.folder).map_err(|error| Error::EngineFiles {
            folder: self.folder.clone(),
            cause: error.to_string(),
        })
    }

    /// Whether an engine is there: else it is built, which takes minutes for a large model.
    pub(super) fn is_built(&self) -> bool {
        let files = std::fs::read_dir(&self.folder).into_iter().flatten();
        files.flatten().any(|file| is_engine(&file.path()))
    }

    /// Removes an engine that does not load any more; false where that is not what ONNX Runtime's `message` complains of.
    pub(super) fn remove_stale(&self, message: &str) -> bool {
        if !message.contains(STALE) {
            return false;
        }
        let files = std::fs::read_dir(&self.folder).into_iter().flatten();
        let engines = files.flatten().map(|file| file.path());
        let removed = engines
            .filter(|path| is_engine(path))
            .map(|path| std::fs::remove_file(path).is_ok());
        removed.filter(|&is_gone| is_gone).count() > 0
    }
}

fn is_engine(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "engine")
}

/// `input:1x2,other:3`, of the least, usual or most.
fn shapes(profile: &Profile, which: usize) -> String {
    let shape = |(name, dims): &(String, Vec<[usize; 3]>)| {
        let dims: Vec<String> = dims.iter().map(|span| span[which].to_string()).collect();
        format!("{name}:{}", dims.join("x"))
    };
    profile.iter().map(shape).collect::<Vec<_>>().join(",")
}

/// The names of the machine's GPUs, as part of a path: `nvidia-h100-80gb-hbm3`.
fn gpu(folder: &Path) -> String {
    let gpus = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut models: Vec<String> = gpus
        .filter_map(|gpu| {
            let about = std::fs::read_to_string(gpu.path().join("information")).ok()?;
            let model = about.lines().find_map(|line| line.strip_prefix("Model:"))?;
            let plain = |c: char| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            };
            Some(model.trim().chars().map(plain).collect())
        })
        .collect();
    models.sort();
    models.dedup();
    if models.is_empty() {
        "gpu".to_owned()
    } else {
        models.join("_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        vec![
            ("input_ids".to_owned(), vec![[1, 2, 3], [4, 5, 6]]),
            ("chosen".to_owned(), vec![[7, 8, 9]]),
        ]
    }

    #[test]
    fn options_say_shapes_folders_and_no_type() {
        let trt = TensorRt::new(PathBuf::from("/run/tensorrt"));
        let files = trt.files_on("nvidia-h100", b"graph", &profile());
        let options = trt.options(&files, &profile());
        let of = |key| {
            options
                .iter()
                .find(|(name, _)| *name == key)
                .unwrap()
                .1
                .as_str()
        };
        assert_eq!(of("trt_profile_min_shapes"), "input_ids:1x4,chosen:7");
        assert_eq!(of("trt_profile_opt_shapes"), "input_ids:2x5,chosen:8");
        assert_eq!(of("trt_profile_max_shapes"), "input_ids:3x6,chosen:9");
        assert_eq!(of("trt_timing_cache_path"), "/run/tensorrt/nvidia-h100");
        assert!(of("trt_engine_cache_path").starts_with("/run/tensorrt/nvidia-h100/"));
        assert_eq!(of("trt_builder_optimization_level"), "3");
        assert_eq!(of("trt_cuda_graph_enable"), "0");
        // Any of them would make the network weakly typed.
        for kind in ["fp16", "bf16", "int8"] {
            assert!(!options.iter().any(|(key, _)| key.contains(kind)));
        }
    }

    #[test]
    fn engines_are_apart_by_graph_shapes_gpu_and_level() {
        let trt = TensorRt::new(PathBuf::from("/run"));
        let files = |trt: &TensorRt, gpu, graph: &[u8], profile: &Profile| {
            trt.files_on(gpu, graph, profile).folder
        };
        let one = files(&trt, "a", b"graph", &profile());
        assert_eq!(files(&trt, "a", b"graph", &profile()), one);
        let mut wider = profile();
        wider[1].1[0][2] = 10;
        let deeper = TensorRt {
            optimization_level: 5,
            ..trt.clone()
        };
        for other in [
            files(&trt, "b", b"graph", &profile()),
            files(&trt, "a", b"other", &profile()),
            files(&trt, "a", b"graph", &wider),
            files(&deeper, "a", b"graph", &profile()),
        ] {
            assert_ne!(other, one);
        }
    }

    #[test]
    fn only_an_engine_that_does_not_load_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let trt = TensorRt::new(folder.path().to_path_buf());
        let files = trt.files(b"graph", &profile());
        assert!(!files.is_built());
        files.create().unwrap();
        let engine = files.folder.join("kernel_sm90.engine");
        std::fs::write(&engine, b"of another TensorRT").unwrap();
        assert!(files.is_built());
        assert!(!files.remove_stale("out of memory"));
        assert!(files.remove_stale(&format!("TensorRT EP {STALE}: {}", engine.display())));
        assert!(!files.is_built());
        // Nothing is left to remove: the next try would end the same.
        assert!(!files.remove_stale(STALE));
    }

    #[test]
    fn gpus_are_named_by_their_models() {
        let driver = tempfile::tempdir().unwrap();
        assert_eq!(gpu(driver.path()), "gpu");
        for bus in ["0000:01:00.0", "0000:02:00.0"] {
            let gpu = driver.path().join(bus);
            std::fs::create_dir(&gpu).unwrap();
            let about = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 65\n";
            std::fs::write(gpu.join("information"), about).unwrap();
        }
        assert_eq!(gpu(driver.path()), "nvidia-h100-80gb-hbm3");
    }
}
