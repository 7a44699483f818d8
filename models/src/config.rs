//! `config.json`, in the flat form of the hub and in the nested one that transformers 5 writes, and the special tokens
//! of `generation_config.json`.

use std::path::Path;

use crate::json::{Object, SMALL_FILE_BYTES};
use crate::{Error, Result};

/// Everything that config.json fixes about a Qwen2.5-VL.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The language model.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// Ids with a meaning.
    pub tokens: SpecialTokens,
    /// Whether the output head is the embedding table, in which case there is no `lm_head.weight`.
    pub tie_word_embeddings: bool,
}

/// The language model.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Width E of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_layers: usize,
    /// Query heads H.
    pub num_heads: usize,
    /// Key and value heads KV; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Head dim D, even.
    pub head_dim: usize,
    /// Rows V of the embedding table; may exceed the tokenizer's size.
    pub vocab_size: usize,
    /// Longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How many of the D/2 rotary frequencies follow time, height and width.
    pub mrope_section: [usize; 3],
}

/// The vision tower.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Head dim, a multiple of 4.
    pub head_dim: usize,
    /// Colour channels, 3.
    pub in_channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Frames per patch; an image is repeated to fill them.
    pub temporal_patch_size: usize,
    /// Side of the square of patches that becomes one token.
    pub spatial_merge_size: usize,
    /// Side of an attention window in pixels.
    pub window_size: usize,
    /// Width of the image embeddings, equal to the text's `hidden_size`.
    pub out_hidden_size: usize,
    /// Blocks that attend over the whole image instead of a window.
    pub full_attention_blocks: Vec<usize>,
    /// Positions per second of video. Images don't use it.
    pub tokens_per_second: f64,
}

/// Token ids with a meaning to the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `<|image_pad|>`: one per image embedding.
    pub image: u32,
    /// `<|video_pad|>`.
    pub video: u32,
    /// `<|vision_start|>`.
    pub vision_start: u32,
    /// `<|vision_end|>`.
    pub vision_end: u32,
    /// `<|vision_pad|>`, where the configuration names one.
    pub vision: Option<u32>,
    /// Ids that end a response, at least one.
    pub eos: Vec<u32>,
    /// Id that fills a batch.
    pub pad: u32,
}

impl SpecialTokens {
    /// Every vision id: never to be sampled, since a response has no image to go with it.
    pub fn banned(&self) -> Vec<u32> {
        let mut ids = vec![self.image, self.video, self.vision_start, self.vision_end];
        ids.extend(self.vision);
        ids
    }
}

// Bounds of what is believed of a file: far above any published model, low enough that no product of them overflows.
const MAX_WIDTH: usize = 1 << 20;
const MAX_VOCAB: usize = 1 << 22;
const MAX_LAYERS: usize = 1 << 10;
const MAX_HEADS: usize = 1 << 12;
const MAX_HEAD_DIM: usize = 1 << 12;
const MAX_POSITIONS: usize = 1 << 30;
/// Base of the vision tower's rotary frequencies.
const VISION_THETA: f64 = 10_000.0;

impl ModelConfig {
    /// Reads `config.json` and, where there is one, `generation_config.json` of a model folder.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let missing = || Error::NotAModel {
            path: dir.to_path_buf(),
            missing: "config.json",
        };
        let top = Object::open(&dir.join("config.json"), SMALL_FILE_BYTES)?.ok_or_else(missing)?;
        let generation = Object::open(&dir.join("generation_config.json"), SMALL_FILE_BYTES)?;

        match top.string_opt("model_type")? {
            Some("qwen2_5_vl") => {}
            Some(other) => {
                return Err(top.problem("model_type", format!("must be qwen2_5_vl, got {other:?}")));
            }
            None => return Err(top.missing("model_type")),
        }
        // The flat form keeps the language model's keys at the top.
        let text_object = top.object("text_config")?.unwrap_or_else(|| top.clone());
        let vision_object = top
            .object("vision_config")?
            .ok_or_else(|| top.missing("vision_config"))?;
        let text = TextConfig::read(&text_object, &top)?;
        let vision = VisionConfig::read(&vision_object, &text)?;
        let tokens = SpecialTokens::read(&top, &text_object, generation.as_ref(), text.vocab_size)?;
        // True in either place will do, as for Hugging Face: older nested files say it of the text alone. Absent means an
        // own head; a checkpoint without one is then refused by name.
        let key = "tie_word_embeddings";
        let (of_model, of_text) = (top.bool_opt(key)?, text_object.bool_opt(key)?);
        let tied = of_model == Some(true) || of_text == Some(true);
        Ok(Self {
            text,
            vision,
            tokens,
            tie_word_embeddings: tied,
        })
    }
}

impl TextConfig {
    fn read(text: &Object, top: &Object) -> Result<Self> {
        require_silu(text)?;
        if text.bool_opt("use_sliding_window")? == Some(true) {
            return Err(text.problem(
                "use_sliding_window",
                "is true, which is not supported: use a model without it",
            ));
        }
        let hidden_size = text.integer("hidden_size", 1..=MAX_WIDTH)?;
        let num_heads = text.integer("num_attention_heads", 1..=MAX_HEADS)?;
        let num_kv_heads = text.integer("num_key_value_heads", 1..=MAX_HEADS)?;
        if !num_heads.is_multiple_of(num_kv_heads) {
            return Err(text.problem(
                "num_key_value_heads",
                format!("must divide num_attention_heads {num_heads}"),
            ));
        }
        let head_dim = match text.integer_opt("head_dim", 2..=MAX_HEAD_DIM)? {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
            None => {
                return Err(text.problem(
                    "hidden_size",
                    format!("must be a multiple of the {num_heads} heads"),
                ));
            }
        };
        if !head_dim.is_multiple_of(2) || head_dim > MAX_HEAD_DIM {
            return Err(text.problem(
                "head_dim",
                format!("must be even and at most {MAX_HEAD_DIM}, got {head_dim}"),
            ));
        }
        let (rope_theta, mrope_section) = read_rope(text, top, head_dim)?;
        Ok(Self {
            hidden_size,
            intermediate_size: text.integer("intermediate_size", 1..=MAX_WIDTH)?,
            num_layers: text.integer("num_hidden_layers", 1..=MAX_LAYERS)?,
            num_heads,
            num_kv_heads,
            head_dim,
            vocab_size: text.integer("vocab_size", 1..=MAX_VOCAB)?,
            max_position_embeddings: text.integer("max_position_embeddings", 1..=MAX_POSITIONS)?,
            rms_norm_eps: positive(text, "rms_norm_eps")?
                .ok_or_else(|| text.missing("rms_norm_eps"))?,
            rope_theta,
            mrope_section,
        })
    }
}

/// Base and sections of M-RoPE: `rope_parameters` (transformers 5) or `rope_scaling` with `rope_theta` beside it.
fn read_rope(text: &Object, top: &Object, head_dim: usize) -> Result<(f64, [usize; 3])> {
    let mut found = None;
    for (owner, key) in [
        (text, "rope_parameters"),
        (text, "rope_scaling"),
        (top, "rope_parameters"),
        (top, "rope_scaling"),
    ] {
        if found.is_none() {
            found = owner.object(key)?;
        }
    }
    let rope = found.ok_or_else(|| text.missing("rope_scaling"))?;
    for key in ["rope_type", "type"] {
        match rope.string_opt(key)? {
            None | Some("default" | "mrope") => {}
            Some(other) => {
                return Err(rope.problem(key, format!("must be default or mrope, got {other:?}")));
            }
        }
    }
    let theta = match (
        positive(&rope, "rope_theta")?,
        positive(text, "rope_theta")?,
    ) {
        (Some(theta), _) | (None, Some(theta)) => theta,
        (None, None) => positive(top, "rope_theta")?.ok_or_else(|| text.missing("rope_theta"))?,
    };
    let section = rope.integers("mrope_section", 0..=MAX_HEAD_DIM, 3)?;
    let problem = || {
        let half = head_dim / 2;
        rope.problem(
            "mrope_section",
            format!("must be 3 numbers of sum {half} (half the head dim), got {section:?}"),
        )
    };
    let section = <[usize; 3]>::try_from(section.as_slice()).map_err(|_| problem())?;
    if section.iter().sum::<usize>() != head_dim / 2 {
        return Err(problem());
    }
    Ok((theta, section))
}

impl VisionConfig {
    fn read(vision: &Object, text: &TextConfig) -> Result<Self> {
        require_silu(vision)?;
        check_vision_rope(vision)?;
        let depth = vision.integer("depth", 1..=MAX_LAYERS)?;
        let hidden_size = vision.integer("hidden_size", 4..=MAX_WIDTH)?;
        let num_heads = vision.integer("num_heads", 1..=MAX_HEADS)?;
        let head_dim = hidden_size / num_heads;
        if head_dim * num_heads != hidden_size
            || !head_dim.is_multiple_of(4)
            || head_dim > MAX_HEAD_DIM
        {
            let problem = format!(
                "{num_heads} must split hidden_size {hidden_size} into heads of a multiple of 4"
            );
            return Err(vision.problem("num_heads", problem));
        }
        // Older files say in_chans; newer ones may carry both.
        let channels_key = if vision.get("in_chans").is_some() {
            "in_chans"
        } else {
            "in_channels"
        };
        let patch_size = vision.integer("patch_size", 1..=256)?;
        let spatial_merge_size = vision.integer("spatial_merge_size", 1..=16)?;
        let token_side = patch_size * spatial_merge_size;
        let window_size = vision.integer("window_size", 1..=MAX_WIDTH)?;
        if window_size < token_side {
            return Err(vision.problem(
                "window_size",
                format!("must be at least {token_side}, the side of one token"),
            ));
        }
        let out_hidden_size = vision.integer("out_hidden_size", 1..=MAX_WIDTH)?;
        if out_hidden_size != text.hidden_size {
            let problem = format!(
                "must equal the text's hidden_size {}, got {out_hidden_size}",
                text.hidden_size
            );
            return Err(vision.problem("out_hidden_size", problem));
        }
        Ok(Self {
            depth,
            hidden_size,
            intermediate_size: vision.integer("intermediate_size", 1..=MAX_WIDTH)?,
            num_heads,
            head_dim,
            in_channels: vision.integer(channels_key, 3..=3)?,
            patch_size,
            temporal_patch_size: vision.integer("temporal_patch_size", 1..=16)?,
            spatial_merge_size,
            window_size,
            out_hidden_size,
            full_attention_blocks: vision.integers(
                "fullatt_block_indexes",
                0..=depth - 1,
                depth,
            )?,
            tokens_per_second: positive(vision, "tokens_per_second")?
                .ok_or_else(|| vision.missing("tokens_per_second"))?,
        })
    }
}

/// Transformers 5 writes down what older files leave out; nothing else is supported.
fn check_vision_rope(vision: &Object) -> Result<()> {
    let Some(rope) = vision.object("rope_parameters")? else {
        return Ok(());
    };
    if let Some(other) = rope
        .string_opt("rope_type")?
        .filter(|&kind| kind != "axial")
    {
        return Err(rope.problem("rope_type", format!("must be axial, got {other:?}")));
    }
    let theta = rope.number_opt("rope_theta")?.unwrap_or(VISION_THETA);
    if theta != VISION_THETA {
        let problem = format!("must be {VISION_THETA}, got {theta}");
        return Err(rope.problem("rope_theta", problem));
    }
    Ok(())
}

impl SpecialTokens {
    fn read(
        top: &Object,
        text: &Object,
        generation: Option<&Object>,
        vocab_size: usize,
    ) -> Result<Self> {
        let range = 0..=vocab_size - 1;
        let optional = |key| -> Result<Option<u32>> {
            let id = match top.integer_opt(key, range.clone())? {
                Some(id) => Some(id),
                None => text.integer_opt(key, range.clone())?,
            };
            Ok(id.and_then(|id| u32::try_from(id).ok()))
        };
        let required = |key| optional(key)?.ok_or_else(|| top.missing(key));

        // What generation_config.json says of the end goes before config.json, as when Hugging Face generates.
        let mut eos = Vec::new();
        for object in generation.into_iter().chain([top, text]) {
            if eos.is_empty() {
                eos = id_or_ids(object, "eos_token_id", vocab_size)?;
            }
        }
        let Some(&last_eos) = eos.last() else {
            return Err(top.missing("eos_token_id"));
        };
        let pad = match generation
            .map(|object| id_or_ids(object, "pad_token_id", vocab_size))
            .transpose()?
        {
            Some(ids) if !ids.is_empty() => ids[0],
            // A pad is masked wherever it stands, so any id will do.
            _ => optional("pad_token_id")?.unwrap_or(last_eos),
        };
        Ok(Self {
            image: required("image_token_id")?,
            video: required("video_token_id")?,
            vision_start: required("vision_start_token_id")?,
            vision_end: required("vision_end_token_id")?,
            vision: optional("vision_token_id")?,
            eos,
            pad,
        })
    }
}

/// Ids under a key that holds one or a list of them; none when it is absent.
fn id_or_ids(object: &Object, key: &str, vocab_size: usize) -> Result<Vec<u32>> {
    let range = 0..=vocab_size - 1;
    let ids = match object.get(key) {
        None => Vec::new(),
        Some(value) if value.is_array() => object.integers(key, range, 64)?,
        Some(_) => object.integer_opt(key, range)?.into_iter().collect(),
    };
    Ok(ids
        .into_iter()
        .filter_map(|id| u32::try_from(id).ok())
        .collect())
}

fn require_silu(object: &Object) -> Result<()> {
    match object.string_opt("hidden_act")? {
        None | Some("silu") => Ok(()),
        Some(other) => Err(object.problem("hidden_act", format!("must be silu, got {other:?}"))),
    }
}

fn positive(object: &Object, key: &str) -> Result<Option<f64>> {
    match object.number_opt(key)? {
        Some(number) if number <= 0.0 => {
            Err(object.problem(key, format!("must be above 0, got {number}")))
        }
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests;
