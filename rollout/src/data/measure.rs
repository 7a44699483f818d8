//! A row's figures: what it is made of, and whether a run would use it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use models::image::target_size::smart_resize;
use models::image::{ImageProcessor, ImageSettings};
use models::processor::{Processor, check_text_of_qwen};
use shared::dataset::{Dataset, Error, Sample, content_parts};

use super::args::DataCommand;
use crate::prompt::{PromptBuilder, bounded, decode};
use crate::template::Template;

/// Reads rows as a run would.
pub(super) enum Reader {
    /// With a model's tokenizer and image settings.
    Model(Box<PromptBuilder>),
    /// Without: lengths in characters, Qwen2.5-VL's own image settings.
    Plain(Box<Plain>),
}

/// What is there without a model.
pub(super) struct Plain {
    template: Template,
    images: ImageProcessor,
}

/// What is known of a row.
#[derive(Default)]
pub(super) struct Measured {
    /// Its id, file and row.
    pub(super) label: String,
    /// None of a row that cannot be read.
    pub(super) sample: Option<SampleFacts>,
    /// Width and height of each image that decodes.
    pub(super) sizes: Vec<(u32, u32)>,
    /// The prompt's, in tokens or characters; none when there is no prompt.
    pub(super) length: Option<u64>,
    /// Why a run would skip it.
    pub(super) skipped: Option<String>,
    /// For `--show`.
    pub(super) prompt: Option<Shown>,
}

/// What is known of a row without its images.
pub(super) struct SampleFacts {
    pub(super) num_images: usize,
    pub(super) answer: Answer,
    pub(super) has_solution: bool,
    /// Of problem and images: equal rows have equal ones.
    pub(super) digest: u64,
}

/// What the right answer looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Number,
    Letter,
    Other,
}

/// The prompt as the model gets it.
pub(super) struct Shown {
    pub(super) text: String,
    /// Width, height and tokens of each image as the model takes it.
    pub(super) images: Vec<(u32, u32, usize)>,
}

impl Reader {
    pub(super) fn new(args: &DataCommand) -> Result<Self> {
        let template = args.prompt_template.as_deref();
        let Some(model) = &args.model else {
            let images = ImageProcessor::new(ImageSettings::default());
            return Ok(Self::Plain(Box::new(Plain {
                template: Template::new(template, None)?,
                images: bounded(&images, &args.source)?,
            })));
        };
        let mut processor = Processor::from_dir(model)?;
        processor.images = bounded(&processor.images, &args.source)?;
        let prompts =
            PromptBuilder::new(Arc::new(processor), template, None, args.max_prompt_tokens)?;
        Ok(Self::Model(Box::new(prompts)))
    }

    /// What prompts are counted in.
    pub(super) fn unit(&self) -> &'static str {
        match self {
            Self::Model(_) => "tokens",
            Self::Plain(_) => "characters",
        }
    }

    pub(super) fn template(&self) -> &Template {
        match self {
            Self::Model(prompts) => prompts.template(),
            Self::Plain(plain) => &plain.template,
        }
    }

    /// The figures of a row.
    ///
    /// # Errors
    /// A file that cannot be read: a run would end there.
    pub(super) fn measure(&self, dataset: &Dataset, index: usize) -> Result<Measured> {
        match dataset.get(index) {
            Ok(sample) => {
                let mut measured = self.measure_sample(&sample);
                measured.label = dataset.label(index, &sample.id);
                Ok(measured)
            }
            Err(Error::Sample { id, reason }) => Ok(Measured {
                label: id,
                skipped: Some(reason),
                ..Measured::default()
            }),
            Err(error) => Err(error).context("the data set"),
        }
    }

    pub(super) fn measure_sample(&self, sample: &Sample) -> Measured {
        let mut measured = Measured {
            sample: Some(SampleFacts::of(sample)),
            ..Measured::default()
        };
        if let Err(error) = self.try_sample(sample, &mut measured) {
            measured.skipped = Some(format!("{error:#}"));
        }
        measured
    }

    fn try_sample(&self, sample: &Sample, measured: &mut Measured) -> Result<()> {
        match self {
            Self::Model(prompts) => {
                let processor = prompts.processor();
                // Images first, so that their sizes are known of rows whose text is wrong.
                let decoded = decode(&processor.images, sample)?;
                measured.sizes = decoded
                    .iter()
                    .map(|image| (image.width, image.height))
                    .collect();
                let messages = prompts.messages(sample)?;
                let prompt = processor.prompt(&messages, &decoded)?;
                measured.length = Some(prompt.token_ids.len() as u64);
                let merged = processor.config.vision.spatial_merge_size.pow(2).max(1);
                let images = prompt.images.iter().zip(&prompt.grids);
                measured.prompt = Some(Shown {
                    images: images
                        .map(|(image, grid)| {
                            (image.width, image.height, grid.num_patches() / merged)
                        })
                        .collect(),
                    text: prompt.text.clone(),
                });
                prompts.check(&prompt)
            }
            Self::Plain(plain) => {
                let Plain { template, images } = plain.as_ref();
                let decoded = decode(images, sample)?;
                measured.sizes = decoded
                    .iter()
                    .map(|image| (image.width, image.height))
                    .collect();
                let text = template.text(&sample.problem, decoded.len())?;
                measured.length = Some(text.chars().count() as u64);
                content_parts(&text, decoded.len())?;
                check_text_of_qwen(&text)?;
                let settings = images.settings();
                let side = settings.side_factor();
                let mut resized = Vec::with_capacity(decoded.len());
                for (index, image) in decoded.iter().enumerate() {
                    let (height, width) = smart_resize(
                        image.height,
                        image.width,
                        side,
                        settings.min_pixels,
                        settings.max_pixels,
                    )
                    .with_context(|| format!("image {index}"))?;
                    let area = u64::from(height / side) * u64::from(width / side);
                    resized.push((width, height, usize::try_from(area).unwrap_or(usize::MAX)));
                }
                measured.prompt = Some(Shown {
                    text,
                    images: resized,
                });
                match measured.length {
                    Some(0) => Err(anyhow!("the prompt is empty")),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl SampleFacts {
    fn of(sample: &Sample) -> Self {
        let mut hasher = DefaultHasher::new();
        (&sample.problem, &sample.images).hash(&mut hasher);
        Self {
            num_images: sample.images.len(),
            answer: Answer::of(&sample.answer),
            has_solution: sample.solution.is_some(),
            digest: hasher.finish(),
        }
    }
}

impl Answer {
    fn of(answer: &str) -> Self {
        let answer = answer.trim();
        if answer.parse::<f64>().is_ok_and(f64::is_finite) {
            return Self::Number;
        }
        match answer.trim_matches(['(', ')', '.']).as_bytes() {
            [letter] if letter.is_ascii_alphabetic() => Self::Letter,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn answers_by_their_looks() {
        assert_eq!(Answer::of(" -2.5 "), Answer::Number);
        assert_eq!(Answer::of("(B)"), Answer::Letter);
        assert_eq!(Answer::of(r"2 \sqrt { 221 }"), Answer::Other);
        assert_eq!(Answer::of("nan"), Answer::Other);
    }
}
