//! The model with a cache in rows of fixed size and weights that are inputs: standard operators, as TensorRT takes them.
//!
//! `// B rows, S new tokens of each, M slots, N image tokens, R rows of logits, C candidates, E hidden, V vocab`

use std::path::Path;

use models::checkpoint::F32Layout;
use models::config::ModelConfig;
use models::graph::{Form, Trt};
use models::image::Grid;
use ort::memory::MemoryInfo;
use ort::session::{IoBinding, Session, SessionOutputs};
use ort::value::{PrimitiveTensorElementType, Tensor};

use super::memory::{Memory, host_tensor};
use super::row_heads::{HeadSettings, RowHeads, STATISTICS};
use super::row_pass::RowPass;
use super::row_settings::{RowSettings, profile};
use super::runtime::runtime;
use super::slots::Slots;
use super::vision::{Vision, profile as vision_profile};
use super::weights::Weights;
use super::{check, check_weights};
use crate::engine::stream::PASS_TOKENS;
use crate::error::{Error, Result};

const CONTEXT: &str = "running the decoder";

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
