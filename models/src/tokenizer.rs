//! `tokenizer.json`: text to token ids and back.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::json::read_bounded;
use crate::{Error, Result};

const FILE: &str = "tokenizer.json";
/// The largest published ones are below 40 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The tokenizer of a model folder.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Ids of the tokens that the file calls special.
    special: BTreeSet<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let bytes = read_bounded(&path, MAX_FILE_BYTES)?.ok_or_else(|| Error::NotAModel {
            path: dir.to_path_buf(),
            missing: FILE,
        })?;
        let mut inner = guarded(&path.display().to_string(), || {
            tokenizers::Tokenizer::from_bytes(&bytes)
        })?;
        // A file may ask for truncation or padding; a prompt is never cut and padding is the engine's business.
        inner
            .with_truncation(None)
            .map_err(|error| Error::Tokenizer(one_line(&error)))?;
        inner.with_padding(None);
        let added = inner.get_added_tokens_decoder().into_iter();
        let special = added.filter(|(_, token)| token.special).map(|(id, _)| id);
        Ok(Self {
            special: special.collect(),
            inner,
        })
    }

    /// Whether a token steers the model instead of being text: `<|im_end|>`, `<|image_pad|>`.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Token ids of a text. Special tokens written out in it (`<|im_start|>`) are recognised, none are added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(guarded("encode", || self.inner.encode_fast(text, false))?
            .get_ids()
            .to_vec())
    }

    /// Text of token ids. Ids of the padded vocabulary that stand for nothing give nothing, bytes that are no UTF-8 give
    /// U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        guarded("decode", || self.inner.decode(ids, skip_special))
    }

    /// Id of a token as it is written in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// One more than the largest id that stands for something. A model's vocabulary may be padded beyond it.
    pub fn num_ids(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// The token of an id as it is written in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

/// Runs a call of the tokenizers crate. Its regular expressions come from the file, and one that runs into the engine's
/// limit of retries is a panic there.
fn guarded<T>(what: &str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::Tokenizer(format!("{what}: {}", one_line(&error)))),
        Err(_) => Err(Error::Tokenizer(format!(
            "{what}: tokenizer.json does not work on this text"
        ))),
    }
}

fn one_line(error: &impl std::fmt::Display) -> String {
    error.to_string().replace('\n', " ")
}
