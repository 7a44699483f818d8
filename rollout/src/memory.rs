//! Whether a run fits into memory, worked out before anything is loaded. For the CPU engine.

// L layers, K kv heads, D head dim, E hidden, V vocab

use std::fmt;

use anyhow::{Result, bail};
use models::config::ModelConfig;
use models::names;
use shared::config::RolloutArgs;
use shared::record::Precision;

use crate::available::Available;
use crate::engine;

const PASS_TOKENS: u64 = to_u64(engine::PASS_TOKENS);
const PASS_LOGITS: u64 = to_u64(engine::PASS_LOGITS);
const FLOAT_BYTES: u64 = 4;

/// What is asked of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Responses decoded side by side.
    pub rows: usize,
    /// Responses per prompt.
    pub group_size: usize,
    /// Longest prompt.
    pub max_prompt_tokens: usize,
    /// Longest response.
    pub max_response_tokens: usize,
    /// Whether the image is blanked and every response scored again.
    pub is_scored: bool,
    /// Whether new weights are made ready while the old ones still decode.
    pub is_updated: bool,
    /// What the decoder's matrices are computed in.
    pub precision: Precision,
}

impl From<&RolloutArgs> for Load {
    /// Of a run.
    fn from(args: &RolloutArgs) -> Self {
        Self {
            rows: args.rows,
            group_size: args.group_size,
            max_prompt_tokens: args.max_prompt_tokens,
            max_response_tokens: args.max_response_tokens,
            is_scored: true,
            is_updated: true,
            precision: args.precision,
        }
    }
}

/// Bytes by what they are for, when every sequence is as long as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The weights file in f32, mapped: the system drops its pages when memory is short and reads them again.
    pub weights_bytes: u64,
    /// ONNX Runtime's copy of the matrices, in the order of its kernels.
    pub packed_bytes: u64,
    /// A second such copy, while new weights are made ready.
    pub next_packed_bytes: u64,
    /// Keys and values of all rows.
    pub cache_bytes: u64,
    /// Activations and logits of the widest pass, and what scoring keeps between passes.
    pub pass_bytes: u64,
    load: Load,
    sizes: Sizes,
}

/// What the plan needs to know of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    weights: u64,
    packed: u64,
    /// Of the packed ones, the decoder's layers.
    decoder: u64,
    /// And the matrix that gives the logits.
    head: u64,
    /// Of one token in the cache: keys and values of all layers.
    cached_token: u64,
    /// Of one token on its way through the widest layer.
    passing_token: u64,
    vocab: u64,
}

/// What a plan comes to on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// With room for the whole weights file.
    Fits,
    /// Without it: loading weights reads them from the disk.
    FitsWithoutFile,
    /// Only while the sequences stay shorter than they may be.
    MayNotFit,
    /// The weights alone are too large.
    DoesNotFit,
}

impl MemoryPlan {
    /// The plan of a model under a load.
    #[must_use]
    pub fn new(config: &ModelConfig, load: Load) -> Self {
        Self::of_sizes(Sizes::new(config), load)
    }

    fn of_sizes(sizes: Sizes, load: Load) -> Self {
        let [rows, group, prompt, response] = [
            load.rows,
            load.group_size,
            load.max_prompt_tokens,
            load.max_response_tokens,
        ]
        .map(to_u64);
        let sequence = sum([prompt, response]);
        // Longer sequences go over several passes; scoring keeps what it has read of a prompt and of a response.
        let (kept, pass_logits) = if load.is_scored {
            let logits = product([group, response, sizes.vocab]);
            let kept = sum([prompt.max(PASS_TOKENS), response.max(PASS_TOKENS)]);
            (
                kept.min(product([group, sequence])),
                logits.min(PASS_LOGITS.max(sizes.vocab)),
            )
        } else {
            (0, sizes.vocab)
        };
        let pass_tokens = product([group.max(rows), sequence]).min(PASS_TOKENS);
        let packed = match load.precision {
            Precision::F32 | Precision::Bf16 => sizes.packed,
            Precision::Int8 => sizes.packed - saved_by_int8(sizes.decoder),
            Precision::Int8Head => sizes.packed - saved_by_int8(sizes.decoder + sizes.head),
        };
        let logits = pass_logits.max(product([rows, sizes.vocab]));
        Self {
            weights_bytes: sizes.weights,
            packed_bytes: packed,
            next_packed_bytes: if load.is_updated { packed } else { 0 },
            cache_bytes: product([rows, sequence, sizes.cached_token]),
            pass_bytes: sum([
                product([kept, sizes.cached_token]),
                product([pass_tokens, sizes.passing_token]),
                product([logits, FLOAT_BYTES]),
            ]),
            load,
            sizes,
        }
    }

    /// All that cannot be dropped and read again.
    #[must_use]
    pub fn needed_bytes(&self) -> u64 {
        sum([self.fixed_bytes(), self.cache_bytes, self.pass_bytes])
    }

    fn fixed_bytes(&self) -> u64 {
        self.packed_bytes + self.next_packed_bytes
    }

    /// What it comes to with so many bytes.
    #[must_use]
    pub fn verdict(&self, available_bytes: u64) -> Verdict {
        if self.fixed_bytes() > available_bytes {
            Verdict::DoesNotFit
        } else if self.needed_bytes() > available_bytes {
            Verdict::MayNotFit
        } else if sum([self.needed_bytes(), self.weights_bytes]) > available_bytes {
            Verdict::FitsWithoutFile
        } else {
            Verdict::Fits
        }
    }

    /// Refuses a plan whose weights alone are too large for the memory that is free now. Responses wait for room in the
    /// cache, so long ones only mean fewer rows at a time: that is said and no more.
    ///
    /// # Errors
    /// One line that says what is needed.
    pub fn check_now(&self) -> Result<()> {
        let Some(available) = Available::now() else {
            return Ok(());
        };
        match self.verdict(available.bytes) {
            Verdict::DoesNotFit => bail!(self.advice(&available)),
            Verdict::MayNotFit | Verdict::FitsWithoutFile => {
                tracing::info!("{}", self.advice(&available));
            }
            Verdict::Fits => {}
        }
        Ok(())
    }

    /// The verdict in one line: what to do when there is something to do.
    #[must_use]
    pub fn advice(&self, available: &Available) -> String {
        let (needed, fixed) = (gib(self.needed_bytes()), gib(self.fixed_bytes()));
        let (has, source) = (gib(available.bytes), available.source);
        match self.verdict(available.bytes) {
            Verdict::Fits => format!("fits: {needed} of {has} available ({source})"),
            Verdict::FitsWithoutFile => format!(
                "fits: {needed} of {has} available ({source}), but the weights file of {} does not stay in memory beside it: loading it reads from the disk",
                gib(self.weights_bytes)
            ),
            Verdict::DoesNotFit => format!(
                "not enough memory: the weights alone need {fixed}, {has} are available ({source}); use a smaller model or more memory"
            ),
            Verdict::MayNotFit => {
                let remedy = match (
                    self.largest_rows(available),
                    self.longest_response(available),
                ) {
                    (Some(rows), Some(tokens)) => {
                        format!("lower --rows to {rows} or --max-response-tokens to {tokens}")
                    }
                    (Some(rows), None) => format!("lower --rows to {rows}"),
                    (None, Some(tokens)) => format!("lower --max-response-tokens to {tokens}"),
                    (None, None) => {
                        "lower --rows, --max-prompt-tokens and --max-response-tokens together"
                            .to_owned()
                    }
                };
                format!(
                    "fits with fewer rows at a time once responses are long: {needed} are needed when every response runs to its limit ({fixed} of it for weights), {has} are available ({source}); to have all rows, {remedy}"
                )
            }
        }
    }

    /// The most rows, at least one, that fit with all else as it is.
    fn largest_rows(&self, available: &Available) -> Option<usize> {
        largest(self.load.rows, |rows| {
            let load = Load { rows, ..self.load };
            Self::of_sizes(self.sizes, load).needed_bytes() <= available.bytes
        })
    }

    /// The longest limit of responses that fits with all else as it is.
    fn longest_response(&self, available: &Available) -> Option<usize> {
        largest(self.load.max_response_tokens, |max_response_tokens| {
            let load = Load {
                max_response_tokens,
                ..self.load
            };
            Self::of_sizes(self.sizes, load).needed_bytes() <= available.bytes
        })
    }
}

impl Sizes {
    fn new(config: &ModelConfig) -> Self {
        let text = &config.text;
        let tensors = names::tensors(config);
        let bytes = |spec: &names::TensorSpec| to_u64(spec.len()) * FLOAT_BYTES;
        // Matrices are multiplied with; the embedding table only where it is the head as well.
        let is_packed = |spec: &&names::TensorSpec| {
            spec.shape.len() > 1 && (config.tie_word_embeddings || spec.name != names::EMBED_TOKENS)
        };
        // In the widest layer: the residual stream and its norm, gate, up and their product.
        let passing = 2 * text.hidden_size + 3 * text.intermediate_size;
        let cached = 2 * text.num_layers * text.num_kv_heads * text.head_dim;
        Self {
            weights: tensors.iter().map(bytes).sum(),
            packed: tensors.iter().filter(is_packed).map(bytes).sum(),
            decoder: tensors
                .iter()
                .filter(is_packed)
                .filter(|spec| spec.name.starts_with("model.layers."))
                .map(bytes)
                .sum(),
            head: to_u64(text.vocab_size * text.hidden_size) * FLOAT_BYTES,
            cached_token: to_u64(cached) * FLOAT_BYTES,
            passing_token: to_u64(passing) * FLOAT_BYTES,
            vocab: to_u64(text.vocab_size),
        }
    }
}

/// The table that a person reads.
impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Load {
            rows,
            max_prompt_tokens: prompt,
            max_response_tokens: response,
            ..
        } = self.load;
        let mut line = |bytes, what: &str| writeln!(f, "{:>14}  {what}", gib(bytes));
        line(self.packed_bytes, "weights as the kernels take them")?;
        if self.next_packed_bytes > 0 {
            line(
                self.next_packed_bytes,
                "the next version of them, while it is made ready",
            )?;
        }
        line(
            self.cache_bytes,
            &format!(
                "keys and values: --rows {rows} x (--max-prompt-tokens {prompt} + --max-response-tokens {response})"
            ),
        )?;
        line(self.pass_bytes, "the widest pass")?;
        line(
            self.needed_bytes(),
            "in all, when every response runs to its limit",
        )?;
        line(
            self.weights_bytes,
            "more for the weights file, which the system may drop and read again",
        )
    }
}

/// What 8 bits leave of f32 matrices is a byte a number.
const fn saved_by_int8(bytes: u64) -> u64 {
    bytes / FLOAT_BYTES * (FLOAT_BYTES - 1)
}

/// The largest number from 1 to `most` that `fits`, which holds up to some number.
fn largest(most: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let (mut low, mut high) = (0, most); // low fits, unless 0
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    (low > 0).then_some(low)
}

/// As people read it: `12.3 GiB`; MiB below one.
#[must_use]
pub fn gib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 {
        format!("{mib:.1} MiB")
    } else {
        format!("{:.1} GiB", mib / 1024.0)
    }
}

/// The options are the user's: no product of them may wrap around.
fn product<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

fn sum<const N: usize>(terms: [u64; N]) -> u64 {
    terms.into_iter().fold(0, u64::saturating_add)
}

/// usize is at most 64 bits wide.
const fn to_u64(n: usize) -> u64 {
    n as u64
}

#[cfg(test)]
mod tests;
