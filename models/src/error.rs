//! What can be wrong with a model folder, a prompt or an image: one line each, naming the file, what was expected and
//! what was got.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that fails in this crate, by cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path is not a model folder, or a file of it is missing.
    #[error("no {missing} in {}: give a Hugging Face Qwen2.5-VL folder (config.json, model.safetensors, tokenizer.json, ...)", path.display())]
    NotAModel {
        /// The folder that was looked into.
        path: PathBuf,
        /// The file that is not there.
        missing: &'static str,
    },
    /// A file is larger than anything of its kind could be.
    #[error("{}: {got_bytes} bytes, more than the {max_bytes} that such a file may have", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        got_bytes: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// A JSON file does not parse.
    #[error("{}: not valid JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A key of a configuration file is missing or holds something this program does not support.
    #[error("{}: `{key}` {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, dotted from the top of the file.
        key: String,
        /// What is wrong with it, and what was expected.
        problem: String,
    },
    /// A checkpoint file is damaged or not a safetensors file.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The checkpoint lacks a tensor that the configuration calls for.
    #[error("tensor `{name}` is missing in {}: expected shape {expected:?}; use a complete checkpoint that belongs to this config.json", path.display())]
    MissingTensor {
        /// Published name.
        name: String,
        /// The shape that config.json implies; empty when only the name was asked for.
        expected: Vec<usize>,
        /// Checkpoint folder or file.
        path: PathBuf,
    },
    /// A tensor has another shape than the configuration calls for.
    #[error("tensor `{name}` in {} has the wrong shape: expected {expected:?}, got {got:?}; use the config.json that belongs to this checkpoint", path.display())]
    WrongShape {
        /// Published name.
        name: String,
        /// The shape that config.json implies.
        expected: Vec<usize>,
        /// The shape in the file.
        got: Vec<usize>,
        /// Checkpoint folder or file.
        path: PathBuf,
    },
    /// A tensor is stored in a type that is not read.
    #[error("tensor `{name}` in {} is stored as {got}: expected f32, f16 or bf16; use a checkpoint that is not quantised", path.display())]
    WrongDtype {
        /// Published name.
        name: String,
        /// The type in the file.
        got: String,
        /// Checkpoint folder or file.
        path: PathBuf,
    },
    /// The tokenizer file is unusable, or a text or an id is not for it.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template is unusable or refused the messages.
    #[error("chat template: {0}")]
    ChatTemplate(String),
    /// An image cannot be used; the sample is to be skipped.
    #[error("image: {0}")]
    Image(String),
    /// A prompt and its images do not fit each other, or its text holds a control token.
    #[error("prompt: {0}")]
    Prompt(String),
    /// A prompt is longer than the limit. It is never cut: a cut image span would be another prompt.
    #[error(
        "prompt of {got} tokens ({image_tokens} of them for images), more than the {max} allowed: raise the limit or use smaller images"
    )]
    PromptTooLong {
        /// Tokens of the prompt, image tokens included.
        got: usize,
        /// Image tokens among them.
        image_tokens: usize,
        /// The limit.
        max: usize,
    },
    /// The ONNX graph cannot be written for this configuration.
    #[error("graph: {0}")]
    Graph(String),
}

impl Error {
    /// An [`Error::Io`] of `path`; for `map_err`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
