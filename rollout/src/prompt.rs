//! Sample -> prompt: the user's message, the image, and the same prompt with the image blanked.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use models::chat::{Content, Message};
use models::image::{ImageProcessor, RgbImage};
use models::processor::{Blank, Processor, Prompt};
use shared::config::DataArgs;
use shared::dataset::{Part, Sample, content_parts};

use crate::engine::PromptInputs;
use crate::template::Template;

/// Builds prompts; the same for every sample of a run.
#[derive(Debug, Clone)]
pub struct PromptBuilder {
    processor: Arc<Processor>,
    template: Template,
    blank: Option<Blank>,
    max_prompt_tokens: usize,
}

/// A sample ready for the engine, with what the record needs of it.
#[derive(Debug, Clone)]
pub struct BuiltPrompt {
    /// Tokens and resized images.
    pub prompt: Prompt,
    /// As the model takes it.
    pub inputs: PromptInputs,
    /// Blanked; none without images or when no blank pass is wanted.
    pub blank_inputs: Option<PromptInputs>,
}

impl PromptBuilder {
    /// `template` is a file or a name (see [`Template`]); without one it is what the model folder names.
    /// `blank` is the form of the second prompt, none when no blank pass is wanted.
    ///
    /// # Errors
    /// A template that cannot be read or does not parse.
    pub fn new(
        processor: Arc<Processor>,
        template: Option<&Path>,
        blank: Option<Blank>,
        max_prompt_tokens: usize,
    ) -> Result<Self> {
        let template = Template::new(template, processor.prompt_template.as_deref())?;
        Ok(Self {
            processor,
            template,
            blank,
            max_prompt_tokens,
        })
    }

    /// What reads the samples.
    #[must_use]
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// How the samples are asked.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The prompt of a sample. Nothing is ever cut.
    ///
    /// # Errors
    /// An image that does not decode, marks that do not match the images, or a prompt that is too long: a reason to skip the sample.
    pub fn build(&self, sample: &Sample) -> Result<BuiltPrompt> {
        let messages = self.messages(sample)?;
        let decoded = decode(&self.processor.images, sample)?;
        let prompt = self.processor.prompt(&messages, &decoded)?;
        self.check(&prompt)?;
        let blank_inputs = match self.blank {
            Some(form) if !prompt.images.is_empty() => {
                let blank = self.processor.blank(&messages, &prompt, form)?;
                Some(PromptInputs::new(&self.processor, &blank)?)
            }
            _ => None,
        };
        Ok(BuiltPrompt {
            inputs: PromptInputs::new(&self.processor, &prompt)?,
            prompt,
            blank_inputs,
        })
    }

    /// The conversation of a sample.
    ///
    /// # Errors
    /// A template that fails, or marks that do not match the images.
    pub fn messages(&self, sample: &Sample) -> Result<Vec<Message>> {
        let num_images = sample.images.len();
        let text = self.template.text(&sample.problem, num_images)?;
        Ok(vec![user_message(content_parts(&text, num_images)?)])
    }

    /// Whether the engine takes the prompt.
    ///
    /// # Errors
    /// It is empty or too long.
    pub fn check(&self, prompt: &Prompt) -> Result<()> {
        if prompt.token_ids.is_empty() {
            bail!("the prompt is empty");
        }
        Ok(prompt.check_length(self.max_prompt_tokens, &self.processor.config)?)
    }
}

/// The images of a sample, upright, at their own size.
///
/// # Errors
/// The first that does not decode.
pub fn decode(images: &ImageProcessor, sample: &Sample) -> Result<Vec<RgbImage>> {
    let decode = |(index, bytes): (usize, &Vec<u8>)| {
        images
            .decode(bytes)
            .with_context(|| format!("image {index}"))
    };
    sample.images.iter().enumerate().map(decode).collect()
}

/// The image processor of a model, with other bounds on the area where the flags give some.
///
/// # Errors
/// When no area is within them.
pub fn bounded(images: &ImageProcessor, args: &DataArgs) -> Result<ImageProcessor> {
    let mut settings = images.settings().clone();
    if let Some(pixels) = args.min_pixels {
        settings.min_pixels = pixels as u64;
    }
    if let Some(pixels) = args.max_pixels {
        settings.max_pixels = pixels as u64;
    }
    let (min, max) = (settings.min_pixels, settings.max_pixels);
    let patch = u64::from(settings.side_factor()).pow(2);
    if min > max || max < patch {
        bail!(
            "images of {min} to {max} pixels: --max-pixels must be at least --min-pixels and {patch}, the area of one token"
        );
    }
    Ok(ImageProcessor::new(settings))
}

fn user_message(parts: Vec<Part>) -> Message {
    let content = |part| match part {
        Part::Text(text) => Content::Text(text),
        Part::Image => Content::Image,
    };
    Message {
        role: "user".to_owned(),
        content: parts.into_iter().map(content).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a hub model is told with scripts/think_boxed.jinja: the image where its mark is, the question, how to answer.
    #[test]
    fn the_shipped_template_asks_for_thoughts_and_a_box() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let model = repository.join("models/geo-mini/model");
        let processor = Arc::new(Processor::from_dir(&model).unwrap());
        let image = repository.join("tests/data/qwen2_5_vl/images/triangle.png");
        let template = repository.join("scripts/think_boxed.jinja");
        let sample = Sample {
            id: "a".to_owned(),
            problem: "<image>How long is AB?\n".to_owned(),
            images: vec![std::fs::read(image).unwrap()],
            answer: "3".to_owned(),
            solution: None,
        };
        let builder =
            PromptBuilder::new(Arc::clone(&processor), Some(&template), None, 2048).unwrap();
        let built = builder.build(&sample).unwrap();
        let text = processor
            .tokenizer
            .decode(&built.prompt.token_ids, false)
            .unwrap();
        let pad = "<|image_pad|>";
        let num_pads = text.matches(pad).count();
        assert!(num_pads > 1, "{text}");
        assert_eq!(
            text.replace(&pad.repeat(num_pads), "IMAGE"),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n\
             <|im_start|>user\n<|vision_start|>IMAGE<|vision_end|>How long is AB? \
             You FIRST think about the reasoning process as an internal monologue and then provide the final answer. \
             The reasoning process MUST BE enclosed within <think> </think> tags. \
             The final answer MUST BE put in \\boxed{}.<|im_end|>\n\
             <|im_start|>assistant\n"
        );
    }

    /// Images in the middle of the text, one that is a bomb, and marks that do not match: each said in one line.
    #[test]
    fn images_stand_where_their_marks_are_or_the_sample_is_refused() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let processor = Processor::from_dir(&repository.join("models/geo-mini/model")).unwrap();
        let image =
            std::fs::read(repository.join("tests/data/qwen2_5_vl/images/triangle.png")).unwrap();
        let builder = PromptBuilder::new(Arc::new(processor), None, None, 2048).unwrap();
        assert_eq!(
            builder.template().name(),
            "none",
            "the shipped model names its own"
        );
        let build = |problem: &str, images: Vec<Vec<u8>>| {
            builder.build(&Sample {
                id: "a".to_owned(),
                problem: problem.to_owned(),
                images,
                answer: "3".to_owned(),
                solution: None,
            })
        };
        let built = build("a <image> b <image>c", vec![image.clone(), image.clone()]).unwrap();
        let mark = "<|vision_start|><|image_pad|><|vision_end|>";
        assert!(
            built
                .prompt
                .text
                .contains(&format!("user\na {mark} b {mark}c<|im_end|>")),
            "{}",
            built.prompt.text
        );
        let said = |problem: &str, images| format!("{:#}", build(problem, images).unwrap_err());
        assert_eq!(
            said("<image><image>", vec![image.clone()]),
            "the problem has 2 <image> placeholders for 1 images"
        );
        assert!(
            said("no mark", vec![image.clone()]).contains("0 <image> placeholders for 1 images")
        );
        // Marks that are matched are images; the model's own words for them are refused.
        let said_of_token = said("<image>a <|vision_start|> b", vec![image.clone()]);
        assert!(
            said_of_token.contains("holds the control token <|vision_start|>"),
            "{said_of_token}"
        );
        // A PNG of 60 bytes that declares 60000 x 60000 pixels; its checksum is right.
        let mut bomb =
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
        bomb.extend(crc32(bomb.get(12..).unwrap()).to_be_bytes());
        bomb.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
        let message = said("<image>", vec![bomb]);
        assert!(
            message.starts_with("image 0: ") && message.contains("60000x60000 pixels is too large"),
            "{message}"
        );
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32, byte: &u8| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
            })
        };
        !bytes.iter().fold(!0, step)
    }

    #[test]
    fn bounds_of_the_area() {
        let images = ImageProcessor::new(models::image::ImageSettings::default());
        let args = |min_pixels, max_pixels| DataArgs {
            min_pixels,
            max_pixels,
            ..DataArgs::default()
        };
        let settings = |args| bounded(&images, &args).unwrap().settings().clone();
        assert_eq!(settings(args(None, None)), *images.settings());
        let changed = settings(args(Some(262_144), Some(4_194_304)));
        assert_eq!(
            (changed.min_pixels, changed.max_pixels),
            (262_144, 4_194_304)
        );
        for bad in [
            args(Some(2_000_000), None),
            args(None, Some(100)),
            args(Some(1), Some(1)),
        ] {
            assert!(
                bounded(&images, &bad)
                    .unwrap_err()
                    .to_string()
                    .contains("--max-pixels must be")
            );
        }
    }
}
