//! The model folder without its weights, in the layout of the hub.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::canvas::SIDE;
use crate::vocabulary::{self, ADDED, added_id};

/// Side of a patch, of a merged token and of an attention window, in pixels.
const PATCH: usize = 14;
const MERGE: usize = 2;
const WINDOW: usize = 56;

/// Writes config.json, generation_config.json, preprocessor_config.json, tokenizer.json, tokenizer_config.json and
/// chat_template.json.
pub(crate) fn write(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let template = chat_template();
    for (name, content) in [
        ("config.json", config()),
        ("generation_config.json", generation_config()),
        ("preprocessor_config.json", preprocessor_config()),
        ("tokenizer.json", vocabulary::tokenizer_json()?),
        ("tokenizer_config.json", tokenizer_config(&template)),
        (
            "chat_template.json",
            json!({"chat_template": template, "prompt_template": "none"}),
        ),
    ] {
        let path = out.join(name);
        let text = serde_json::to_string_pretty(&content)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn config() -> Value {
    json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "attention_dropout": 0.0,
        "bos_token_id": added_id("<|endoftext|>"),
        "eos_token_id": added_id("<|im_end|>"),
        "vision_start_token_id": added_id("<|vision_start|>"),
        "vision_end_token_id": added_id("<|vision_end|>"),
        "vision_token_id": added_id("<|vision_pad|>"),
        "image_token_id": added_id("<|image_pad|>"),
        "video_token_id": added_id("<|video_pad|>"),
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.02,
        "intermediate_size": 384,
        "max_position_embeddings": 4096,
        "max_window_layers": 4,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": false,
        "torch_dtype": "float32",
        "transformers_version": "4.49.0",
        "use_cache": true,
        "use_sliding_window": false,
        "vision_config": {
            "depth": 4,
            "hidden_act": "silu",
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_heads": 4,
            "in_chans": 3,
            "out_hidden_size": 128,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "spatial_patch_size": PATCH,
            "window_size": WINDOW,
            "fullatt_block_indexes": [1, 3],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "vocab_size": vocabulary::SIZE,
    })
}

fn generation_config() -> Value {
    json!({
        "bos_token_id": added_id("<|endoftext|>"),
        "pad_token_id": added_id("<|endoftext|>"),
        "do_sample": true,
        "eos_token_id": [added_id("<|im_end|>"), added_id("<|endoftext|>")],
        "temperature": 1.0,
        "transformers_version": "4.49.0",
    })
}

fn preprocessor_config() -> Value {
    json!({
        "min_pixels": 4 * (PATCH * MERGE) * (PATCH * MERGE),
        "max_pixels": SIDE * SIDE,
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
        "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    })
}

fn tokenizer_config(template: &str) -> Value {
    let decoder: Map<String, Value> = ADDED
        .iter()
        .filter_map(|(content, is_special)| {
            Some((
                added_id(content)?.to_string(),
                vocabulary::added_entry(content, *is_special),
            ))
        })
        .collect();
    let special: Vec<&str> = ADDED
        .iter()
        .skip(1)
        .filter(|(_, is_special)| *is_special)
        .map(|(content, _)| *content)
        .collect();
    json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": special,
        "bos_token": null,
        "chat_template": template,
        "clean_up_tokenization_spaces": false,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": false,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": null,
    })
}

/// Renders what Qwen2.5-VL's template renders: a default system message, every message between its marks, an image or a
/// video as a vision triple, numbered on request.
fn chat_template() -> String {
    [
        "{% set seen = namespace(images=0, videos=0) %}",
        "{% for message in messages %}",
        "{% if loop.first and message['role'] != 'system' %}",
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
        "{% endif %}",
        "<|im_start|>{{ message['role'] }}\n",
        "{% if message['content'] is string %}",
        "{{ message['content'] }}",
        "{% else %}",
        "{% for part in message['content'] %}",
        "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}",
        "{% set seen.images = seen.images + 1 %}",
        "{% if add_vision_id %}Picture {{ seen.images }}: {% endif %}",
        "<|vision_start|><|image_pad|><|vision_end|>",
        "{% elif part['type'] == 'video' or 'video' in part %}",
        "{% set seen.videos = seen.videos + 1 %}",
        "{% if add_vision_id %}Video {{ seen.videos }}: {% endif %}",
        "<|vision_start|><|video_pad|><|vision_end|>",
        "{% elif 'text' in part %}",
        "{{ part['text'] }}",
        "{% endif %}",
        "{% endfor %}",
        "{% endif %}",
        "<|im_end|>\n",
        "{% endfor %}",
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ]
    .concat()
}
