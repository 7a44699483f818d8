//! The reference's model and sequences, as the network takes them.

use learner::model::{Group, MicroBatch, Model};
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::image::{Grid, Patches};
use tch::Device;
use tests::Tensors;

use crate::reference::Reference;

/// The policy and the batch's sequences as the network takes them.
pub(crate) struct Policy {
    pub(crate) config: ModelConfig,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) prompts: Vec<(Vec<u32>, Vec<Patches>)>,
    pub(crate) responses: Vec<(usize, Vec<u32>)>, // (prompt, tokens)
}

impl Policy {
    pub(crate) fn open(reference: &Reference) -> Self {
        let fixtures = &reference.fixtures;
        let cases = fixtures.prompts().unwrap();
        let preprocess = fixtures.tensors("preprocess").unwrap();
        let numbers: Vec<usize> = reference.json["learner_prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap() as usize)
            .collect();
        let prompts = numbers.iter().map(|&number| {
            let images = cases[number]
                .images
                .iter()
                .map(|name| patches(&preprocess, name));
            (cases[number].input_ids.clone(), images.collect())
        });
        let ids = reference.tensors.ids("response_ids").unwrap();
        let of_response = reference.tensors.ids("prompt_index").unwrap();
        let position = |prompt: u32| {
            numbers
                .iter()
                .position(|&number| number == prompt as usize)
                .unwrap()
        };
        let responses = reference
            .spans
            .iter()
            .zip(of_response)
            .map(|(span, prompt)| (position(prompt), ids[span.clone()].to_vec()));
        Self {
            config: ModelConfig::from_dir(&fixtures.model()).unwrap(),
            checkpoint: Checkpoint::open(&fixtures.model()).unwrap(),
            prompts: prompts.collect(),
            responses: responses.collect(),
        }
    }

    pub(crate) fn model(&self) -> Model {
        Model::load(&self.config, &self.checkpoint, Device::Cpu).unwrap()
    }

    /// Micro-batches of `responses_at_once` sequences, in order; sequences of one prompt share it.
    pub(crate) fn micro_batches(&self, responses_at_once: usize) -> Vec<MicroBatch<'_>> {
        self.responses
            .chunks(responses_at_once)
            .map(|responses| MicroBatch {
                groups: self.groups(responses),
            })
            .collect()
    }

    pub(crate) fn groups<'a>(&'a self, responses: &'a [(usize, Vec<u32>)]) -> Vec<Group<'a>> {
        let by_prompt = responses.chunk_by(|a, b| a.0 == b.0);
        let group = |responses: &'a [(usize, Vec<u32>)]| {
            let (prompt_ids, images) = &self.prompts[responses[0].0];
            Group {
                prompt_ids,
                images,
                responses: responses.iter().map(|(_, ids)| ids.as_slice()).collect(),
            }
        };
        by_prompt.map(group).collect()
    }
}

pub(crate) fn patches(preprocess: &Tensors, name: &str) -> Patches {
    let grid = preprocess
        .ids(&format!("pil.{name}.image_grid_thw"))
        .unwrap();
    let values = preprocess
        .f32(&format!("pil.{name}.pixel_values"))
        .unwrap()
        .data;
    Patches {
        values,
        grid: Grid {
            t: grid[0] as usize,
            h: grid[1] as usize,
            w: grid[2] as usize,
        },
    }
}
