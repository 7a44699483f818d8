//! The model with a cache in rows of fixed size and weights that are inputs: standard operators, as TensorRT takes them.
//!
//! `// B rows, S new tokens of each, M slots, N image tokens, R rows of logits, C candidates, E hidden, V vocab`

use std::path::Path;

use models::checkpoint::F32Layout;
use models::config::ModelConfig;
use models::graph::{Elements, Form, Operators, Trt};
use models::image::Grid;
use models::onnx::size;
use ort::memory::MemoryInfo;
use ort::session::{IoBinding, Session, SessionOutputs};
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor};

use super::memory::{Memory, host_tensor};
use super::provider::{Profile, Provider};
use super::row_pass::RowPass;
use super::runtime::runtime;
use super::slots::Slots;
use super::vision::{Vision, profile as vision_profile};
use super::weights::Weights;
use super::{check, check_weights};
use crate::engine::stream::PASS_TOKENS;
use crate::error::{Error, Result};
use crate::sampler::{RowHead, Sampling};

const CONTEXT: &str = "running the decoder";

/// What a device's head says of a row in f32; see `models::graph::head`.
const STATISTICS: [&str; 8] = [
    "log_totals",
    "chosen_logprobs",
    "entropies",
    "banned_masses",
    "candidate_masses",
    "nucleus_masses",
    "nucleus_entropies",
    "renormalised_entropies",
];

/// How a [`RowModel`] is laid out.
#[derive(Debug, Clone)]
pub struct RowSettings {
    /// What runs it.
    pub provider: Provider,
    /// Of weights, activations and the cache.
    pub elements: Elements,
    /// Whether TensorRT's newest operators may be used.
    pub operators: Operators,
    /// Rows of the cache: those for responses, one at least for prompts, and one for what is scored.
    pub rows: usize,
    /// Rows for responses, which are the most of a pass that brings each one token; one of more tokens has one row.
    pub decoded_rows: usize,
    /// Slots of a row: prompt and response together.
    pub slots: usize,
    /// Candidates per row.
    pub candidates: usize,
    /// Most rows of logits of a pass with one row.
    pub max_wanted: usize,
}

/// What the head measures by.
#[derive(Debug, Clone)]
pub struct HeadSettings {
    /// Above 0.
    pub temperature: f32,
    /// Mass of the nucleus.
    pub nucleus_p: f32,
    /// Tokens that may not be drawn; none twice, all in the vocabulary.
    pub banned: Vec<i64>,
}

/// The head's outputs for R rows of logits, and the logits where they were made.
#[derive(Debug)]
pub struct RowHeads {
    statistics: [Vec<f32>; STATISTICS.len()],
    ids: Vec<i32>,
    logits: Vec<f32>,
    candidates: usize,
    rows: DynTensor,
}

/// One model, whose weights are replaced in place.
#[derive(Debug)]
pub struct RowModel {
    config: ModelConfig,
    layout: F32Layout,
    settings: RowSettings,
    head: HeadSettings,
    /// For passes with one token per row, and for those of one row; the same one where shapes are free.
    decode: Session,
    prefill: Option<Session>,
    vision: Vision,
    weights: Weights,
    slots: Slots,
    memory: Memory,
}

impl RowModel {
    /// Builds the graphs, opens them and reads the weights.
    ///
    /// # Errors
    /// A provider that is missing, not this model's weights, or ONNX Runtime's.
    pub fn load(
        config: &ModelConfig,
        weights_file: &Path,
        settings: RowSettings,
        head: HeadSettings,
    ) -> Result<Self> {
        let layout = F32Layout::new(&models::names::tensors(config));
        settings.check()?;
        check_weights(weights_file, &layout)?;
        let form = Form::Trt(Trt {
            elements: settings.elements,
            operators: settings.operators,
            slots: settings.slots,
            candidates: Some(settings.candidates),
        });
        let (provider, elements) = (&settings.provider, settings.elements);
        let graph = models::graph::decoder(config, &layout, form)?;
        let open = |rows, width, wanted| {
            let profile = profile(config, &settings, &head, [rows, width, wanted]);
            provider.open(&graph, elements, &profile)
        };
        let rows = settings.decoded_rows;
        let decode = open(rows, 1, rows)?;
        let prefill = provider
            .has_profiles()
            .then(|| open(1, PASS_TOKENS, settings.max_wanted))
            .transpose()?;
        let memory = provider.memory(&decode)?;
        let mut weights = Weights::new(&graph, &memory)?;
        weights.read(&memory, weights_file)?;

        let graph = models::graph::vision(config, &layout, form)?;
        let session = provider.open(&graph, elements, &vision_profile(&config.vision))?;
        let mut vision = Vision::with_weights(session, Weights::new(&graph, &memory)?);
        vision.read_weights(&memory, weights_file)?;
        let slots = Slots::new(
            &memory,
            &config.text,
            elements,
            settings.rows,
            settings.slots,
        )?;
        Ok(Self {
            config: config.clone(),
            layout,
            head,
            decode,
            prefill,
            vision,
            weights,
            slots,
            memory,
            settings,
        })
    }

    /// Replaces the weights in place; what is cached stays. After an error the model is of no further use.
    ///
    /// # Errors
    /// Not this model's weights, which changes nothing, or a file that cannot be read.
    pub fn replace_weights(&mut self, weights_file: &Path) -> Result<()> {
        check_weights(weights_file, &self.layout)?;
        self.weights.read(&self.memory, weights_file)?;
        self.vision.read_weights(&self.memory, weights_file)
    }

    /// The model's dimensions.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How it is laid out.
    #[must_use]
    pub fn settings(&self) -> &RowSettings {
        &self.settings
    }

    /// Measures by other settings from here on; the number of banned tokens stays.
    pub fn set_head(&mut self, head: HeadSettings) {
        self.head = head;
    }

    /// As for [`super::EngineModel::encode_images`].
    ///
    /// # Errors
    /// Patches that do not fit the images, or ONNX Runtime's.
    pub fn encode_images(&mut self, patches: &[f32], grids: &[Grid]) -> Result<Vec<f32>> {
        self.vision.encode(&self.config.vision, patches, grids)
    }

    /// Copies a row of the cache, all of it, to another.
    ///
    /// # Errors
    /// A row outside the cache.
    pub fn copy_row(&mut self, from: usize, to: usize) -> Result<()> {
        self.slots.copy_row(&self.memory, from, to)
    }

    /// Runs the decoder: the new tokens' keys and values go into their slots.
    ///
    /// # Errors
    /// A pass that does not fit the model or the cache, or ONNX Runtime's.
    pub fn forward(&mut self, pass: RowPass) -> Result<RowHeads> {
        let (vocab_size, hidden) = (self.config.text.vocab_size, self.config.text.hidden_size);
        pass.check(&self.settings, vocab_size, hidden)?;
        let (rows, wanted) = (pass.rows.len(), pass.logit_positions.len());
        let width = pass.token_ids.len() / rows;
        let session = match &mut self.prefill {
            Some(prefill) if width > 1 => prefill,
            _ => &mut self.decode,
        };
        let mut io = session.create_binding().map_err(runtime(CONTEXT))?;
        self.weights.bind(&mut io)?;
        bind(&mut io, "input_ids", [rows, width], pass.token_ids)?;
        let positions = pass.position_ids.concat();
        bind(&mut io, "position_ids", [3, rows, width], positions)?;
        bind(&mut io, "image_rows", [rows, width], pass.image_rows)?;
        bind(&mut io, "token_slots", [rows, width], pass.token_slots)?;
        bind(&mut io, "logit_positions", [wanted], pass.logit_positions)?;
        bind(&mut io, "chosen", [wanted], pass.chosen)?;
        let mut embeds = pass.image_embeds;
        embeds.resize(embeds.len().max(hidden), 0.0); // one row at least
        let shape = [embeds.len() / hidden, hidden];
        let embeds = host_tensor(self.settings.elements, &shape, &embeds)?;
        io.bind_input("image_embeds", &embeds)
            .map_err(runtime(CONTEXT))?;
        let head = &self.head;
        bind(&mut io, "temperature", [1], vec![head.temperature])?;
        bind(&mut io, "nucleus_p", [1], vec![head.nucleus_p])?;
        let banned = head.banned_input();
        bind(&mut io, "banned", [banned.len()], banned)?;
        for name in STATISTICS
            .iter()
            .chain(&["candidate_ids", "candidate_logits"])
        {
            io.bind_output_to_device(*name, &MemoryInfo::default())
                .map_err(runtime(CONTEXT))?;
        }
        io.bind_output_to_device("logits", self.memory.info())
            .map_err(runtime(CONTEXT))?;
        let lent = self.slots.bind(&self.memory, &mut io, &pass.rows)?;
        let mut outputs = session.run_binding(&io).map_err(runtime(CONTEXT))?;
        drop(lent);

        let mut statistics: [Vec<f32>; STATISTICS.len()] = Default::default();
        for (values, name) in statistics.iter_mut().zip(STATISTICS) {
            *values = read::<f32>(&outputs, name)?;
            check("statistics of the head", wanted, values.len())?;
        }
        if head.banned.is_empty() {
            statistics[3].fill(0.0);
        }
        let logits = outputs
            .remove("logits")
            .ok_or_else(|| missing("logits"))?
            .downcast()
            .map_err(runtime(CONTEXT))?;
        let ids = read::<i32>(&outputs, "candidate_ids")?;
        Ok(RowHeads {
            statistics,
            candidates: ids.len() / wanted,
            ids,
            logits: read(&outputs, "candidate_logits")?,
            rows: logits,
        })
    }

    /// Brings the logits of one row to the host: f32 `[V]`.
    ///
    /// # Errors
    /// No such row, or ONNX Runtime's.
    pub fn fetch(&self, heads: &mut RowHeads, row: usize) -> Result<Vec<f32>> {
        self.memory.fetch_row(&mut heads.rows, row)
    }
}

impl RowSettings {
    /// Refuses a layout in which nothing could run.
    fn check(&self) -> Result<()> {
        let least = self.decoded_rows + 2;
        let counts = [self.decoded_rows, self.slots, self.max_wanted];
        if counts.contains(&0) || self.rows < least {
            return Err(Error::Cache {
                reason: format!(
                    "{} rows of {} slots: {} responses need {least} rows",
                    self.rows, self.slots, self.decoded_rows
                ),
            });
        }
        if self.elements == Elements::Bf16 && !self.provider.has_profiles() {
            return Err(Error::Cache {
                reason: "the CPU computes nothing in bf16: use f32".to_owned(),
            });
        }
        Ok(())
    }
}

impl RowHeads {
    /// Rows of logits, R.
    #[must_use]
    pub fn len(&self) -> usize {
        self.statistics[0].len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is said of row `row`, below [`Self::len`].
    #[must_use]
    pub fn row(&self, row: usize) -> RowHead<'_> {
        let range = row * self.candidates..(row + 1) * self.candidates;
        let of = |index: usize| self.statistics[index][row];
        RowHead {
            log_total: of(0),
            chosen_logprob: of(1),
            entropy: of(2),
            banned_mass: of(3),
            candidate_mass: of(4),
            nucleus_entropy: of(6),
            renormalised_entropy: of(7),
            candidate_ids: &self.ids[range.clone()],
            candidate_logits: &self.logits[range],
        }
    }
}

impl HeadSettings {
    /// What a sampler of these settings needs to hear.
    #[must_use]
    pub fn new(sampling: &Sampling, vocab_size: usize) -> Self {
        let padding = sampling.num_tokens.min(vocab_size)..vocab_size;
        let named = sampling.banned.iter().map(|&id| i64::from(id));
        let mut banned: Vec<i64> = named.chain(padding.map(size)).collect();
        banned.retain(|&id| id < size(vocab_size));
        banned.sort_unstable();
        banned.dedup();
        Self {
            temperature: match sampling.temperature {
                0.0 => 1.0,
                temperature => temperature,
            },
            nucleus_p: sampling.nucleus_p,
            banned,
        }
    }

    /// The graph wants one at least; what it says of that one is not used.
    fn banned_input(&self) -> Vec<i64> {
        if self.banned.is_empty() {
            vec![0]
        } else {
            self.banned.clone()
        }
    }
}

fn bind<T, const RANK: usize>(
    io: &mut IoBinding,
    name: &str,
    shape: [usize; RANK],
    values: Vec<T>,
) -> Result<()>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    let tensor = Tensor::from_array((shape, values)).map_err(runtime(CONTEXT))?;
    io.bind_input(name, &tensor).map_err(runtime(CONTEXT))
}

fn read<T: PrimitiveTensorElementType + Clone>(
    outputs: &SessionOutputs<'_>,
    name: &str,
) -> Result<Vec<T>> {
    let output = outputs.get(name).ok_or_else(|| missing(name))?;
    let (_, values) = output.try_extract_tensor::<T>().map_err(runtime(CONTEXT))?;
    Ok(values.to_vec())
}

fn missing(output: &str) -> Error {
    Error::Runtime {
        context: CONTEXT,
        message: format!("the graph has no output `{output}`"),
    }
}

/// Shapes of passes with up to so many rows, tokens of each and rows of logits.
fn profile(
    config: &ModelConfig,
    settings: &RowSettings,
    head: &HeadSettings,
    [rows, width, wanted]: [usize; 3],
) -> Profile {
    let fixed = |size: usize| [size; 3];
    let up_to = |most: usize| [1, most, most];
    let (rows, width, wanted) = (up_to(rows), up_to(width), up_to(wanted));
    let images = [1, 1.max(width[1] / 2), width[2]];
    let text = &config.text;
    let mut profile: Profile = vec![
        ("input_ids".to_owned(), vec![rows, width]),
        ("position_ids".to_owned(), vec![fixed(3), rows, width]),
        (
            "image_embeds".to_owned(),
            vec![images, fixed(text.hidden_size)],
        ),
        ("image_rows".to_owned(), vec![rows, width]),
        ("token_slots".to_owned(), vec![rows, width]),
        ("logit_positions".to_owned(), vec![wanted]),
        ("chosen".to_owned(), vec![wanted]),
        ("banned".to_owned(), vec![fixed(head.banned_input().len())]),
    ];
    let heads = text.num_kv_heads;
    for layer in 0..text.num_layers {
        for kind in ["key", "value"] {
            let [heads, slots, dim] = [heads, settings.slots, text.head_dim].map(fixed);
            profile.push((
                format!("past_{kind}.{layer}"),
                vec![rows, heads, slots, dim],
            ));
        }
    }
    profile
}
