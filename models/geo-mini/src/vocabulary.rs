//! The tokenizer: byte-level BPE in the form of Qwen2's tokenizer.json, its merges learnt from the generated text.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use crate::family::Family;

/// Entries of the vocabulary, special tokens included.
pub(crate) const SIZE: usize = 384;
/// Qwen2's added tokens in their published order; they close the vocabulary. The flag says whether decoding may skip one.
pub(crate) const ADDED: [(&str, bool); 22] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<|object_ref_start|>", true),
    ("<|object_ref_end|>", true),
    ("<|box_start|>", true),
    ("<|box_end|>", true),
    ("<|quad_start|>", true),
    ("<|quad_end|>", true),
    ("<|vision_start|>", true),
    ("<|vision_end|>", true),
    ("<|vision_pad|>", true),
    ("<|image_pad|>", true),
    ("<|video_pad|>", true),
    ("<tool_call>", false),
    ("</tool_call>", false),
    ("<|fim_prefix|>", false),
    ("<|fim_middle|>", false),
    ("<|fim_suffix|>", false),
    ("<|fim_pad|>", false),
    ("<|repo_name|>", false),
    ("<|file_sep|>", false),
];
/// What the chat template puts around every question.
const CHAT: &str = "system\nYou are a helpful assistant.\nuser\nassistant\n";
/// Qwen2's split into words: every digit stands alone.
const WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How many texts of each family the merges are learnt from.
const TEXTS_PER_FAMILY: usize = 100;

/// Id of an added token.
pub(crate) fn added_id(content: &str) -> Option<usize> {
    let index = ADDED.iter().position(|(name, _)| *name == content)?;
    Some(SIZE - ADDED.len() + index)
}

/// The content of tokenizer.json.
pub(crate) fn tokenizer_json() -> Result<Value> {
    let split = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": false},
        byte_level(false, false),
    ]});
    let num_merges = SIZE - ADDED.len() - 256;
    let merges = learn_merges(words(&split)?, num_merges);
    ensure!(
        merges.len() == num_merges,
        "the text gives only {} merges, {num_merges} are needed",
        merges.len()
    );
    let tokens = byte_symbols()
        .into_iter()
        .map(String::from)
        .chain(merges.iter().map(|(left, right)| format!("{left}{right}")));
    let vocabulary: serde_json::Map<String, Value> = tokens
        .zip(0..)
        .map(|(token, id): (_, u32)| (token, id.into()))
        .collect();
    ensure!(
        vocabulary.len() == SIZE - ADDED.len(),
        "two merges make the same token"
    );
    let added: Vec<Value> = ADDED
        .iter()
        .map(|(content, is_special)| {
            let mut entry = json!({"id": added_id(content)});
            merge_into(&mut entry, added_entry(content, *is_special));
            entry
        })
        .collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": split,
        "post_processor": byte_level(false, false),
        "decoder": byte_level(false, false),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocabulary,
            "merges": merges.iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>(),
        },
    }))
}

/// An added token as tokenizer_config.json describes it.
pub(crate) fn added_entry(content: &str, is_special: bool) -> Value {
    json!({
        "content": content,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": is_special,
    })
}

fn merge_into(target: &mut Value, source: Value) {
    if let (Some(target), Value::Object(source)) = (target.as_object_mut(), source) {
        target.extend(source);
    }
}

fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": false, "use_regex": use_regex})
}

/// The 256 characters that stand for bytes, in the order of their code points.
fn byte_symbols() -> Vec<char> {
    let is_printable = |byte: &u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let shown = (0..256u32).filter(is_printable);
    let num_hidden = (0..256u32).filter(|byte| !is_printable(byte)).count();
    shown
        .chain((256..).take(num_hidden))
        .filter_map(char::from_u32)
        .collect()
}

/// The words of the generated text as byte symbols, each with how often it occurs.
fn words(split: &Value) -> Result<Vec<(Vec<String>, usize)>> {
    let splitter: PreTokenizerWrapper = serde_json::from_value(split.clone())?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for family in Family::ALL {
        for values in family.combinations().iter().cycle().take(TEXTS_PER_FAMILY) {
            let texts = [
                CHAT,
                family.question(),
                "\n",
                &family.right(values).solution(),
            ]
            .map(str::to_owned);
            for text in texts {
                let mut pieces = PreTokenizedString::from(text);
                splitter
                    .pre_tokenize(&mut pieces)
                    .map_err(|cause| anyhow!("{cause}"))?;
                for (word, ..) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte)
                {
                    *counts.entry(word.to_owned()).or_default() += 1;
                }
            }
        }
    }
    Ok(counts
        .into_iter()
        .map(|(word, count)| (word.chars().map(String::from).collect(), count))
        .collect())
}

/// Byte-pair encoding: joins the commonest pair of neighbours, again and again; ties go to the first in order.
fn learn_merges(mut words: Vec<(Vec<String>, usize)>, num_merges: usize) -> Vec<(String, String)> {
    let mut merges = Vec::new();
    while merges.len() < num_merges {
        let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (symbols, count) in &words {
            for pair in symbols.windows(2) {
                *pairs.entry((&pair[0], &pair[1])).or_default() += count;
            }
        }
        let Some(most) = pairs.values().max().copied() else {
            break;
        };
        let Some((left, right)) = pairs.into_iter().find_map(|((left, right), count)| {
            (count == most).then(|| (left.to_owned(), right.to_owned()))
        }) else {
            break;
        };
        for (symbols, _) in &mut words {
            join(symbols, &left, &right);
        }
        merges.push((left, right));
    }
    merges
}

fn join(symbols: &mut Vec<String>, left: &str, right: &str) {
    let mut at = 0;
    while at + 1 < symbols.len() {
        if symbols[at] == left && symbols[at + 1] == right {
            let tail = symbols.remove(at + 1);
            symbols[at].push_str(&tail);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back_and_digits_stand_alone() {
        let json = tokenizer_json().unwrap();
        assert_eq!(json, tokenizer_json().unwrap());
        let tokenizer: tokenizers::Tokenizer = serde_json::from_value(json).unwrap();
        assert_eq!(tokenizer.get_vocab_size(true), SIZE);
        let text = "Find the area of the square.<|im_end|>\n<think> 12*12=144 </think> \\boxed{\\sqrt{144}} é°";
        let encoded = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(encoded.get_ids(), false).unwrap(), text);
        assert!(encoded.get_ids().contains(&362u32.saturating_add(2)));
        let digits = encoded
            .get_tokens()
            .iter()
            .filter(|token| token.chars().any(|at| at.is_ascii_digit()));
        assert!(digits.clone().count() == 10 && digits.clone().all(|token| token.len() == 1));
    }

    #[test]
    fn prompts_are_short() {
        let tokenizer: tokenizers::Tokenizer =
            serde_json::from_value(tokenizer_json().unwrap()).unwrap();
        let length = |text: String| tokenizer.encode(text, false).unwrap().len();
        for family in Family::ALL {
            let prompt = format!(
                "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>{}\
                 <|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n",
                "<|image_pad|>".repeat(16),
                family.question()
            );
            let prompt = length(prompt);
            let longest = family
                .combinations()
                .iter()
                .map(|values| length(family.right(values).solution()))
                .max();
            println!("{family:?}: prompt {prompt}, response at most {longest:?} tokens");
            assert!((30..=50).contains(&prompt), "{family:?}: {prompt}");
            assert!(longest.unwrap() <= 60);
        }
    }
}
