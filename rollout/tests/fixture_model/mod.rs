//! The fixture model, loaded, and prompts for it.

use std::path::PathBuf;
use std::sync::Arc;

use models::chat::{Content, Message};
use models::checkpoint::{Checkpoint, write_f32};
use models::processor::{Blank, Processor};
use rollout::engine::{
    Engine, EngineKind, EngineLoader, EngineSettings, FinishedGroup, Haste, Job, PromptInputs,
    Threads, blocks_of,
};
use rollout::sampler::{EntropyKind, Sampling};
use shared::ids::{PolicyVersion, Ticket};
use shared::record::Precision;
use tempfile::TempDir;

use crate::common::fixtures;

pub(crate) struct Model {
    pub(crate) processor: Arc<Processor>,
    pub(crate) loader: EngineLoader,
    pub(crate) weights: PathBuf,
    _folder: TempDir,
}

impl Model {
    pub(crate) fn load() -> Self {
        Self::load_as(Precision::F32)
    }

    pub(crate) fn load_as(precision: Precision) -> Self {
        let dir = fixtures().join("model");
        let processor = Processor::from_dir(&dir).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("model.safetensors");
        write_f32(
            &weights,
            &Checkpoint::open(&dir).unwrap(),
            &processor.config,
        )
        .unwrap();
        let threads = Threads::new(Some(1), false);
        let loader =
            EngineLoader::new(&processor.config, threads, EngineKind::Cpu, precision).unwrap();
        Self {
            processor: Arc::new(processor),
            loader,
            weights,
            _folder: folder,
        }
    }

    pub(crate) fn settings(&self, rows: usize, max_response_tokens: usize) -> EngineSettings {
        let tokens = &self.processor.config.tokens;
        EngineSettings {
            rows,
            max_response_tokens,
            // Fewer than all rows could need: some responses must wait for others.
            cache_blocks: 16 + 2 * rows * blocks_of(max_response_tokens) / 3,
            eos: tokens.eos.clone(),
            run_seed: 5,
            sampling: Sampling {
                temperature: 1.0,
                top_p: 1.0,
                top_k: 0,
                entropy: EntropyKind::Renormalised,
                nucleus_p: 0.95,
                banned: tokens.banned(),
                num_tokens: self.processor.config.text.vocab_size,
            },
        }
    }

    pub(crate) fn engine(&self, settings: EngineSettings) -> Engine {
        Engine::new(
            settings,
            self.loader.load(&self.weights, Haste::Now).unwrap(),
            PolicyVersion(0),
        )
        .unwrap()
    }

    /// Prompts of different lengths: several images, and one without any.
    pub(crate) fn jobs(&self, group_size: usize) -> Vec<Job> {
        let prompts = [
            (Some("triangle.png"), "How long is the third side?"),
            (None, "What is 2 + 2?"),
            (
                Some("wide.png"),
                "Say what you see, word by word, from the left to the right.",
            ),
            (Some("gray.png"), "x?"),
            (Some("exif6.jpg"), "What is the area of the figure?"),
        ];
        prompts
            .iter()
            .zip(0..)
            .map(|((image, text), ticket)| self.job(Ticket(ticket), group_size, *image, text))
            .collect()
    }

    pub(crate) fn job(
        &self,
        ticket: Ticket,
        group_size: usize,
        image: Option<&str>,
        text: &str,
    ) -> Job {
        let mut content = Vec::new();
        let mut images = Vec::new();
        if let Some(name) = image {
            content.push(Content::Image);
            let bytes = std::fs::read(fixtures().join("images").join(name)).unwrap();
            images.push(self.processor.images.decode(&bytes).unwrap());
        }
        content.push(Content::Text(text.to_owned()));
        let messages = [Message {
            role: "user".to_owned(),
            content,
        }];
        let prompt = self.processor.prompt(&messages, &images).unwrap();
        let blank = image.map(|_| {
            let blank = self
                .processor
                .blank(&messages, &prompt, Blank::Empty)
                .unwrap();
            PromptInputs::new(&self.processor, &blank).unwrap()
        });
        Job {
            ticket,
            group_size,
            has_greedy: false,
            prompt: PromptInputs::new(&self.processor, &prompt).unwrap(),
            blank,
        }
    }
}

/// Runs the engine until nothing is left; groups in the order of their tickets.
pub(crate) fn finish(engine: &mut Engine) -> Vec<FinishedGroup> {
    let mut groups = Vec::new();
    for _ in 0..100_000 {
        if engine.is_idle() {
            groups.sort_by_key(|group: &FinishedGroup| group.ticket);
            return groups;
        }
        engine.step().unwrap();
        groups.extend(engine.take_finished());
    }
    panic!("the engine did not come to an end");
}
