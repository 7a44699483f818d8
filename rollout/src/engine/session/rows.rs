//! The model with a cache in rows of fixed size and weights that are inputs: standard operators, as TensorRT takes them.
//!
//! `// B rows, S new tokens of each, M slots, N image tokens, R rows of logits, C candidates, E hidden, V vocab`

use std::path::Path;

use models::checkpoint::F32Layout;
use models::config::ModelConfig;
use models::image::Grid;

use super::memory::{Memory, host_tensor};
use super::provider::Profile;
use super::row_heads::{HeadSettings, RowHeads, STATISTICS};
use super::row_pass::RowPass;
use super::row_session::{RowSession, read, take};
use super::row_settings::{RowForm, RowSettings, profile};
use super::slots::Slots;
use super::vision::{Vision, profile as vision_profile};
use super::weights::{HostWeights, Weights};
use super::{check, check_weights};
use crate::engine::stream::PASS_TOKENS;
use crate::error::{Error, Result};

/// The graphs of one model for a device, ready to be joined with any weights of it.
#[derive(Debug)]
pub struct RowLoader {
    config: ModelConfig,
    layout: F32Layout,
    settings: RowSettings,
    head: HeadSettings,
    decoder: Vec<u8>,
    vision: Vec<u8>,
}

/// One model, whose weights are replaced in place.
#[derive(Debug)]
pub struct RowModel {
    config: ModelConfig,
    settings: RowSettings,
    head: HeadSettings,
    // The memory of all of these was made by an allocator of the session of `decode`, which therefore goes last.
    weights: Weights,
    slots: Slots,
    vision: Vision,
    memory: Memory,
    /// For passes with one token per row, and for those of one row; the same one where shapes are free.
    prefill: Option<RowSession>,
    decode: RowSession,
}

/// New weights on the host, in the numbers of the device: copied, they are in use.
#[derive(Debug)]
pub struct StagedWeights {
    decoder: HostWeights,
    vision: HostWeights,
}

impl RowLoader {
    /// Builds the graphs.
    ///
    /// # Errors
    /// A layout in which nothing could run, or a model that the form does not take.
    pub fn new(config: &ModelConfig, settings: RowSettings, head: HeadSettings) -> Result<Self> {
        settings.check()?;
        let layout = F32Layout::new(&models::names::tensors(config));
        let form = settings.form();
        Ok(Self {
            decoder: models::graph::decoder(config, &layout, form)?,
            vision: models::graph::vision(config, &layout, form)?,
            config: config.clone(),
            layout,
            settings,
            head,
        })
    }

    /// Opens the graphs and reads the weights file, which is in the published layout.
    ///
    /// # Errors
    /// Not this model's weights, a graph that the provider does not take whole, or ONNX Runtime's.
    pub fn load(&self, weights_file: &Path) -> Result<RowModel> {
        check_weights(weights_file, &self.layout)?;
        let (settings, provider) = (&self.settings, &self.settings.provider);
        let open = |name, graph, profile: &Profile| provider.open(name, graph, profile);
        let profile = |shape| profile(&self.config, settings, &self.head, shape);
        let rows = settings.decoded_rows;
        let decode = open("decode", &self.decoder, &profile([rows, 1, rows]))?;
        let prefill = provider
            .has_profiles()
            .then(|| {
                let profile = profile([1, PASS_TOKENS, settings.max_wanted]);
                open("prefill", &self.decoder, &profile)
            })
            .transpose()?;
        let of_images = vision_profile(&self.config.vision, settings.max_patches);
        let vision = open("vision", &self.vision, &of_images)?;

        let memory = provider.memory(&decode)?;
        let mut weights = Weights::new(&self.decoder, &memory)?;
        weights.read(&memory, weights_file)?;
        let mut vision_weights = Weights::new(&self.vision, &memory)?;
        vision_weights.read(&memory, weights_file)?;
        let opened = |session| RowSession::new(session, &weights);
        Ok(RowModel {
            decode: opened(decode)?,
            prefill: prefill.map(opened).transpose()?,
            vision: Vision::with_weights(vision, vision_weights),
            slots: Slots::new(&memory, &self.config.text, settings)?,
            config: self.config.clone(),
            settings: settings.clone(),
            head: self.head.clone(),
            weights,
            memory,
        })
    }

    /// Makes new weights ready on the host: a model that is in use goes on meanwhile.
    ///
    /// # Errors
    /// Not this model's weights, or a file that cannot be read.
    pub fn stage(&self, weights_file: &Path) -> Result<StagedWeights> {
        check_weights(weights_file, &self.layout)?;
        Ok(StagedWeights {
            decoder: HostWeights::read(&self.decoder, weights_file)?,
            vision: HostWeights::read(&self.vision, weights_file)?,
        })
    }
}

impl RowModel {
    /// Replaces the weights in place; what is cached stays.
    ///
    /// # Errors
    /// Another model's weights, which changes nothing, or ONNX Runtime's: then the model is of no further use.
    pub fn replace_weights(&mut self, staged: &mut StagedWeights) -> Result<()> {
        let vision = self.vision.weights_mut().ok_or(Error::OtherEngine)?;
        if !self.weights.takes(&staged.decoder) || !vision.takes(&staged.vision) {
            return Err(Error::OtherEngine);
        }
        self.weights.replace(&self.memory, &mut staged.decoder)?;
        vision.replace(&self.memory, &mut staged.vision)
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

    /// Measures by other settings from here on.
    ///
    /// # Errors
    /// Another number of banned tokens, for which the graphs are not open; changes nothing.
    pub fn set_head(&mut self, head: HeadSettings) -> Result<()> {
        let [expected, got] = [&self.head, &head].map(|head| head.banned_input().len());
        check("banned tokens", expected, got)?;
        self.head = head;
        self.decode.forget_head();
        if let Some(prefill) = &mut self.prefill {
            prefill.forget_head();
        }
        Ok(())
    }

    /// As for [`super::EngineModel::encode_images`].
    ///
    /// # Errors
    /// Patches that do not fit the images, an image of too many, or ONNX Runtime's.
    pub fn encode_images(&mut self, patches: &[f32], grids: &[Grid]) -> Result<Vec<f32>> {
        self.settings.check_images(grids)?;
        self.vision.encode(&self.config.vision, patches, grids)
    }

    /// Copies a row of the cache, all of it, to another.
    ///
    /// # Errors
    /// A row outside the cache, or the same one.
    pub fn copy_row(&mut self, from: usize, to: usize) -> Result<()> {
        self.slots.copy_row(&self.memory, from, to)
    }

    /// Runs the decoder: the new tokens' keys and values go into their slots.
    ///
    /// # Errors
    /// A pass that does not fit the model or the cache, or ONNX Runtime's.
    pub fn forward(&mut self, pass: RowPass) -> Result<RowHeads<'_>> {
        let (vocab_size, hidden) = (self.config.text.vocab_size, self.config.text.hidden_size);
        pass.check(&self.settings, vocab_size, hidden)?;
        let (rows, wanted) = (pass.rows.len(), pass.logit_positions.len());
        let width = pass.token_ids.len() / rows;
        let session = match &mut self.prefill {
            Some(prefill) if width > 1 => prefill,
            _ => &mut self.decode,
        };
        let positions = pass.position_ids.concat();
        let last_slots = pass.last_slots();
        session.bind("input_ids", [rows, width], pass.token_ids)?;
        session.bind("position_ids", [3, rows, width], positions)?;
        session.bind("image_rows", [rows, width], pass.image_rows)?;
        match self.settings.form {
            RowForm::Trt(_) => session.bind("token_slots", [rows, width], pass.token_slots)?,
            RowForm::Cuda => {
                let longest = last_slots.iter().max().map_or(0, |slot| slot + 1);
                session.bind("seqlens_k", [rows], last_slots)?;
                session.bind("total_length", [], vec![longest])?;
            }
        }
        session.bind("logit_positions", [wanted], pass.logit_positions)?;
        session.bind("chosen", [wanted], pass.chosen)?;
        let mut embeds = pass.image_embeds;
        embeds.resize(embeds.len().max(hidden), 0.0); // one row at least
        let shape = [embeds.len() / hidden, hidden];
        let embeds = host_tensor(self.settings.elements, &shape, &embeds)?;
        session.bind_tensor("image_embeds", &embeds)?;
        session.bind_head(&self.head)?;
        session.bind_rows(&mut self.slots, &self.memory, &pass.rows)?;
        let mut outputs = session.run(&self.memory)?;

        let mut statistics: [Vec<f32>; STATISTICS.len()] = Default::default();
        for (values, name) in statistics.iter_mut().zip(STATISTICS) {
            *values = read::<f32>(&outputs, name)?;
            check("statistics of the head", wanted, values.len())?;
        }
        if self.head.banned.is_empty() {
            statistics[3].fill(0.0);
        }
        let ids = read::<i32>(&outputs, "candidate_ids")?;
        Ok(RowHeads {
            statistics,
            candidates: ids.len() / wanted,
            ids,
            logits: read(&outputs, "candidate_logits")?,
            rows: take(&mut outputs, "logits")?,
            memory: &self.memory,
        })
    }
}

#[cfg(test)]
mod tests {
    use models::graph::{Elements, Operators};

    use super::*;
    use crate::engine::session::Provider;

    /// TensorRT's provider refuses shapes that leave out an input without a fixed one. Weights, which have, need none.
    #[test]
    fn every_input_without_a_fixed_shape_has_its_spans() {
        let model = ::tests::Fixtures::open().unwrap().model();
        let config = ModelConfig::from_dir(&model).unwrap();
        let settings = RowSettings {
            provider: Provider::Cpu(1),
            elements: Elements::F32,
            form: RowForm::Trt(Operators::Native),
            rows: 6,
            decoded_rows: 3,
            slots: 64,
            candidates: 4,
            max_wanted: 16,
            max_patches: 256,
        };
        let head = HeadSettings {
            temperature: 1.0,
            nucleus_p: 0.95,
            banned: vec![3, 5],
        };
        let loader = RowLoader::new(&config, settings, head).unwrap();
        let of_decoder = profile(&config, &loader.settings, &loader.head, [3, 1, 3]);
        let of_vision = vision_profile(&config.vision, loader.settings.max_patches);
        for (graph, profile) in [(&loader.decoder, of_decoder), (&loader.vision, of_vision)] {
            let session = loader.settings.provider.open("test", graph, &profile);
            let session = session.unwrap();
            let mut num_named = 0;
            for input in session.inputs() {
                let shape = input.dtype().tensor_shape().unwrap();
                let named = profile.iter().find(|(name, _)| name == input.name());
                let Some((name, spans)) = named else {
                    assert!(shape.iter().all(|&dim| dim >= 0), "{}", input.name());
                    continue;
                };
                num_named += 1;
                assert_eq!(spans.len(), shape.len(), "{name}");
                for (span, &dim) in spans.iter().zip(shape.iter()) {
                    let is_fixed = usize::try_from(dim).is_ok_and(|dim| *span == [dim; 3]);
                    assert!(dim < 0 || is_fixed, "{name}: {span:?} of {dim}");
                }
            }
            assert_eq!(num_named, profile.len(), "a name that is no input");
        }
    }
}
