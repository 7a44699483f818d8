//! Prompts made up for a measurement: random tokens around an image of noise.

use anyhow::{Context as _, Result};
use models::image::{Grid, RgbImage};
use models::processor::{Processor, Prompt};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shared::ids::Ticket;

use super::args::{BenchArgs, ImageSize};
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
            args.prompts,
            args.prompt_tokens,
            args.image,
        )
    }

    pub(super) fn of_size(
        args: &BenchArgs,
        processor: &Processor,
        num_prompts: usize,
        text_tokens: usize,
        image: ImageSize,
    ) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
        let prompts = (0..num_prompts)
            .map(|_| {
                let image = noise(&mut rng, processor, image)?;
                let text = text(&mut rng, processor, text_tokens)?;
                inputs(processor, &text, image)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            prompts,
            group_size: args.group_size,
            new_tokens: args.new_tokens,
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
                prompt: prompt.clone(),
                blank: blank.clone().filter(|_| is_scored),
            })
    }
}

/// Tokens that stand for nothing else.
fn text(rng: &mut ChaCha8Rng, processor: &Processor, count: usize) -> Result<Vec<u32>> {
    let tokens = &processor.config.tokens;
    let special: Vec<u32> = tokens
        .banned()
        .into_iter()
        .chain(tokens.eos.clone())
        .collect();
    let num_ids = u32::try_from(processor.tokenizer.num_ids()).context("the tokenizer's size")?;
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let id = rng.random_range(0..num_ids);
        if !special.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

fn noise(rng: &mut ChaCha8Rng, processor: &Processor, size: ImageSize) -> Result<Option<RgbImage>> {
    let ImageSize { width, height } = size;
    if width == 0 {
        return Ok(None);
    }
    let mut pixels = vec![0; width as usize * height as usize * 3];
    rng.fill(&mut pixels[..]);
    let image = RgbImage {
        width,
        height,
        pixels,
    };
    Ok(Some(processor.images.resize(&image)?))
}

/// The image between two halves of the text; and blanked as `--blank empty` does it.
fn inputs(
    processor: &Processor,
    text: &[u32],
    image: Option<RgbImage>,
) -> Result<(PromptInputs, Option<PromptInputs>)> {
    let tokens = &processor.config.tokens;
    let vision = &processor.config.vision;
    let (before, after) = text.split_at(text.len() / 2);
    let prompt = |image: Option<RgbImage>, has_frame: bool| -> Result<PromptInputs> {
        let grids: Vec<Grid> = image
            .iter()
            .map(|image| Grid {
                t: 1,
                h: image.height as usize / vision.patch_size,
                w: image.width as usize / vision.patch_size,
            })
            .collect();
        let patches: usize = grids.iter().map(Grid::num_patches).sum();
        let mut token_ids = before.to_vec();
        if has_frame {
            token_ids.push(tokens.vision_start);
            let count = patches / vision.spatial_merge_size.pow(2);
            token_ids.extend(std::iter::repeat_n(tokens.image, count));
            token_ids.push(tokens.vision_end);
        }
        token_ids.extend(after);
        let prompt = Prompt {
            text: String::new(),
            token_ids,
            images: image.into_iter().collect(),
            grids,
        };
        Ok(PromptInputs::new(processor, &prompt)?)
    };
    let has_image = image.is_some();
    let blank = has_image.then(|| prompt(None, true)).transpose()?;
    Ok((prompt(image, has_image)?, blank))
}
