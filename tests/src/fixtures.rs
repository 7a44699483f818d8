//! Folders of reference values: the one of `PARITY_FIXTURES`, or those in `tests/data`. Nothing of a set's dims is
//! assumed; the README of `tests/data/qwen2_5_vl` says what each value is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use models::chat::{Content, Message};
use models::image::Grid;
use serde_json::Value;

use crate::tensors::Tensors;

/// The sets that lie in `tests/data`; the first is the one with every kind of value.
const SHIPPED: [&str; 2] = ["qwen2_5_vl", "qwen2_5_vl_nested"];
/// How much further from the reference than its own f32 noise another f32 implementation may be.
const NOISE_FACTOR: f64 = 10.0;

/// A fixture folder.
#[derive(Debug, Clone)]
pub struct Fixtures {
    dir: PathBuf,
    meta: Value,
}

/// One conversation of `prompts.json`.
#[derive(Debug, Clone)]
pub struct PromptCase {
    /// Its number; tensors are named `p{index}.*`.
    pub index: usize,
    /// A word for messages.
    pub name: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Names of its images, in order, for [`Fixtures::image`].
    pub images: Vec<String>,
    /// Their patch grids.
    pub grids: Vec<Grid>,
    /// The rendered conversation.
    pub chat_text: String,
    /// Token ids with one placeholder per image.
    pub unexpanded_ids: Vec<u32>,
    /// Token ids of the prompt.
    pub input_ids: Vec<u32>,
    /// Token ids by blank form (`empty`, `drop`, `black`).
    pub blank_ids: BTreeMap<String, Vec<u32>>,
    /// Token ids of each response.
    pub responses: Vec<Vec<u32>>,
}

/// A text, its ids, and what they decode to.
#[derive(Debug, Clone)]
pub struct TokenizerCase {
    /// Text before.
    pub text: String,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Text after.
    pub decoded: String,
}

impl Fixtures {
    /// Opens the folder of `PARITY_FIXTURES`, or the first of the shipped ones.
    pub fn open() -> Result<Self> {
        Self::open_dir(chosen().unwrap_or_else(|| shipped(SHIPPED[0])))
    }

    /// Runs a test on the set of `PARITY_FIXTURES`, or on each of the shipped ones; says which before it starts.
    #[allow(
        clippy::print_stdout,
        reason = "shown with a failing test, to tell which set it was"
    )]
    pub fn each(test: impl Fn(Self)) -> Result<()> {
        let dirs = match chosen() {
            Some(dir) => vec![dir],
            None => SHIPPED.map(shipped).to_vec(),
        };
        for dir in dirs {
            println!("fixtures: {}", dir.display());
            test(Self::open_dir(dir)?);
        }
        Ok(())
    }

    fn open_dir(dir: PathBuf) -> Result<Self> {
        let meta = read_json(&dir.join("meta.json"))?;
        Ok(Self { dir, meta })
    }

    /// The absolute tolerance of a quantity: `usual`, or what the set's own noise asks for where that is more: ten times
    /// the largest difference between the reference's f32 and f64 runs in the `keys` of `tolerances_fp32_vs_fp64`.
    pub fn tolerance(&self, usual: f64, keys: &[&str]) -> f64 {
        let noise = |key: &&str| self.meta["tolerances_fp32_vs_fp64"][*key].as_f64();
        let largest = keys.iter().filter_map(noise).fold(0.0, f64::max);
        usual.max(NOISE_FACTOR * largest)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The model folder of the set.
    pub fn model(&self) -> PathBuf {
        self.path("model")
    }

    /// `{stem}.safetensors`.
    pub fn tensors(&self, stem: &str) -> Result<Tensors> {
        Tensors::open(&self.path(&format!("{stem}.safetensors")))
    }

    /// `{stem}.json`.
    pub fn json(&self, stem: &str) -> Result<Value> {
        read_json(&self.path(&format!("{stem}.json")))
    }

    /// Names of the images, sorted.
    pub fn image_names(&self) -> Result<Vec<String>> {
        let images = self.meta["images"]
            .as_object()
            .context("meta.json: `images`")?;
        let mut names: Vec<String> = images.keys().cloned().collect();
        names.sort();
        Ok(names)
    }

    /// The file bytes of an image.
    pub fn image(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.meta["images"][name]["file"]
            .as_str()
            .with_context(|| format!("meta.json: image `{name}`"))?;
        let path = self.path("images").join(file);
        std::fs::read(&path).with_context(|| path.display().to_string())
    }

    /// The conversations.
    pub fn prompts(&self) -> Result<Vec<PromptCase>> {
        let json = self.json("prompts")?;
        let prompts = json["prompts"]
            .as_array()
            .context("prompts.json: `prompts`")?;
        prompts
            .iter()
            .enumerate()
            .map(|(number, prompt)| {
                parse_prompt(prompt).with_context(|| format!("prompts.json: prompt {number}"))
            })
            .collect()
    }

    /// Texts for the tokenizer alone.
    pub fn tokenizer_cases(&self) -> Result<Vec<TokenizerCase>> {
        let json = self.json("prompts")?;
        let cases = json["tokenizer_cases"]
            .as_array()
            .context("prompts.json: `tokenizer_cases`")?;
        cases
            .iter()
            .map(|case| {
                Ok(TokenizerCase {
                    text: string(&case["text"])?,
                    ids: ids(&case["ids"])?,
                    decoded: string(&case["decoded"])?,
                })
            })
            .collect()
    }
}

/// The folder that the user asks for.
fn chosen() -> Option<PathBuf> {
    std::env::var_os("PARITY_FIXTURES").map(PathBuf::from)
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(name)
}

fn parse_prompt(prompt: &Value) -> Result<PromptCase> {
    let list = |key: &str| prompt[key].as_array().with_context(|| format!("`{key}`"));
    let blank_ids = prompt["blank_ids"].as_object().context("`blank_ids`")?;
    Ok(PromptCase {
        index: usize::try_from(prompt["index"].as_u64().context("`index`")?)?,
        name: string(&prompt["name"])?,
        messages: list("messages")?
            .iter()
            .map(parse_message)
            .collect::<Result<_>>()?,
        images: list("images")?.iter().map(string).collect::<Result<_>>()?,
        grids: list("image_grid_thw")?
            .iter()
            .map(parse_grid)
            .collect::<Result<_>>()?,
        chat_text: string(&prompt["chat_text"])?,
        unexpanded_ids: ids(&prompt["unexpanded_ids"])?,
        input_ids: ids(&prompt["input_ids"])?,
        blank_ids: blank_ids
            .iter()
            .map(|(form, list)| Ok((form.clone(), ids(list)?)))
            .collect::<Result<_>>()?,
        responses: list("responses")?
            .iter()
            .map(|response| ids(&response["ids"]))
            .collect::<Result<_>>()?,
    })
}

fn parse_message(message: &Value) -> Result<Message> {
    let content = match &message["content"] {
        Value::String(text) => vec![Content::Text(text.clone())],
        Value::Array(parts) => parts.iter().map(parse_part).collect::<Result<_>>()?,
        other => bail!("content {other}"),
    };
    Ok(Message {
        role: string(&message["role"])?,
        content,
    })
}

fn parse_part(part: &Value) -> Result<Content> {
    match part["type"].as_str() {
        Some("image") => Ok(Content::Image),
        Some("text") => Ok(Content::Text(string(&part["text"])?)),
        _ => bail!("part {part}"),
    }
}

fn parse_grid(grid: &Value) -> Result<Grid> {
    let side =
        |axis: usize| usize::try_from(grid[axis].as_u64().context("a grid")?).context("a grid");
    Ok(Grid {
        t: side(0)?,
        h: side(1)?,
        w: side(2)?,
    })
}

fn string(value: &Value) -> Result<String> {
    Ok(value
        .as_str()
        .with_context(|| format!("not a string: {value}"))?
        .to_owned())
}

fn ids(value: &Value) -> Result<Vec<u32>> {
    let list = value
        .as_array()
        .with_context(|| format!("not a list of ids: {value}"))?;
    list.iter()
        .map(|id| Ok(u32::try_from(id.as_u64().context("not an id")?)?))
        .collect()
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&bytes).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_widens_a_tolerance_and_never_narrows_it() {
        let fixtures = Fixtures::open_dir(shipped(SHIPPED[0])).unwrap();
        let noise = fixtures.meta["tolerances_fp32_vs_fp64"]["logits"]
            .as_f64()
            .unwrap();
        assert_eq!(fixtures.tolerance(1.0, &["logits"]), 1.0);
        assert_eq!(fixtures.tolerance(0.0, &["none", "logits"]), 10.0 * noise);
        assert_eq!(fixtures.tolerance(0.5, &["none"]), 0.5);
    }
}
