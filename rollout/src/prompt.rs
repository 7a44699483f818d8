//! Sample -> prompt: the user's message, the image, and the same prompt with the image blanked.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use minijinja::{Environment, context};
use models::chat::{Content, Message};
use models::processor::{Blank, Processor, Prompt};
use shared::dataset::{Part, Sample, content_parts};

use crate::engine::PromptInputs;

/// Steps that a prompt template may take: thousands of times what a sensible one needs.
const TEMPLATE_FUEL: u64 = 100_000;

const TEMPLATE_NAME: &str = "prompt";

/// Builds prompts; the same for every sample of a run.
#[derive(Debug, Clone)]
pub struct PromptBuilder {
    processor: Arc<Processor>,
    template: Option<Environment<'static>>,
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
    /// `template` is a minijinja file that sees `problem`; without one the problem is the message.
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
        let template = template.map(read_template).transpose()?;
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

    /// The prompt of a sample. Nothing is ever cut.
    ///
    /// # Errors
    /// An image that does not decode, marks that do not match the images, or a prompt that is too long: a reason to skip the sample.
    pub fn build(&self, sample: &Sample) -> Result<BuiltPrompt> {
        let text = self.text(&sample.problem)?;
        let messages = [user_message(content_parts(&text, sample.images.len())?)];
        let mut decoded = Vec::with_capacity(sample.images.len());
        for (index, bytes) in sample.images.iter().enumerate() {
            decoded.push(
                self.processor
                    .images
                    .decode(bytes)
                    .with_context(|| format!("image {index}"))?,
            );
        }
        let prompt = self.processor.prompt(&messages, &decoded)?;
        if prompt.token_ids.is_empty() {
            bail!("the prompt is empty");
        }
        prompt.check_length(self.max_prompt_tokens, &self.processor.config)?;
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

    fn text(&self, problem: &str) -> Result<String> {
        match &self.template {
            None => Ok(problem.to_owned()),
            Some(environment) => {
                let template = environment.get_template(TEMPLATE_NAME)?;
                template
                    .render(context! { problem })
                    .context("the prompt template")
            }
        }
    }
}

fn read_template(path: &Path) -> Result<Environment<'static>> {
    let source = std::fs::read_to_string(path)
        .with_context(|| format!("the prompt template {}", path.display()))?;
    let mut environment = Environment::new();
    environment.set_fuel(Some(TEMPLATE_FUEL));
    environment
        .add_template_owned(TEMPLATE_NAME, source)
        .with_context(|| format!("the prompt template {}", path.display()))?;
    Ok(environment)
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
             <|im_start|>user\n<|vision_start|>IMAGE<|vision_end|>How long is AB?\n\n\
             First think it through inside <think> </think>, as an inner monologue. \
             Then give the final answer in \\boxed{}.<|im_end|>\n\
             <|im_start|>assistant\n"
        );
    }
}
