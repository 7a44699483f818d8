//! The model on ONNX Runtime. The only file that names `ort`.
//!
//! `// B rows, S new tokens per row, T = B*S, M cache slots, N image tokens, R rows of logits, E hidden, V vocab`
#![allow(
    unsafe_code,
    reason = "a key/value cache is lent to ONNX Runtime as past and present at once, by pointer"
)]

use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use models::checkpoint::F32Layout;
use models::config::ModelConfig;
use models::graph::WEIGHTS_FILE;
use models::image::Grid;
use models::positions::{Slots, VisionPlan, vision_plan};
use ort::AsPointer;
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::builder::SessionBuilder;
use ort::session::{IoBinding, Session};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor};

use super::cache::KvCache;
use super::library;
use crate::error::{Error, Result};

/// What runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// f32 on the CPU.
    Cpu,
    /// ONNX Runtime's CUDA provider.
    Cuda,
    /// ONNX Runtime's TensorRT provider.
    Trt,
}

/// The graphs of one model, ready to be joined with any weights of it. Cheap to share: new weights are loaded on one
/// thread while another still decodes with the old.
#[derive(Debug)]
pub struct EngineLoader {
    config: ModelConfig,
    layout: F32Layout,
    decoder: Vec<u8>,
    vision: Vec<u8>,
    threads: usize,
    kind: EngineKind,
}

impl EngineLoader {
    /// Builds the graphs and finds the engine's libraries. `threads` = 0 means one per physical core.
    pub fn new(config: &ModelConfig, threads: usize, kind: EngineKind) -> Result<Self> {
        probe(kind)?;
        let layout = F32Layout::new(&models::names::tensors(config));
        let decoder = models::graph::decoder(config, &layout)?;
        let vision = models::graph::vision(config, &layout)?;
        Ok(Self {
            config: config.clone(),
            layout,
            decoder,
            vision,
            threads,
            kind,
        })
    }

    /// Joins the graphs with a weights file in the published layout (`models::checkpoint::F32Layout`, named
    /// `model.safetensors`). The file is mapped, so it must never change; it may be unlinked.
    pub fn load(&self, weights: &Path) -> Result<EngineModel> {
        check_weights(weights, &self.layout)?;
        let folder = weights
            .canonicalize()
            .ok()
            .and_then(|path| path.parent().map(Path::to_path_buf));
        let folder = folder.ok_or_else(|| Error::Weights {
            path: weights.to_path_buf(),
            reason: "has no folder".to_owned(),
        })?;
        Ok(EngineModel {
            config: self.config.clone(),
            decoder: open(&self.decoder, &folder, self.threads, self.kind, true)?,
            vision: open(&self.vision, &folder, self.threads, self.kind, false)?,
        })
    }
}

/// One version of the model's weights, ready to run.
#[derive(Debug)]
pub struct EngineModel {
    config: ModelConfig,
    decoder: Session,
    vision: Session,
}

/// One pass of the decoder over rows `0..rows` of a cache.
///
/// A *first prompt* (`width` > 1) starts every row afresh and is padded on the right to `width`; a *step*
/// (`width` = 1) adds one token to rows of any length. `width` = 1 with a length of 1 starts a row of one token.
#[derive(Debug, Clone, Copy)]
pub struct ForwardInputs<'a> {
    /// B.
    pub rows: usize,
    /// S.
    pub width: usize,
    /// `[B, S]`; padding may be any token.
    pub token_ids: &'a [i64],
    /// `[3, B, S]`: temporal, height, width position of each token; padding may be any position.
    pub position_ids: &'a [i64],
    /// `[N, E]`, may be empty.
    pub image_embeds: &'a [f32],
    /// `[N]`: flat index `b * S + s` of the token that each image embedding replaces.
    pub image_positions: &'a [i64],
    /// `[B]`: tokens in each row after this pass, the new ones included.
    pub lengths: &'a [i32],
    /// `[R]`: flat index `b * S + s` of the tokens whose next-token logits are wanted.
    pub logit_positions: &'a [i64],
}

/// Next-token logits, f32 `[R, V]`.
#[derive(Debug)]
pub struct Logits {
    value: DynValue,
    vocab_size: usize,
}

impl Logits {
    /// All of them, `[R, V]` flat.
    pub fn values(&self) -> Result<&[f32]> {
        let (_, values) = self
            .value
            .try_extract_tensor::<f32>()
            .map_err(runtime("reading the logits"))?;
        Ok(values)
    }

    /// The rows in the order of `logit_positions`, each `[V]`.
    pub fn rows(&self) -> Result<impl ExactSizeIterator<Item = &[f32]>> {
        Ok(self.values()?.chunks_exact(self.vocab_size))
    }
}

impl EngineModel {
    /// Loads weights once; use an [`EngineLoader`] where new weights follow.
    pub fn load(
        config: &ModelConfig,
        weights: &Path,
        threads: usize,
        kind: EngineKind,
    ) -> Result<Self> {
        EngineLoader::new(config, threads, kind)?.load(weights)
    }

    /// The model's dimensions.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Embeds the patches of any number of images. `patches` are f32 `[P, C*T*p*p]`, the images one after the
    /// other; the result is `[N, E]` in the order of the image tokens.
    pub fn encode_images(&mut self, patches: &[f32], grids: &[Grid]) -> Result<Vec<f32>> {
        let vision = &self.config.vision;
        let num_patches: usize = grids.iter().map(|grid| grid.t * grid.h * grid.w).sum();
        let patch_dim =
            vision.in_channels * vision.temporal_patch_size * vision.patch_size * vision.patch_size;
        check("patches", num_patches * patch_dim, patches.len())?;
        if num_patches == 0 {
            return Ok(Vec::new());
        }
        let plan = vision_plan(grids, vision);
        let rope_positions = plan.rope_positions.iter().flatten().copied().collect();
        let num_tokens = plan.token_order.len();
        let mut binding = self
            .vision
            .create_binding()
            .map_err(runtime("binding the vision inputs"))?;
        bind(
            &mut binding,
            "pixel_values",
            [num_patches, patch_dim],
            patches.to_vec(),
        )?;
        bind(&mut binding, "patch_order", [num_patches], plan.patch_order)?;
        bind(
            &mut binding,
            "rope_positions",
            [num_patches, 2],
            rope_positions,
        )?;
        bind_slots(
            &mut binding,
            "window",
            VisionPlan::padded(&plan.window_lengths),
        )?;
        bind_slots(
            &mut binding,
            "image",
            VisionPlan::padded(&plan.image_lengths),
        )?;
        bind(&mut binding, "token_order", [num_tokens], plan.token_order)?;
        let output = run(
            &mut self.vision,
            &mut binding,
            "image_embeds",
            "embedding images",
        )?;
        let (_, values) = output
            .try_extract_tensor::<f32>()
            .map_err(runtime("reading image embeddings"))?;
        Ok(values.to_vec())
    }

    /// Runs the decoder: the new tokens' keys and values go into `cache`, the wanted logits come back.
    pub fn forward(&mut self, cache: &mut KvCache, inputs: &ForwardInputs<'_>) -> Result<Logits> {
        let num_image_tokens = self.check_inputs(cache, inputs)?;
        let ForwardInputs { rows, width, .. } = *inputs;
        let last_slots: Vec<i32> = inputs.lengths.iter().map(|length| length - 1).collect();
        // Longest row: the width of the attention scores. A first prompt must say the padded width.
        let total_length = if width > 1 {
            to_i32(width)?
        } else {
            inputs.lengths.iter().copied().max().unwrap_or(1)
        };
        let mut binding = self
            .decoder
            .create_binding()
            .map_err(runtime("binding the decoder inputs"))?;
        bind(
            &mut binding,
            "input_ids",
            [rows, width],
            inputs.token_ids.to_vec(),
        )?;
        bind(
            &mut binding,
            "position_ids",
            [3, rows, width],
            inputs.position_ids.to_vec(),
        )?;
        let hidden_size = self.config.text.hidden_size;
        bind(
            &mut binding,
            "image_embeds",
            [num_image_tokens, hidden_size],
            inputs.image_embeds.to_vec(),
        )?;
        bind(
            &mut binding,
            "image_positions",
            [num_image_tokens],
            inputs.image_positions.to_vec(),
        )?;
        bind(&mut binding, "seqlens_k", [rows], last_slots)?;
        bind(&mut binding, "total_length", [0; 0], vec![total_length])?;
        bind(
            &mut binding,
            "logit_positions",
            [inputs.logit_positions.len()],
            inputs.logit_positions.to_vec(),
        )?;
        bind_cache(&mut binding, cache, rows)?;
        let value = run(
            &mut self.decoder,
            &mut binding,
            "logits",
            "running the decoder",
        )?;
        Ok(Logits {
            value,
            vocab_size: self.config.text.vocab_size,
        })
    }

    /// Checks sizes, and that the pass fits the cache; gives N.
    fn check_inputs(&self, cache: &KvCache, inputs: &ForwardInputs<'_>) -> Result<usize> {
        let tokens = inputs.rows * inputs.width;
        check("token_ids", tokens, inputs.token_ids.len())?;
        check("position_ids", 3 * tokens, inputs.position_ids.len())?;
        check("lengths", inputs.rows, inputs.lengths.len())?;
        let num_image_tokens = inputs.image_positions.len();
        check(
            "image_embeds",
            num_image_tokens * self.config.text.hidden_size,
            inputs.image_embeds.len(),
        )?;
        let vocab_size = self.config.text.vocab_size;
        if inputs
            .token_ids
            .iter()
            .any(|&id| usize::try_from(id).map_or(true, |id| id >= vocab_size))
        {
            return Err(Error::Cache {
                reason: format!("a token id is outside the vocabulary of {vocab_size}"),
            });
        }
        let inside =
            |position: &i64| usize::try_from(*position).is_ok_and(|position| position < tokens);
        if !inputs
            .image_positions
            .iter()
            .chain(inputs.logit_positions)
            .all(inside)
        {
            return Err(Error::Cache {
                reason: format!(
                    "an image or logit position is outside the {tokens} tokens of the pass"
                ),
            });
        }
        let limit = if inputs.width > 1 {
            inputs.width
        } else {
            cache.slots()
        };
        let fits = |length: &i32| {
            usize::try_from(*length).is_ok_and(|length| (1..=limit).contains(&length))
        };
        if inputs.rows == 0
            || inputs.rows > cache.rows()
            || inputs.width > cache.slots()
            || !inputs.lengths.iter().all(fits)
        {
            return Err(Error::Cache {
                reason: format!(
                    "{} rows of {} new tokens, {} at most in all, do not fit {} rows of {} slots",
                    inputs.rows,
                    inputs.width,
                    inputs.lengths.iter().max().unwrap_or(&0),
                    cache.rows(),
                    cache.slots()
                ),
            });
        }
        Ok(num_image_tokens)
    }
}

/// Lends the first `rows` rows of the cache to ONNX Runtime, each buffer as past and as present: the new keys and
/// values are written in place.
fn bind_cache(binding: &mut IoBinding, cache: &mut KvCache, rows: usize) -> Result<()> {
    let shape = cache.shape(rows);
    let elements = cache.elements(rows);
    let buffers = [("key", &mut cache.keys), ("value", &mut cache.values)];
    for (name, layers) in buffers {
        for (layer, buffer) in layers.iter_mut().enumerate() {
            let mut view = view(&mut buffer[..elements], shape)?;
            binding
                .bind_input(format!("past_{name}.{layer}"), &view)
                .map_err(runtime("binding the cache"))?;
            binding
                .bind_output(format!("present_{name}.{layer}"), &mut view)
                .map_err(runtime("binding the cache"))?;
        }
    }
    Ok(())
}

/// A tensor over memory that stays ours. It must not outlive `buffer`: the binding that it goes into is dropped at
/// the end of the pass.
fn view(buffer: &mut [f32], shape: [usize; 4]) -> Result<DynValue> {
    debug_assert_eq!(buffer.len(), shape.iter().product::<usize>());
    let allocator = Allocator::default();
    let shape = shape.map(|dim| dim as i64);
    let mut value = std::ptr::null_mut();
    let info = MemoryInfo::default();
    // SAFETY: `buffer` holds the elements that `shape` says, of the element type named, on the CPU.
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            info.ptr(),
            buffer.as_mut_ptr().cast(),
            size_of_val(buffer),
            shape.as_ptr(),
            shape.len(),
            ort::sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
            &raw mut value,
        )
    };
    // SAFETY: the status comes from ONNX Runtime and is handed over once.
    unsafe { ort::Error::result_from_status(status) }.map_err(runtime("binding the cache"))?;
    let value = NonNull::new(value).ok_or_else(|| Error::Runtime {
        context: "binding the cache",
        message: "no value was made".to_owned(),
    })?;
    // SAFETY: a valid tensor that we own; it has no memory of its own for the allocator to free.
    Ok(unsafe { DynValue::from_ptr(value, Some(&allocator)) })
}

/// Runs a bound session and gives its one output that is not the cache.
fn run(
    session: &mut Session,
    binding: &mut IoBinding,
    output: &str,
    context: &'static str,
) -> Result<DynValue> {
    binding
        .bind_output_to_device(output, &MemoryInfo::default())
        .map_err(runtime(context))?;
    let mut outputs = session.run_binding(binding).map_err(runtime(context))?;
    outputs.remove(output).ok_or_else(|| Error::Runtime {
        context,
        message: format!("the graph has no output `{output}`"),
    })
}

fn bind<T, const RANK: usize>(
    binding: &mut IoBinding,
    name: &str,
    shape: [usize; RANK],
    values: Vec<T>,
) -> Result<()>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    let tensor = Tensor::from_array((shape, values)).map_err(runtime("making an input tensor"))?;
    binding
        .bind_input(name, &tensor)
        .map_err(runtime("binding an input"))
}

fn bind_slots(binding: &mut IoBinding, name: &str, slots: Slots) -> Result<()> {
    let shape = [slots.slots.len() / slots.width.max(1), slots.width];
    bind(
        binding,
        &format!("{name}_unslot"),
        [slots.unslot.len()],
        slots.unslot,
    )?;
    bind(binding, &format!("{name}_slots"), shape, slots.slots)?;
    bind(binding, &format!("{name}_mask"), shape, slots.mask)
}

/// Opens a graph whose weights lie in `folder`.
fn open(
    graph: &[u8],
    folder: &Path,
    threads: usize,
    kind: EngineKind,
    is_hot: bool,
) -> Result<Session> {
    let mut builder = options(folder, threads, kind, is_hot)?;
    builder
        .commit_from_memory(graph)
        .map_err(runtime("opening the graph"))
}

fn options(
    folder: &Path,
    threads: usize,
    kind: EngineKind,
    is_hot: bool,
) -> Result<SessionBuilder> {
    let builder = with_provider(
        Session::builder(environment()?).map_err(runtime("making session options"))?,
        kind,
    )?;
    let set = || -> ort::Result<SessionBuilder> {
        Ok(builder
            .with_intra_threads(threads)?
            // Every pass has its own shapes: remembered memory plans would only pile up.
            .with_memory_pattern(false)?
            // Threads that wait for the next operator spin only in the session that runs all the time.
            .with_intra_op_spinning(is_hot)?
            .with_config_entry("session.prepack.enable_parallel", "1")?
            .with_config_entry(
                "session.model_external_initializers_file_folder_path",
                folder.to_string_lossy(),
            )?)
    };
    set().map_err(runtime("making session options"))
}

/// Checks that the engine's library and provider load, before anything costly is done.
fn probe(kind: EngineKind) -> Result<()> {
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
    static ENVIRONMENT: OnceLock<Result<Environment, (std::path::PathBuf, String)>> =
        OnceLock::new();
    let made = ENVIRONMENT.get_or_init(|| {
        let path = library::path();
        let logger = Arc::new(|level, _: &str, _: &str, location: &str, message: &str| {
            log(level, location, message)
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

fn log(level: ort::logging::LogLevel, location: &str, message: &str) {
    use ort::logging::LogLevel;
    match level {
        LogLevel::Verbose | LogLevel::Info => {
            tracing::trace!(target: "onnxruntime", "{location}: {message}")
        }
        LogLevel::Warning => tracing::debug!(target: "onnxruntime", "{location}: {message}"),
        LogLevel::Error | LogLevel::Fatal => {
            tracing::debug!(target: "onnxruntime", "{location}: {message}")
        }
    }
}

/// Refuses a file that is not in the layout that the graphs point into.
fn check_weights(path: &Path, layout: &F32Layout) -> Result<()> {
    let refused = |reason: &str| Error::Weights {
        path: path.to_path_buf(),
        reason: reason.to_owned(),
    };
    if path.file_name().is_none_or(|name| name != WEIGHTS_FILE) {
        return Err(refused(
            "the engine's weights file must be named model.safetensors",
        ));
    }
    match layout.matches(path) {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused(
            "not this model's weights as the learner publishes them",
        )),
        Err(error) => Err(refused(&error.to_string())),
    }
}

fn check(tensor: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        Ok(())
    } else {
        Err(Error::Shape {
            tensor,
            expected,
            got,
        })
    }
}

fn to_i32(length: usize) -> Result<i32> {
    i32::try_from(length).map_err(|_| Error::Cache {
        reason: format!("{length} tokens in one row"),
    })
}

/// An [`Error::Runtime`]; for `map_err`.
fn runtime<R>(context: &'static str) -> impl Fn(ort::Error<R>) -> Error {
    move |error| Error::Runtime {
        context,
        message: one_line(error.message()),
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
