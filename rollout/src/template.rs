//! The user's message around a problem: a minijinja file, or one of two that have names.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use minijinja::{Environment, context};

/// Steps that a template may take: thousands of times what a sensible one needs.
const FUEL: u64 = 100_000;
const MAX_BYTES: u64 = 1 << 20;
const ENTRY: &str = "prompt";

/// The problem as it is.
const NONE: &str = "none";
/// The field's request to think first and then to answer in a box; what is taken when nothing else is said.
const THINK_BOXED: &str = "think-boxed";
const THINK_BOXED_SOURCE: &str = include_str!("../../scripts/think_boxed.jinja");

/// Turns a problem into the user's message. It sees `problem`, the same as `content`, and `num_images`.
#[derive(Debug, Clone)]
pub struct Template {
    name: String,
    /// None for [`NONE`].
    environment: Option<Environment<'static>>,
}

impl Template {
    /// `chosen` is a file, `none` or `think-boxed`; without it, `of_model` is the name that the model folder gives, of these two.
    ///
    /// # Errors
    /// A file that cannot be read or does not parse; a model folder that gives another name.
    pub fn new(chosen: Option<&Path>, of_model: Option<&str>) -> Result<Self> {
        match (chosen, of_model) {
            (Some(path), _) if path.exists() => Self::read(path),
            (Some(path), _) => match path.to_str().and_then(Self::named) {
                Some(template) => template,
                None => bail!(
                    "the prompt template {}: no such file; it may also be {THINK_BOXED} or {NONE}",
                    path.display()
                ),
            },
            (None, Some(name)) => match Self::named(name) {
                Some(template) => template,
                None => bail!(
                    "the model folder's prompt_template is {name:.40?}: expected {THINK_BOXED} or {NONE}; choose one with --prompt-template"
                ),
            },
            (None, None) => Self::compile(THINK_BOXED, THINK_BOXED_SOURCE.to_owned()),
        }
    }

    /// What it is called: a file's path, or a name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The message of a problem.
    ///
    /// # Errors
    /// A template that fails.
    pub fn text(&self, problem: &str, num_images: usize) -> Result<String> {
        match &self.environment {
            None => Ok(problem.to_owned()),
            Some(environment) => environment
                .get_template(ENTRY)?
                .render(context! { problem, content => problem, num_images })
                .context("the prompt template"),
        }
    }

    fn named(name: &str) -> Option<Result<Self>> {
        match name {
            NONE => Some(Ok(Self {
                name: NONE.to_owned(),
                environment: None,
            })),
            THINK_BOXED => Some(Self::compile(THINK_BOXED, THINK_BOXED_SOURCE.to_owned())),
            _ => None,
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let what = || format!("the prompt template {}", path.display());
        let metadata = std::fs::metadata(path).with_context(what)?;
        if !metadata.is_file() || metadata.len() > MAX_BYTES {
            bail!("{}: expected a file of at most {MAX_BYTES} bytes", what());
        }
        let source = std::fs::read_to_string(path).with_context(what)?;
        Self::compile(&path.display().to_string(), source)
    }

    fn compile(name: &str, source: String) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment
            .add_template_owned(ENTRY, source)
            .with_context(|| format!("the prompt template {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            environment: Some(environment),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_asks_for_thoughts_and_a_box() {
        let default = Template::new(None, None).unwrap();
        assert_eq!(default.name(), "think-boxed");
        let text = default.text(" <image>x? ", 1).unwrap();
        assert!(
            text.starts_with("<image>x? You FIRST think") && text.ends_with("put in \\boxed{}."),
            "{text}"
        );
        let of_model = Template::new(None, Some("none")).unwrap();
        assert_eq!(of_model.text(" x ", 0).unwrap(), " x ");
        // What was said on the command line wins.
        let chosen = Template::new(Some(Path::new("think-boxed")), Some("none")).unwrap();
        assert_eq!(chosen.text(" <image>x? ", 1).unwrap(), text);
        let message = Template::new(None, Some("{{ evil }}"))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("expected think-boxed or none"),
            "{message}"
        );
        let message = Template::new(Some(Path::new("/nowhere.jinja")), None)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("no such file; it may also be"),
            "{message}"
        );
    }

    #[test]
    fn a_file_may_use_the_fields_names_and_put_images_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jinja");
        std::fs::write(
            &path,
            "{% for _ in range(num_images) %}<image>{% endfor %}{{ content | trim }} Box it.",
        )
        .unwrap();
        let template = Template::new(Some(&path), None).unwrap();
        assert_eq!(template.text("x ", 2).unwrap(), "<image><image>x Box it.");
        std::fs::write(
            &path,
            "{% for _ in range(9999999) %}{% for _ in range(9999999) %}.{% endfor %}{% endfor %}",
        )
        .unwrap();
        assert!(
            Template::new(Some(&path), None)
                .unwrap()
                .text("x", 0)
                .is_err(),
            "ends by its fuel"
        );
        std::fs::write(&path, "{{ problem").unwrap();
        assert!(Template::new(Some(&path), None).is_err());
    }
}
