//! The chat template of a model folder: messages to the text of a prompt.
//!
//! A template is a program from an untrusted file, so it runs with fuel (which bounds time and memory) and a recursion
//! limit, and reaches nothing but the messages.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, context};

use crate::json::{Object, SMALL_FILE_BYTES, read_bounded};
use crate::{Error, Result};

/// Instructions, or 64-byte pieces of data, that one rendering may use: 64 MB at most.
const FUEL: u64 = 1_000_000;
const RECURSION_LIMIT: usize = 100;
/// Longest template; published ones are below 20 KB.
const MAX_TEMPLATE_BYTES: usize = 32 << 10;
/// Stack of the thread that compiles or renders. The template engine bounds the depth of statements but not that of
/// operators, nor of the values that a template nests; this holds more than the deepest that the limits above let through.
/// It is address space: only what is touched becomes memory.
const STACK_BYTES: usize = 256 << 20;
const MAX_TOKENIZER_CONFIG_BYTES: u64 = 32 << 20;
const NAME: &str = "chat_template";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its parts, in order.
    pub content: Vec<Content>,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text.
    Text(String),
    /// The next image of the conversation.
    Image,
}

impl Message {
    /// A message of text alone.
    pub fn text(role: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: vec![Content::Text(text.into())],
        }
    }

    /// Images among the parts.
    pub fn num_images(&self) -> usize {
        self.content
            .iter()
            .filter(|part| **part == Content::Image)
            .count()
    }

    /// A single text is given to the template as a string, anything else as a list of parts, as users of Hugging Face do.
    fn to_value(&self) -> Value {
        let content = match self.content.as_slice() {
            [Content::Text(text)] => Value::from(text.as_str()),
            parts => parts.iter().map(Content::to_value).collect(),
        };
        Value::from_pairs([
            ("role", Value::from(self.role.as_str())),
            ("content", content),
        ])
    }
}

impl Content {
    fn to_value(&self) -> Value {
        match self {
            Self::Text(text) => Value::from_pairs([("type", "text"), ("text", text)]),
            Self::Image => Value::from_pairs([("type", "image")]),
        }
    }
}

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token` and the like, which some templates print.
    special_tokens: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// The template of a model folder: `chat_template.jinja`, else `chat_template.json`, else `tokenizer_config.json`.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let tokenizer_config = Object::open(
            &dir.join("tokenizer_config.json"),
            MAX_TOKENIZER_CONFIG_BYTES,
        )?;
        let jinja = dir.join("chat_template.jinja");
        let source = if let Some(bytes) = read_bounded(&jinja, SMALL_FILE_BYTES)? {
            Some(
                String::from_utf8(bytes)
                    .map_err(|_| Error::ChatTemplate(format!("{}: not UTF-8", jinja.display())))?,
            )
        } else if let Some(object) =
            Object::open(&dir.join("chat_template.json"), SMALL_FILE_BYTES)?
        {
            template_of(&object)?
        } else {
            tokenizer_config
                .as_ref()
                .map(template_of)
                .transpose()?
                .flatten()
        };
        let source = source.ok_or_else(|| Error::NotAModel {
            path: dir.to_path_buf(),
            missing: "chat template",
        })?;

        let mut template = Self::new(source)?;
        if let Some(config) = &tokenizer_config {
            for key in ["bos_token", "eos_token", "pad_token", "unk_token"] {
                template
                    .special_tokens
                    .extend(special_token(config, key).map(|token| (key, token)));
            }
        }
        Ok(template)
    }

    /// Compiles a template with the whitespace rules that Hugging Face uses.
    pub fn new(source: String) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(template_error)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_LIMIT);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        // It escapes for HTML, which Python's does not: better refused than a silently different prompt.
        environment.remove_filter("tojson");
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        if source.len() > MAX_TEMPLATE_BYTES {
            let got = source.len();
            let problem = format!("{got} bytes, more than the {MAX_TEMPLATE_BYTES} allowed");
            return Err(Error::ChatTemplate(problem));
        }
        let environment = on_deep_stack(move || {
            let added = environment.add_template_owned(NAME, source);
            added.map(|()| environment).map_err(template_error)
        })?;
        Ok(Self {
            environment,
            special_tokens: Vec::new(),
        })
    }

    /// The text of a conversation, with an image placeholder per [`Content::Image`]; `add_generation_prompt` opens the
    /// assistant's turn.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(template_error)?;
        let tokens = self
            .special_tokens
            .iter()
            .map(|(key, token)| (*key, token.as_str()));
        let tokens = Value::from_pairs(tokens);
        let messages: Value = messages.iter().map(Message::to_value).collect();
        on_deep_stack(|| {
            let context = context! { messages, add_generation_prompt, tools => (), ..tokens };
            template.render(context).map_err(template_error)
        })
    }
}

/// The `chat_template` of a file: a string, or named templates of which `default` is taken.
fn template_of(object: &Object) -> Result<Option<String>> {
    let Some(serde_json::Value::Array(named)) = object.get("chat_template") else {
        return Ok(object.string_opt("chat_template")?.map(str::to_owned));
    };
    let default = named.iter().find(|entry| entry["name"] == "default");
    match default.and_then(|entry| entry["template"].as_str()) {
        Some(source) => Ok(Some(source.to_owned())),
        None => Err(object.problem("chat_template", "has no template named default")),
    }
}

/// A special token, written as a string or as an object with its `content`.
fn special_token(config: &Object, key: &str) -> Option<String> {
    let value = config.get(key)?;
    value
        .as_str()
        .or_else(|| value.get("content")?.as_str())
        .map(str::to_owned)
}

/// Runs `work` on a thread with a stack that no template overflows.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = thread
            .spawn_scoped(scope, work)
            .map_err(|error| Error::ChatTemplate(error.to_string()))?;
        let panicked = |_| Error::ChatTemplate("the template engine failed on it".into());
        thread.join().map_err(panicked)?
    })
}

fn template_error(error: minijinja::Error) -> Error {
    Error::ChatTemplate(error.to_string().replace('\n', " "))
}

#[cfg(test)]
mod tests;
