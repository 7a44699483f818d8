//! The fixtures' model on ONNX Runtime, and prompts as the engine takes them.

use models::checkpoint::{Checkpoint, write_f32};
use models::config::ModelConfig;
use models::image::{Grid, ImageProcessor, RgbImage};
use models::positions::mrope;
use rollout::engine::{EngineKind, EngineModel, KvCache, Pass, Piece, Threads, blocks_of};
use shared::record::Precision;
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
        Self::of(Fixtures::open().unwrap())
    }

    /// Runs a test on each set of fixtures.
    pub(crate) fn each(test: impl Fn(Self)) {
        Fixtures::each(|fixtures| test(Self::of(fixtures))).unwrap();
    }

    fn of(fixtures: Fixtures) -> Self {
        let config = ModelConfig::from_dir(&fixtures.model()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("model.safetensors");
        let checkpoint = Checkpoint::open(&fixtures.model()).unwrap();
        write_f32(&weights, &checkpoint, &config).unwrap();
        // The file is mapped: it may be unlinked while the model lives.
        let model = EngineModel::load(
            &config,
            &weights,
            Threads::new(Some(2), false),
            EngineKind::Cpu,
            Precision::F32,
        )
        .unwrap();
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

    /// One pass over whole sequences; gives the logits `[V]` of every token of every sequence.
    pub(crate) fn forward(&mut self, sequences: &[Sequence]) -> Vec<Vec<Vec<f32>>> {
        let lengths = sequences.iter().map(|sequence| sequence.ids.len());
        let all: Vec<Vec<usize>> = lengths.map(|length| (0..length).collect()).collect();
        let mut cache = self.cache(sequences);
        let (_, rows) = prefill(&mut self.model, &mut cache, sequences, &all);
        let mut rows = rows.into_iter();
        all.iter()
            .map(|all| rows.by_ref().take(all.len()).collect())
            .collect()
    }

    /// A cache with room for the sequences and a hundred tokens more of each.
    pub(crate) fn cache(&self, sequences: &[Sequence]) -> KvCache {
        let blocks = |sequence: &Sequence| blocks_of(sequence.ids.len()) + blocks_of(100);
        let mut cache =
            KvCache::new(&self.config.text, sequences.iter().map(blocks).sum()).unwrap();
        assert!(cache.promise(cache.num_blocks()));
        cache
    }
}

/// Runs sequences in one pass; gives the blocks that each then has, and the logits of the tokens wanted of each.
pub(crate) fn prefill(
    model: &mut EngineModel,
    cache: &mut KvCache,
    sequences: &[Sequence],
    wanted: &[Vec<usize>],
) -> (Vec<Vec<u32>>, Vec<Vec<f32>>) {
    let mut pass = Pass::default();
    let mut all_blocks = Vec::new();
    for (sequence, wanted) in sequences.iter().zip(wanted) {
        let mut blocks = Vec::new();
        cache.extend(&mut blocks, sequence.ids.len()).unwrap();
        let [t, h, w] = &sequence.positions;
        let first = pass
            .push(&Piece {
                token_ids: &sequence.ids,
                positions: [t, h, w],
                prefix_blocks: &[],
                prefix: 0,
                own_blocks: &blocks,
                own: 0,
            })
            .unwrap();
        all_blocks.push(blocks);
        let hidden = model.config().text.hidden_size;
        let embeds = sequence.image_embeds.chunks_exact(hidden);
        for (column, embed) in sequence.image_columns.iter().zip(embeds) {
            pass.push_image(first + column, embed);
        }
        wanted.iter().for_each(|column| pass.want(first + column));
    }
    (all_blocks, run(model, cache, pass))
}

/// A row of a decode step: a prompt and the tokens of its response that were read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) prompt_blocks: Vec<u32>,
    pub(crate) prompt_tokens: usize,
    pub(crate) blocks: Vec<u32>,
    pub(crate) cached: usize,
    pub(crate) next_position: i64,
}

/// One token more of each row; the logits `[V]` after it.
pub(crate) fn step(
    model: &mut EngineModel,
    cache: &mut KvCache,
    rows: &mut [Row],
    tokens: &[u32],
) -> Vec<Vec<f32>> {
    let mut pass = Pass::default();
    for (row, token) in rows.iter_mut().zip(tokens) {
        cache.extend(&mut row.blocks, row.cached + 1).unwrap();
        let first = pass
            .push(&Piece {
                token_ids: &[*token],
                positions: [&[row.next_position]; 3],
                prefix_blocks: &row.prompt_blocks,
                prefix: row.prompt_tokens,
                own_blocks: &row.blocks,
                own: row.cached,
            })
            .unwrap();
        pass.want(first);
        row.cached += 1;
        row.next_position += 1;
    }
    run(model, cache, pass)
}

fn run(model: &mut EngineModel, cache: &mut KvCache, pass: Pass) -> Vec<Vec<f32>> {
    let logits = model.forward(cache, pass).unwrap();
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
