use serde_json::{Value, json};

use super::*;
use crate::checkpoint::F32Layout;
use crate::names;

/// The form of the hub.
fn flat() -> Value {
    json!({
        "model_type": "qwen2_5_vl", "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 100,
        "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 320,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}, "tie_word_embeddings": true,
        "eos_token_id": 302, "image_token_id": 310, "video_token_id": 311, "vision_start_token_id": 312,
        "vision_end_token_id": 313, "vision_token_id": 314,
        "vision_config": {
            "depth": 2, "hidden_act": "silu", "hidden_size": 16, "intermediate_size": 40, "num_heads": 2, "in_chans": 3,
            "out_hidden_size": 48, "patch_size": 14, "spatial_merge_size": 2, "window_size": 112,
            "fullatt_block_indexes": [1], "tokens_per_second": 2, "temporal_patch_size": 2
        }
    })
}

/// The same as transformers 5 writes it.
fn nested() -> Value {
    let mut text = flat();
    let mut top = json!({"model_type": "qwen2_5_vl", "tie_word_embeddings": true});
    for key in [
        "image_token_id",
        "video_token_id",
        "vision_start_token_id",
        "vision_end_token_id",
        "vision_config",
    ] {
        top[key] = text[key].take();
    }
    top["vision_config"]["in_channels"] = json!(3);
    top["vision_config"]["rope_parameters"] = json!({"rope_theta": 10_000.0, "rope_type": "axial"});
    text["model_type"] = json!("qwen2_5_vl_text");
    text["rope_scaling"].take();
    text["rope_theta"].take();
    text["tie_word_embeddings"].take();
    text["rope_parameters"] =
        json!({"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]});
    top["text_config"] = text;
    top
}

fn read(config: &Value, generation: Option<Value>) -> Result<ModelConfig> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    if let Some(generation) = generation {
        std::fs::write(
            dir.path().join("generation_config.json"),
            generation.to_string(),
        )
        .unwrap();
    }
    ModelConfig::from_dir(dir.path())
}

#[test]
fn both_forms_say_the_same() {
    let config = read(&flat(), None).unwrap();
    assert_eq!(config, read(&nested(), None).unwrap());
    assert_eq!((config.text.head_dim, config.vision.head_dim), (8, 8));
    assert_eq!(config.text.mrope_section, [2, 1, 1]);
    assert_eq!(
        (config.text.rope_theta, config.vision.tokens_per_second),
        (1e6, 2.0)
    );
    assert!(config.tie_word_embeddings);
    assert_eq!(config.tokens.banned(), [310, 311, 312, 313, 314]);
}

#[test]
fn ends_of_a_response() {
    let tokens = |generation| read(&flat(), generation).unwrap().tokens;
    assert_eq!((tokens(None).eos, tokens(None).pad), (vec![302], 302));
    let list = tokens(Some(
        json!({"eos_token_id": [302, 300], "pad_token_id": 300}),
    ));
    assert_eq!((list.eos, list.pad), (vec![302, 300], 300));
    assert_eq!(tokens(Some(json!({"eos_token_id": 301}))).eos, [301]);
    let mut without = flat();
    without["eos_token_id"].take();
    assert!(
        read(&without, None)
            .unwrap_err()
            .to_string()
            .contains("`eos_token_id` is missing")
    );
}

#[test]
fn an_untied_head_is_the_default() {
    let mut config = flat();
    config["tie_word_embeddings"].take();
    let config = read(&config, None).unwrap();
    assert!(!config.tie_word_embeddings);
    assert!(
        names::tensors(&config)
            .iter()
            .any(|spec| spec.name == names::LM_HEAD)
    );
}

#[test]
fn a_head_is_tied_where_either_place_says_so() {
    let mut config = nested();
    config["tie_word_embeddings"] = json!(false);
    assert!(!read(&config, None).unwrap().tie_word_embeddings);
    config["text_config"]["tie_word_embeddings"] = json!(true);
    assert!(read(&config, None).unwrap().tie_word_embeddings);
    config["tie_word_embeddings"].take();
    assert!(read(&config, None).unwrap().tie_word_embeddings);
}

#[test]
fn another_rotation_of_patches_is_refused() {
    for (key, value) in [
        ("rope_theta", json!(5000.0)),
        ("rope_type", json!("default")),
    ] {
        let mut config = nested();
        config["vision_config"]["rope_parameters"][key] = value;
        let message = read(&config, None).unwrap_err().to_string();
        let expected = format!("vision_config.rope_parameters.{key}");
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (pointer, value, expected) in [
        ("/hidden_size", json!(null), "`hidden_size` is missing"),
        (
            "/hidden_size",
            json!("64"),
            "`hidden_size` must be a whole number",
        ),
        (
            "/hidden_size",
            json!(-64),
            "`hidden_size` must be a whole number",
        ),
        (
            "/hidden_size",
            json!(1u64 << 60),
            "`hidden_size` must be a whole number from 1 to",
        ),
        (
            "/hidden_act",
            json!("gelu"),
            "`hidden_act` must be silu, got \"gelu\"",
        ),
        (
            "/model_type",
            json!("llama"),
            "`model_type` must be qwen2_5_vl, got \"llama\"",
        ),
        ("/num_key_value_heads", json!(4), "must divide"),
        ("/num_key_value_heads", json!(0), "`num_key_value_heads`"),
        ("/rope_theta", json!(0), "`rope_theta` must be above 0"),
        (
            "/rope_scaling/type",
            json!("yarn"),
            "`rope_scaling.type` must be default or mrope",
        ),
        (
            "/rope_scaling/mrope_section",
            json!([2, 2, 2]),
            "`rope_scaling.mrope_section`",
        ),
        (
            "/rope_scaling/mrope_section",
            json!([4]),
            "`rope_scaling.mrope_section`",
        ),
        ("/use_sliding_window", json!(true), "`use_sliding_window`"),
        ("/image_token_id", json!(320), "`image_token_id`"),
        ("/vision_config", json!(null), "`vision_config` is missing"),
        (
            "/vision_config",
            json!(7),
            "`vision_config` must be an object",
        ),
        (
            "/vision_config/out_hidden_size",
            json!(32),
            "`vision_config.out_hidden_size` must equal",
        ),
        (
            "/vision_config/window_size",
            json!(14),
            "`vision_config.window_size`",
        ),
        (
            "/vision_config/num_heads",
            json!(8),
            "`vision_config.num_heads`",
        ),
        (
            "/vision_config/patch_size",
            json!(0),
            "`vision_config.patch_size`",
        ),
        (
            "/vision_config/fullatt_block_indexes",
            json!([2]),
            "`vision_config.fullatt_block_indexes`",
        ),
    ] {
        let mut config = flat();
        match config.pointer_mut(pointer) {
            Some(slot) => *slot = value,
            None => config[&pointer[1..]] = value,
        }
        let error = read(&config, None).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("config.json"),
            "{pointer}: {error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn damaged_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let message = |text: &str| {
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        ModelConfig::from_dir(dir.path()).unwrap_err().to_string()
    };
    assert!(message("{").contains("not valid JSON"));
    assert!(message("[]").contains("no JSON object"));
    assert!(message(&"[".repeat(1 << 20)).contains("not valid JSON"));
    assert!(message(&" ".repeat(5 << 20)).contains("more than"));
}

#[test]
fn the_largest_believed_sizes_do_not_overflow() {
    let mut config = read(&flat(), None).unwrap();
    let text = &mut config.text;
    (text.hidden_size, text.intermediate_size, text.vocab_size) = (MAX_WIDTH, MAX_WIDTH, MAX_VOCAB);
    (
        text.num_heads,
        text.num_kv_heads,
        text.head_dim,
        text.num_layers,
    ) = (MAX_HEADS, MAX_HEADS, MAX_HEAD_DIM, MAX_LAYERS);
    let vision = &mut config.vision;
    (
        vision.hidden_size,
        vision.intermediate_size,
        vision.out_hidden_size,
    ) = (MAX_WIDTH, MAX_WIDTH, MAX_WIDTH);
    (
        vision.depth,
        vision.patch_size,
        vision.temporal_patch_size,
        vision.spatial_merge_size,
    ) = (MAX_LAYERS, 256, 16, 16);
    config.tie_word_embeddings = false;
    // Arithmetic is checked in tests: this would panic.
    assert!(F32Layout::new(&names::tensors(&config)).total_bytes > 1 << 50);
}
