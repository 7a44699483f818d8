//! The model on ONNX Runtime: this module and its parts alone name `ort`.
//!
//! `// T new tokens, N image tokens, R rows of logits, E hidden, V vocab`
//!
//! | module | what it holds |
//! |---|---|
//! | `runtime` | the library, its options and its providers |
//! | `binding` | tensors handed to it, and one run over them |
//! | `operators` | the engine's kernels as operators of a graph |
//! | `threads` | its threads, their cores and priorities |
//! | `products` | the decoder's matrix products alone, to measure against |
//! | `vision` | images to embeddings |
//! | `rows` | the model with a cache in rows and weights that are inputs, for a device |
//! | `row_settings`, `row_pass`, `row_heads` | its layout, one pass of it, what comes out of that |
//! | `row_session` | what stays bound from pass to pass |
//! | `provider`, `tensorrt`, `owner` | what runs such a graph, by which options, and whether it took all of it |
//! | `memory`, `weights`, `slots` | a device's memory, the weights and the cache in it |

mod binding;
mod memory;
mod operators;
mod owner;
mod products;
mod provider;
mod row_heads;
mod row_pass;
mod row_session;
mod row_settings;
mod rows;
mod runtime;
mod slots;
mod tensorrt;
mod threads;
mod vision;
mod weights;

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use models::checkpoint::{F32Layout, Numbers, PackedMatrix, packed_matrices};
use models::config::ModelConfig;
use models::graph::{Form, WEIGHTS_FILE};
use models::image::Grid;
use ort::session::Session;
use ort::value::DynValue;
use shared::record::Precision;

use super::cache::KvCache;
use super::kernel::attention::SEQUENCE_FIELDS;
use super::kernel::dot::Dot;
use super::packed;
use super::pass::Pass;
use crate::error::{Error, Result};
use binding::Bindings;
pub use products::Products;
pub use provider::Provider;
pub use row_heads::{HeadSettings, RowHeads};
pub use row_pass::RowPass;
pub use row_settings::{RowForm, RowSettings};
pub use rows::{RowLoader, RowModel, StagedWeights};
use runtime::{Opening, runtime};
pub use runtime::{build_info, probe};
pub use tensorrt::TensorRt;
pub use threads::{Enlisted, Threads};
use threads::{Gate, Spawner, in_background};
pub use vision::PASS_PATCHES;
use vision::Vision;

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

/// How weights are made ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// With all cores.
    Now,
    /// With what the engine, which goes on with other weights, leaves of one core.
    Background,
}

/// The graphs of one model, ready to be joined with any weights of it. Cheap to share: new weights are loaded on one
/// thread while another still decodes with the old.
#[derive(Debug)]
pub struct EngineLoader {
    config: ModelConfig,
    layout: F32Layout,
    decoder: Vec<u8>,
    vision: Vec<u8>,
    threads: Threads,
    spawner: Spawner,
    kind: EngineKind,
    /// Matrices that are packed for our own products.
    packed: Vec<PackedMatrix>,
}

impl EngineLoader {
    /// Builds the graphs and finds the engine's libraries.
    ///
    /// # Errors
    /// A library that is missing, or a model or precision that the engine does not take.
    pub fn new(
        config: &ModelConfig,
        threads: Threads,
        kind: EngineKind,
        precision: Precision,
    ) -> Result<Self> {
        probe(kind)?;
        if kind != EngineKind::Cpu {
            return Err(Error::NoGraph(match kind {
                EngineKind::Trt => "trt",
                _ => "cuda",
            }));
        }
        if precision != Precision::F32 && !Dot::detect().is_fast() {
            return Err(Error::Int8);
        }
        let layout = F32Layout::new(&models::names::tensors(config));
        let packed = match precision {
            Precision::F32 => Vec::new(),
            Precision::Bf16 => return Err(Error::OtherEngine),
            Precision::Int8 => packed_matrices(config, &layout, Numbers::Float),
            Precision::Int8Head => packed_matrices(config, &layout, Numbers::Int8),
        };
        let decoder = models::graph::engine_decoder(config, &layout, &packed)?;
        let vision = models::graph::vision(config, &layout, Form::Engine)?;
        Ok(Self {
            config: config.clone(),
            layout,
            decoder,
            vision,
            threads,
            spawner: Spawner::new().map_err(no_thread)?,
            kind,
            packed,
        })
    }

    /// Joins the graphs with a weights file in the published layout (`models::checkpoint::F32Layout`, named
    /// `model.safetensors`). The file is mapped, so it must never change; it may be unlinked.
    ///
    /// # Errors
    /// Not this model's weights, or ONNX Runtime's.
    pub fn load(&self, weights: &Path, haste: Haste) -> Result<EngineModel> {
        match haste {
            Haste::Now => self.load_here(weights, haste),
            Haste::Background => {
                let _apart = self.threads.hold_apart();
                in_background(|| self.load_here(weights, haste)).map_err(no_thread)?
            }
        }
    }

    fn load_here(&self, weights: &Path, haste: Haste) -> Result<EngineModel> {
        let folder = self.weights_folder(weights)?;
        let packed = packed::pack(weights, &self.packed)?;
        let packed = runtime::packed_tensors(&self.packed, packed)?;
        let gate = Gate::default();
        if haste == Haste::Now {
            gate.open();
        }
        let opening = |is_hot| Opening {
            gate: &gate,
            folder: &folder,
            kind: self.kind,
            threads: self.threads,
            spawner: &self.spawner,
            is_hot,
            haste,
        };
        Ok(EngineModel {
            config: self.config.clone(),
            decoder: opening(true).open(&self.decoder, packed)?,
            vision: Vision::new(opening(false).open(&self.vision, Vec::new())?),
            gate: gate.clone(),
            spawner: self.spawner.clone(),
        })
    }

    /// The decoder's matrix products with these weights, to measure against.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn load_products(&self, weights: &Path) -> Result<Products> {
        let gate = Gate::default();
        gate.open();
        let opening = Opening {
            gate: &gate,
            folder: &self.weights_folder(weights)?,
            kind: EngineKind::Cpu,
            threads: self.threads,
            spawner: &self.spawner,
            is_hot: true,
            haste: Haste::Now,
        };
        Products::load(&self.config, &self.layout, &opening)
    }

    /// Checks the weights file, and gives the folder that it is in.
    fn weights_folder(&self, weights: &Path) -> Result<PathBuf> {
        check_weights(weights, &self.layout)?;
        let path = weights.canonicalize().ok();
        let folder = path.and_then(|path| path.parent().map(Path::to_path_buf));
        folder.ok_or_else(|| Error::Weights {
            path: weights.to_path_buf(),
            reason: "has no folder".to_owned(),
        })
    }
}

/// One version of the model's weights, ready to run.
#[derive(Debug)]
pub struct EngineModel {
    config: ModelConfig,
    decoder: Session,
    vision: Vision,
    /// Of the threads of both.
    gate: Gate,
    spawner: Spawner,
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
        threads: Threads,
        kind: EngineKind,
        precision: Precision,
    ) -> Result<Self> {
        EngineLoader::new(config, threads, kind, precision)?.load(weights, Haste::Now)
    }

    /// Frees it on a thread of its own, at low priority: giving back gigabytes takes as long as a step. Join that thread before
    /// the process ends; none where it cannot be started, and the model is free already.
    #[must_use]
    pub fn retire(self) -> Option<JoinHandle<()>> {
        let spawner = self.spawner.clone();
        let free = move || {
            threads::step_back();
            drop(self);
        };
        spawner.spawn(Box::new(free)).ok()
    }

    /// The model's dimensions.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Embeds the patches of any number of images. `patches` are f32 `[P, C*T*p*p]`, the images one after the
    /// other; the result is `[N, E]` in the order of the image tokens.
    pub fn encode_images(&mut self, patches: &[f32], grids: &[Grid]) -> Result<Vec<f32>> {
        self.gate.open();
        self.vision.encode(&self.config.vision, patches, grids)
    }

    /// Runs the decoder: the new tokens' keys and values go into `cache`, the wanted logits come back.
    ///
    /// # Errors
    /// A pass that does not fit the model or the cache, or ONNX Runtime's.
    pub fn forward(&mut self, cache: &mut KvCache, pass: Pass) -> Result<Logits> {
        self.gate.open();
        let text = &self.config.text;
        pass.check(cache, text.vocab_size, text.hidden_size)?;
        let (tokens, num_sequences) = (pass.len(), pass.num_sequences());
        let (block_table, table_width) = pass.block_table();
        let num_image_tokens = pass.image_positions.len();
        let num_wanted = pass.num_wanted();

        let mut tensors = Bindings::new(&self.decoder, "running the decoder")?;
        tensors.bind("input_ids", [1, tokens], pass.token_ids)?;
        tensors.bind("position_ids", [3, 1, tokens], pass.position_ids.concat())?;
        tensors.bind(
            "image_embeds",
            [num_image_tokens, text.hidden_size],
            pass.image_embeds,
        )?;
        tensors.bind("image_positions", [num_image_tokens], pass.image_positions)?;
        tensors.bind("logit_positions", [num_wanted], pass.logit_positions)?;
        tensors.bind(
            "sequences",
            [num_sequences, SEQUENCE_FIELDS],
            pass.sequences,
        )?;
        tensors.bind("block_table", [num_sequences, table_width], block_table)?;
        tensors.bind_cache(cache)?;
        Ok(Logits {
            value: tensors.run(&mut self.decoder, "logits")?,
            vocab_size: text.vocab_size,
        })
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

fn no_thread(error: std::io::Error) -> Error {
    Error::Runtime {
        context: "starting a thread",
        message: error.to_string(),
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
