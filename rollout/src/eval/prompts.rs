//! Question -> prompt: as in training, or as the evaluation code of the field's papers (NoisyRollout's) asks.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use models::chat::{Content, Message};
use models::image::{RgbImage, bicubic};
use models::processor::Processor;
use serde::{Deserialize, Serialize};
use shared::dataset::{Part, Sample, content_parts};

use crate::engine::PromptInputs;
use crate::prompt::{PromptBuilder, decode};

/// What that code says to the model.
const SYSTEM: &str = "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. \
    The reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \\boxed{}.";
/// Its bounds on an image's area, in pixels.
const PAPER_MAX_PIXELS: u64 = 1_000_000;
const PAPER_MIN_PIXELS: u64 = 262_144;

/// How the questions are put.
#[derive(ValueEnum, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// By the prompt template, as in training
    Model,
    /// The papers' system prompt; the question as it is; their image rule
    Paper,
    /// The same text before the question in the user's turn (the papers' 32B)
    PaperUser,
}

/// How large images are before the model's own rule.
#[derive(ValueEnum, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ImageRule {
    /// As they are
    Model,
    /// Shrunk to 1,000,000 pixels, then enlarged to 262,144 (bicubic)
    Paper,
}

/// A prompt for the engine and its text.
pub(super) struct Built {
    pub(super) inputs: PromptInputs,
    pub(super) text: String,
}

/// Builds the prompts of an evaluation.
pub(super) struct Prompts {
    builder: PromptBuilder,
    protocol: Protocol,
    rule: ImageRule,
}

impl Prompts {
    pub(super) fn new(
        processor: Arc<Processor>,
        template: Option<&Path>,
        max_prompt_tokens: usize,
        protocol: Protocol,
        rule: ImageRule,
    ) -> Result<Self> {
        Ok(Self {
            builder: PromptBuilder::new(processor, template, None, max_prompt_tokens)?,
            protocol,
            rule,
        })
    }

    /// What the questions are put by.
    pub(super) fn template(&self) -> &str {
        match self.protocol {
            Protocol::Model => self.builder.template().name(),
            Protocol::Paper | Protocol::PaperUser => "none",
        }
    }

    pub(super) fn processor(&self) -> &Processor {
        self.builder.processor()
    }

    pub(super) fn build(&self, sample: &Sample) -> Result<Built> {
        let processor = self.processor();
        let messages = match self.protocol {
            Protocol::Model => self.builder.messages(sample)?,
            Protocol::Paper => vec![Message::text("system", SYSTEM), user("", sample)?],
            Protocol::PaperUser => vec![user(&format!("{SYSTEM} "), sample)?],
        };
        let mut images = decode(&processor.images, sample)?;
        if self.rule == ImageRule::Paper {
            for image in &mut images {
                *image = resized(image)?;
            }
        }
        let prompt = processor.prompt(&messages, &images)?;
        self.builder.check(&prompt)?;
        Ok(Built {
            inputs: PromptInputs::new(processor, &prompt)?,
            text: prompt.text,
        })
    }
}

/// The user's turn: the question, with `before` behind the images at its head.
fn user(before: &str, sample: &Sample) -> Result<Message> {
    let mut content = Vec::new();
    let mut is_said = before.is_empty();
    for part in content_parts(&sample.problem, sample.images.len())? {
        match part {
            Part::Image => content.push(Content::Image),
            Part::Text(text) if is_said => content.push(Content::Text(text)),
            Part::Text(text) => {
                content.push(Content::Text(format!("{before}{text}")));
                is_said = true;
            }
        }
    }
    Ok(Message {
        role: "user".to_owned(),
        content,
    })
}

fn resized(image: &RgbImage) -> Result<RgbImage> {
    let mut image = image.clone();
    for is_shrunk in [true, false] {
        if let Some((width, height)) = bounded(image.width, image.height, is_shrunk) {
            image = bicubic::resize(&image, width, height)?;
        }
    }
    Ok(image)
}

/// The sides at the area's bound, cut to whole pixels; none when it is within.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "sides of decoded images, scaled to at most a million pixels"
)]
fn bounded(width: u32, height: u32, is_shrunk: bool) -> Option<(u32, u32)> {
    let area = u64::from(width) * u64::from(height);
    let bound = match is_shrunk {
        true if area > PAPER_MAX_PIXELS => PAPER_MAX_PIXELS,
        false if area < PAPER_MIN_PIXELS => PAPER_MIN_PIXELS,
        _ => return None,
    };
    let factor = (bound as f64 / area as f64).sqrt();
    let side = |side: u32| ((f64::from(side) * factor) as u32).max(1);
    Some((side(width), side(height)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Python: f = math.sqrt(1000000 / (2000 * 1500)); int(2000 * f), int(1500 * f) -> 1154, 866
    /// f = math.sqrt(262144 / (100 * 50)); int(100 * f), int(50 * f) -> 724, 362
    #[test]
    fn sides_are_cut_as_python_cuts_them() {
        assert_eq!(bounded(2000, 1500, true), Some((1154, 866)));
        assert_eq!(bounded(100, 50, false), Some((724, 362)));
        assert_eq!(bounded(1000, 1000, true), None);
        assert_eq!(bounded(512, 512, false), None);
        assert_eq!(bounded(4_000_000, 1, true), Some((2_000_000, 1)));
    }

    #[test]
    fn the_papers_prompt_word_for_word() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let processor =
            Arc::new(Processor::from_dir(&repository.join("models/geo-mini/model")).unwrap());
        let image = repository.join("tests/data/qwen2_5_vl/images/triangle.png");
        let sample = Sample {
            id: "a".to_owned(),
            problem: "<image>How long is AB?".to_owned(),
            images: vec![std::fs::read(image).unwrap()],
            answer: "3".to_owned(),
            solution: None,
        };
        let text = |protocol| {
            let prompts = Prompts::new(
                Arc::clone(&processor),
                None,
                8192,
                protocol,
                ImageRule::Paper,
            );
            prompts.unwrap().build(&sample).unwrap().text
        };
        let mark = "<|vision_start|><|image_pad|><|vision_end|>";
        assert_eq!(
            text(Protocol::Paper),
            format!(
                "<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{mark}How long is AB?<|im_end|>\n<|im_start|>assistant\n"
            )
        );
        assert!(text(Protocol::PaperUser).contains(&format!("{mark}{SYSTEM} How long is AB?")));
    }
}
