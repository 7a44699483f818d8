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
const MAX_TEMPLATE_BYTES: usize = 64 << 10;
/// Stack of the thread that compiles or renders. The template engine bounds the depth of statements but not that of
/// operators, nor of the values that a template nests; this holds the deepest that the two limits above let through.
/// It is address space: only what is touched becomes memory.
const STACK_BYTES: usize = 512 << 20;
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
mod tests {
    use super::*;

    fn render(template: &str) -> Result<String> {
        ChatTemplate::new(template.to_owned())?.render(&[Message::text("user", "hello")], true)
    }

    fn refused(template: &str) -> String {
        let error = render(template).unwrap_err().to_string();
        assert!(!error.contains('\n') && error.len() < 1000, "{error}");
        error
    }

    #[test]
    fn whitespace_is_that_of_hugging_face() {
        let template = "{% for m in messages %}\n    {% if true %}\n{{ m.role }}\n    {% endif %}\n{% endfor %}\n";
        assert_eq!(render(template).unwrap(), "user\n");
        assert_eq!(render("a\n").unwrap(), "a");
    }

    #[test]
    fn python_methods_work() {
        assert_eq!(
            render("{{ messages[0].content.upper().split('L')[0] }}").unwrap(),
            "HE"
        );
        assert_eq!(
            render("{{ messages[0].get('name', 'none') }}").unwrap(),
            "none"
        );
        assert_eq!(
            render("{% if tools %}a{% else %}b{% endif %}").unwrap(),
            "b"
        );
    }

    #[test]
    fn a_part_is_recognised_by_its_type() {
        let template = "{% for p in messages[0].content %}{% if p['type'] == 'image' %}[I]{% elif 'text' in p %}{{ p.text }}{% endif %}{% endfor %}";
        let content = vec![
            Content::Text("a".into()),
            Content::Image,
            Content::Text("b".into()),
        ];
        let message = Message {
            role: "user".into(),
            content,
        };
        let text = ChatTemplate::new(template.to_owned())
            .unwrap()
            .render(&[message], true)
            .unwrap();
        assert_eq!(text, "a[I]b");
    }

    #[test]
    fn attack_endless_loop() {
        let error = refused(
            "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a * b %}{% endfor %}{% endfor %}",
        );
        assert!(error.contains("fuel"), "{error}");
    }

    #[test]
    fn attack_memory() {
        refused("{{ 'a' * 999999999999 }}");
        refused(
            "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        );
        refused("{% set s = 'a' * 1000000 %}{{ s.replace('a', s) }}");
        refused("{% set s = 'a' * 1000000 %}{{ s.join(s) }}");
        refused("{{ '%999999999d' % 1 }}{{ '{:>9999999999}'.format(1) }}");
        refused("{{ range(99999999999) }}");
    }

    #[test]
    fn attack_recursion() {
        refused("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}");
        refused("{% include 'chat_template' %}");
        refused("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}");
    }

    /// Whether or not it is refused, it must come back.
    #[test]
    fn attack_depth() {
        for (open, middle, close) in [
            ("(", "1", ")"),
            ("[", "1", "]"),
            ("{'a':", "1", "}"),
            ("-", "1", ""),
            ("not ", "1", ""),
            ("", "1", "+1"),
            ("", "1", "**1"),
            ("", "1", "~1"),
            ("", "x", ".a"),
            ("", "x", "[0]"),
            ("", "x", "|d"),
            ("", "x", "()"),
            ("", "1", " if 1 else 1"),
            ("", "1", " and 1"),
            ("", "1", " is d"),
        ] {
            let times = (MAX_TEMPLATE_BYTES - 10) / (open.len() + close.len());
            let (open, close) = (open.repeat(times), close.repeat(times));
            let _ = render(&format!("{{{{ {open}{middle}{close} }}}}"));
        }
        for block in [
            "{% if 1 %}",
            "{% for x in x %}",
            "{% macro x() %}",
            "{% set x %}",
            "{% filter d %}",
        ] {
            refused(&block.repeat(MAX_TEMPLATE_BYTES / block.len()));
        }
        let _ = render(&format!(
            "{{% if 0 %}}{}{{% endif %}}",
            "{% elif 0 %}".repeat(5000)
        ));
        let message = refused(&"{% if true %}".repeat(10_000));
        assert!(message.contains("more than"), "{message}");
    }

    #[test]
    fn attack_nested_values() {
        for end in [
            "",
            "{{ ns.x }}",
            "{{ ns.x == ns.x }}",
            "{{ [ns.x, ns.x] | sort }}",
            "{{ ns.x | string | length }}",
        ] {
            for nest in [
                "[ns.x]",
                "{'a': ns.x}",
                "ns.x | map('upper')",
                "ns.x | batch(1)",
                "[ns.x] + [1]",
            ] {
                let _ = render(&format!(
                    "{{% set ns = namespace(x=[]) %}}{{% for i in range(99999) %}}{{% set ns.x = {nest} %}}{{% endfor %}}{end}"
                ));
                let _ = render(&format!(
                    "{{% set ns = namespace(x=[]) %}}{{% for i in range(20000) %}}{{% set ns.x = {nest} %}}{{% endfor %}}{end}"
                ));
            }
        }
    }

    #[test]
    fn attack_reading_files() {
        refused("{% include '/etc/passwd' %}");
        refused("{% import '/etc/passwd' as p %}");
    }

    #[test]
    fn what_the_template_refuses_is_told() {
        assert!(refused("{{ raise_exception('only user turns') }}").contains("only user turns"));
        refused("{{ messages | tojson }}");
        refused("{% endfor %}");
    }

    #[test]
    fn the_first_file_wins() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let text = || ChatTemplate::from_dir(dir.path())?.render(&[], false);
        assert!(text().unwrap_err().to_string().contains("no chat template"));
        write(
            "tokenizer_config.json",
            r#"{"chat_template": [{"name": "rag", "template": "r"}]}"#,
        );
        assert!(text().unwrap_err().to_string().contains("default"));
        write(
            "tokenizer_config.json",
            r#"{"eos_token": {"content": "<e>"}, "chat_template": [{"name": "default", "template": "t{{ eos_token }}"}]}"#,
        );
        assert_eq!(text().unwrap(), "t<e>");
        write(
            "chat_template.json",
            r#"{"chat_template": "j{{ eos_token }}"}"#,
        );
        assert_eq!(text().unwrap(), "j<e>");
        write("chat_template.jinja", "f{{ bos_token }}");
        assert_eq!(text().unwrap(), "f");
    }
}
