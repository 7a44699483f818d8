//! The fixtures' model on ONNX Runtime, and prompts as the engine takes them.

use models::checkpoint::{Checkpoint, write_f32};
use models::config::ModelConfig;
use models::image::{Grid, ImageProcessor, RgbImage};
use models::positions::mrope;
use rollout::engine::{EngineKind, EngineModel, ForwardInputs, KvCache};
use tests::fixtures::{Fixtures, PromptCase};
use tests::tensors::Tensors;

pub(crate) struct Setup {
    pub(crate) fixtures: Fixtures,
    pub(crate) config: ModelConfig,
    pub(crate) model: EngineModel,
    pub(crate) prompts: Vec<PromptCase>,
    pixels: Tensors,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let fixtures = Fixtures::open().unwrap();
        let config = ModelConfig::from_dir(&fixtures.model()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("model.safetensors");
        let checkpoint = Checkpoint::open(&fixtures.model()).unwrap();
        write_f32(&weights, &checkpoint, &config).unwrap();
        // The file is mapped: it may be unlinked while the model lives.
        let model = EngineModel::load(&config, &weights, 2, EngineKind::Cpu).unwrap();
        let prompts = fixtures.prompts().unwrap();
        let pixels = fixtures.tensors("preprocess").unwrap();
        Self {
            fixtures,
            config,
            model,
            prompts,
            pixels,
        }
    }

    /// Patches of a prompt's images, as the reference preprocessed them.
    pub(crate) fn patches(&self, prompt: &PromptCase) -> Vec<f32> {
        let values = |name: &String| {
            self.pixels
                .f32(&format!("pil.{name}.pixel_values"))
                .unwrap()
                .data
        };
        prompt.images.iter().flat_map(values).collect()
    }

    /// Patches of black images of the same sizes.
    pub(crate) fn black_patches(&self, prompt: &PromptCase) -> Vec<f32> {
        let processor =
            ImageProcessor::from_dir(&self.fixtures.model(), &self.config.vision).unwrap();
        let side = self.config.vision.patch_size;
        let black = |grid: &Grid| {
            let (width, height) = (grid.w * side, grid.h * side);
            let image = RgbImage {
                width: width as u32,
                height: height as u32,
                pixels: vec![0; width * height * 3],
            };
            processor.patches(&image).unwrap().values
        };
        prompt.grids.iter().flat_map(black).collect()
    }

    /// A prompt with its images embedded by the engine.
    pub(crate) fn start(&mut self, prompt: &PromptCase) -> Start {
        let embeds = self
            .model
            .encode_images(&self.patches(prompt), &prompt.grids)
            .unwrap();
        Start::new(&self.config, &prompt.input_ids, &prompt.grids, embeds)
    }

    /// One forward pass over whole sequences, padded on the right; gives the logits `[V]` of every token of every
    /// sequence, padding left out.
    pub(crate) fn forward(&mut self, sequences: &[Sequence]) -> Vec<Vec<Vec<f32>>> {
        let mut cache = KvCache::new(&self.config.text, 1, 1);
        let lengths: Vec<usize> = sequences
            .iter()
            .map(|sequence| sequence.ids.len())
            .collect();
        let all: Vec<Vec<usize>> = lengths
            .iter()
            .map(|&length| (0..length).collect())
            .collect();
        let mut rows = prefill(&mut self.model, &mut cache, sequences, 0, &all).into_iter();
        lengths
            .iter()
            .map(|&length| rows.by_ref().take(length).collect())
            .collect()
    }
}

/// Runs sequences as a first prompt into a cache with `extra_slots` to spare, and gives the logits of the tokens wanted of each.
pub(crate) fn prefill(
    model: &mut EngineModel,
    cache: &mut KvCache,
    sequences: &[Sequence],
    extra_slots: usize,
    wanted: &[Vec<usize>],
) -> Vec<Vec<f32>> {
    let rows = sequences.len();
    let width = sequences
        .iter()
        .map(|sequence| sequence.ids.len())
        .max()
        .unwrap();
    cache.reshape(rows, width + extra_slots);
    let mut token_ids = vec![0; rows * width];
    let mut position_ids = vec![0; 3 * rows * width];
    let (mut image_embeds, mut image_positions, mut logit_positions) =
        (Vec::new(), Vec::new(), Vec::new());
    for (row, sequence) in sequences.iter().enumerate() {
        for (column, &id) in sequence.ids.iter().enumerate() {
            token_ids[row * width + column] = i64::from(id);
            for axis in 0..3 {
                position_ids[(axis * rows + row) * width + column] =
                    sequence.positions[axis][column];
            }
        }
        image_embeds.extend_from_slice(&sequence.image_embeds);
        image_positions.extend(
            sequence
                .image_columns
                .iter()
                .map(|column| (row * width + column) as i64),
        );
        logit_positions.extend(
            wanted[row]
                .iter()
                .map(|column| (row * width + column) as i64),
        );
    }
    let lengths: Vec<i32> = sequences
        .iter()
        .map(|sequence| sequence.ids.len() as i32)
        .collect();
    let inputs = ForwardInputs {
        rows,
        width,
        token_ids: &token_ids,
        position_ids: &position_ids,
        image_embeds: &image_embeds,
        image_positions: &image_positions,
        lengths: &lengths,
        logit_positions: &logit_positions,
    };
    let logits = model.forward(cache, &inputs).unwrap();
    logits.rows().unwrap().map(<[f32]>::to_vec).collect()
}

/// A prompt ready to run.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) sequence: Sequence,
    pub(crate) next_position: i64,
}

/// Tokens with their positions and image embeddings.
#[derive(Clone)]
pub(crate) struct Sequence {
    pub(crate) ids: Vec<u32>,
    pub(crate) positions: [Vec<i64>; 3],
    pub(crate) image_embeds: Vec<f32>,
    pub(crate) image_columns: Vec<usize>,
}

impl Start {
    pub(crate) fn new(
        config: &ModelConfig,
        ids: &[u32],
        grids: &[Grid],
        image_embeds: Vec<f32>,
    ) -> Self {
        let positions = mrope(ids, grids, config).unwrap();
        let is_image = |(column, &id): (usize, &u32)| (id == config.tokens.image).then_some(column);
        let image_columns = ids.iter().enumerate().filter_map(is_image).collect();
        let sequence = Sequence {
            ids: ids.to_vec(),
            positions: positions.ids,
            image_embeds,
            image_columns,
        };
        Self {
            sequence,
            next_position: positions.next,
        }
    }

    /// The prompt with a response after it.
    pub(crate) fn with_response(&self, response: &[u32]) -> Sequence {
        let mut sequence = self.sequence.clone();
        sequence.ids.extend_from_slice(response);
        for axis in &mut sequence.positions {
            axis.extend((self.next_position..).take(response.len()));
        }
        sequence
    }
}
