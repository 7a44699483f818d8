//! Sample -> prompt: the user's message, the image, and the same prompt with the image blanked.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use minijinja::{Environment, context};
use models::chat::{Content, Message};
use models::processor::{Blank, Processor, Prompt};
use shared::dataset::Sample;

use crate::engine::PromptInputs;

/// Stands for an image in a sample's text.
const IMAGE_MARK: &str = "<image>";

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
        Ok(Self { processor, template, blank, max_prompt_tokens })
    }

    /// The prompt of a sample. Nothing is ever cut.
    ///
    /// # Errors
    /// An image that does not decode, marks that do not match the images, or a prompt that is too long: a reason to skip the sample.
    pub fn build(&self, sample: &Sample) -> Result<BuiltPrompt> {
        let text = self.text(&sample.problem)?;
        let messages = [user_message(&text)];
        let num_marks = messages[0].num_images();
        if num_marks != sample.images.len() {
            bail!("{num_marks} {IMAGE_MARK} marks in the problem, {} images", sample.images.len());
        }
        let mut decoded = Vec::with_capacity(sample.images.len());
        for (index, bytes) in sample.images.iter().enumerate() {
            decoded.push(self.processor.images.decode(bytes).with_context(|| format!("image {index}"))?);
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
        Ok(BuiltPrompt { inputs: PromptInputs::new(&self.processor, &prompt)?, prompt, blank_inputs })
    }

    fn text(&self, problem: &str) -> Result<String> {
        match &self.template {
            None => Ok(problem.to_owned()),
            Some(environment) => {
                let template = environment.get_template(TEMPLATE_NAME)?;
                template.render(context! { problem }).context("the prompt template")
            }
        }
    }
}

fn read_template(path: &Path) -> Result<Environment<'static>> {
    let source = std::fs::read_to_string(path).with_context(|| format!("the prompt template {}", path.display()))?;
    let mut environment = Environment::new();
    environment.set_fuel(Some(TEMPLATE_FUEL));
    environment
        .add_template_owned(TEMPLATE_NAME, source)
        .with_context(|| format!("the prompt template {}", path.display()))?;
    Ok(environment)
}

/// One user turn; each mark becomes an image.
fn user_message(text: &str) -> Message {
    let mut content = Vec::new();
    for (index, part) in text.split(IMAGE_MARK).enumerate() {
        if index > 0 {
            content.push(Content::Image);
        }
        if !part.is_empty() {
            content.push(Content::Text(part.to_owned()));
        }
    }
    Message { role: "user".to_owned(), content }
}

#[cfg(test)]
mod tests {
    use models::chat::Content;

    use super::user_message;

    #[test]
    fn marks_become_images_where_they_stand() {
        let text = |text: &str| Content::Text(text.to_owned());
        assert_eq!(user_message("<image>Find x.").content, [Content::Image, text("Find x.")]);
        assert_eq!(user_message("A <image> and <image>").content, [
            text("A "),
            Content::Image,
            text(" and "),
            Content::Image
        ]);
        assert_eq!(user_message("2 + 2?").content, [text("2 + 2?")]);
    }
}
