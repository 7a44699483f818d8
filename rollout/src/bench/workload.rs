//! Prompts made up for a measurement: random tokens around an image of noise.

use anyhow::Result;
use models::image::RgbImage;
use models::made_up::{self, ImageSize};
use models::processor::Processor;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use shared::ids::Ticket;

use super::args::BenchArgs;
use crate::engine::{Job, PromptInputs};

/// The prompts of a round, and what is asked of them.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    /// With the image and with the image blanked.
    prompts: Vec<(PromptInputs, Option<PromptInputs>)>,
    group_size: usize,
    new_tokens: usize,
}

impl Workload {
    pub(super) fn new(args: &BenchArgs, processor: &Processor) -> Result<Self> {
        Self::of_size(
            args,
            processor,
            args.shape.prompts,
            args.shape.prompt_tokens,
            args.shape.image,
        )
    }

    pub(super) fn of_size(
        args: &BenchArgs,
        processor: &Processor,
        num_prompts: usize,
        text_tokens: usize,
        image: ImageSize,
    ) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(args.shape.seed);
        let prompts = (0..num_prompts)
            .map(|_| {
                let image = made_up::noise(&mut rng, processor, image)?;
                let text = made_up::text(&mut rng, processor, text_tokens)?;
                inputs(processor, &text, image)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            prompts,
            group_size: args.shape.group_size,
            new_tokens: args.shape.new_tokens,
        })
    }

    /// The same with responses of another length.
    pub(super) fn with_new_tokens(&self, new_tokens: usize) -> Self {
        Self {
            new_tokens,
            ..self.clone()
        }
    }

    /// The same with groups of another size.
    pub(super) fn with_group_size(&self, group_size: usize) -> Self {
        Self {
            group_size,
            ..self.clone()
        }
    }

    /// Tokens of each response.
    pub(super) fn new_tokens(&self) -> usize {
        self.new_tokens
    }

    /// Tokens of the longest prompt, image tokens included.
    pub(super) fn prompt_tokens(&self) -> usize {
        let lengths = self.prompts.iter().map(|(prompt, _)| prompt.len());
        lengths.max().unwrap_or(0)
    }

    /// The groups of a round.
    pub(super) fn jobs(&self, is_scored: bool) -> impl Iterator<Item = Job> {
        self.prompts
            .iter()
            .zip(0..)
            .map(move |((prompt, blank), ticket)| Job {
                ticket: Ticket(ticket),
                group_size: self.group_size,
                has_greedy: false,
                prompt: prompt.clone(),
                blank: blank.clone().filter(|_| is_scored),
            })
    }
}

/// With the image, and blanked as `--blank empty` does it.
fn inputs(
    processor: &Processor,
    text: &[u32],
    image: Option<RgbImage>,
) -> Result<(PromptInputs, Option<PromptInputs>)> {
    let made = |image: Option<RgbImage>, has_frame: bool| {
        PromptInputs::new(
            processor,
            &made_up::prompt(processor, text, image, has_frame),
        )
    };
    let has_image = image.is_some();
    let blank = has_image.then(|| made(None, true)).transpose()?;
    Ok((made(image, has_image)?, blank))
}
