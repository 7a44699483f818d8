use super::*;

const GIB: u64 = 1 << 30;

/// Qwen2.5-VL-3B-Instruct: 3,754,622,976 parameters.
fn config_3b() -> ModelConfig {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "qwen2_5_vl", "vision_start_token_id": 151652, "vision_end_token_id": 151653,
        "vision_token_id": 151654, "image_token_id": 151655, "video_token_id": 151656, "eos_token_id": 151645,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 11008, "max_position_embeddings": 128000,
        "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "tie_word_embeddings": true, "vocab_size": 151936,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": {"depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420,
            "num_heads": 16, "in_chans": 3, "out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2,
            "spatial_patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2, "temporal_patch_size": 2}}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    ModelConfig::from_dir(folder.path()).unwrap()
}

fn run() -> Load {
    Load {
        rows: 64,
        group_size: 8,
        max_prompt_tokens: 2048,
        max_response_tokens: 2048,
        is_scored: true,
        is_updated: true,
        precision: Precision::F32,
    }
}

fn has(bytes: u64) -> Available {
    Available {
        bytes,
        source: "MemAvailable",
    }
}

#[test]
fn a_3b_model_in_numbers() {
    let plan = MemoryPlan::new(&config_3b(), run());
    assert_eq!(plan.weights_bytes, 4 * 3_754_622_976);
    // All but norms and biases: 0.03 % of the weights.
    assert!(plan.packed_bytes < plan.weights_bytes);
    assert!(plan.packed_bytes > plan.weights_bytes / 10_000 * 9_990);
    assert_eq!(plan.next_packed_bytes, plan.packed_bytes);
    // Keys and values of 36 layers with 2 heads of 128, f32, for 64 x 4096 tokens.
    assert_eq!(plan.cache_bytes, 64 * 4096 * 2 * 36 * 2 * 128 * 4);
    // A prompt and a response kept by scoring; a pass of 512 tokens with 2 E + 3 MLP floats each; 256 MiB of logits.
    let (kept, token) = (2 * 36 * 2 * 128 * 4, (2 * 2048 + 3 * 11_008) * 4);
    assert_eq!(plan.pass_bytes, 4096 * kept + 512 * token + (1 << 28));
    let unscored = MemoryPlan::new(
        &config_3b(),
        Load {
            is_scored: false,
            is_updated: false,
            ..run()
        },
    );
    assert_eq!(unscored.next_packed_bytes, 0);
    assert_eq!(unscored.pass_bytes, 512 * token + 64 * 151_936 * 4);
}

#[test]
fn an_untied_table_is_looked_up_and_not_packed() {
    let mut config = config_3b();
    let tied = MemoryPlan::new(&config, run());
    config.tie_word_embeddings = false;
    let untied = MemoryPlan::new(&config, run());
    assert_eq!(untied.packed_bytes, tied.packed_bytes); // the head instead of the table
    assert_eq!(
        untied.weights_bytes,
        tied.weights_bytes + 4 * 151_936 * 2048
    );
}

#[test]
fn the_verdict_follows_the_memory() {
    let plan = MemoryPlan::new(&config_3b(), run());
    let (weights, needed) = (2 * plan.packed_bytes, plan.needed_bytes());
    for (bytes, expected) in [
        (weights - 1, Verdict::DoesNotFit),
        (weights, Verdict::MayNotFit),
        (needed - 1, Verdict::MayNotFit),
        (needed, Verdict::FitsWithoutFile),
        (needed + plan.weights_bytes - 1, Verdict::FitsWithoutFile),
        (needed + plan.weights_bytes, Verdict::Fits),
    ] {
        assert_eq!(plan.verdict(bytes), expected, "{bytes}");
    }
}

#[test]
fn the_advice_is_one_line_and_works() {
    let (config, available) = (config_3b(), has(40 * GIB));
    let line = MemoryPlan::new(&config, run()).advice(&available);
    assert!(
        !line.contains('\n') && line.contains(": 46.6 GiB are needed"),
        "{line}"
    );
    let number = |flag: &str| -> usize {
        let rest = &line[line.find(flag).unwrap() + flag.len()..];
        let digits: String = rest
            .trim_start_matches(" to ")
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().unwrap()
    };
    let rows = number("--rows");
    let fits = |load| MemoryPlan::new(&config, load).verdict(available.bytes) != Verdict::MayNotFit;
    assert!(fits(Load { rows, ..run() }));
    assert!(!fits(Load {
        rows: rows + 1,
        ..run()
    }));
    let max_response_tokens = number("--max-response-tokens");
    assert!(fits(Load {
        max_response_tokens,
        ..run()
    }));
    assert!(!fits(Load {
        max_response_tokens: max_response_tokens + 1,
        ..run()
    }));
}

#[test]
fn what_no_option_mends_is_said_so() {
    let plan = MemoryPlan::new(&config_3b(), run());
    let line = plan.advice(&has(8 * GIB));
    assert!(
        line.contains("the weights alone need 28.0 GiB") && !line.contains("--rows"),
        "{line}"
    );
}

#[test]
fn options_without_bound_do_not_wrap_around() {
    let most = u32::MAX as usize;
    let load = Load {
        rows: most,
        group_size: most,
        max_prompt_tokens: most,
        max_response_tokens: most,
        ..run()
    };
    let plan = MemoryPlan::new(&config_3b(), load);
    assert_eq!(plan.cache_bytes, u64::MAX);
    assert_eq!(plan.verdict(1 << 50), Verdict::MayNotFit);
}

#[test]
fn the_table_names_the_options() {
    let table = MemoryPlan::new(&config_3b(), run()).to_string();
    assert!(
        table.contains("18.0 GiB  keys and values: --rows 64 x (--max-prompt-tokens 2048 + --max-response-tokens 2048)"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 6, "{table}");
}

#[test]
fn int8_needs_a_quarter_of_the_decoder() {
    let load = Load {
        precision: Precision::Int8,
        ..run()
    };
    let (whole, rounded) = (
        MemoryPlan::new(&config_3b(), run()),
        MemoryPlan::new(&config_3b(), load),
    );
    // q, k, v, o, gate, up and down of 36 layers, 3 bytes less each.
    let layer = 2048 * (2048 + 512) + 2048 * 2048 + 3 * 2048 * 11_008;
    assert_eq!(whole.packed_bytes - rounded.packed_bytes, 3 * 36 * layer);
    let load = Load {
        precision: Precision::Int8Head,
        ..run()
    };
    let with_head = MemoryPlan::new(&config_3b(), load);
    let head = rounded.packed_bytes - with_head.packed_bytes;
    assert_eq!(head, 3 * 151_936 * 2048);
}
