use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};

use super::*;
use crate::names::TensorSpec;

/// A file of the given header and so many bytes of data.
fn file(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [
        &(header.len() as u64).to_le_bytes(),
        header.as_bytes(),
        data,
    ]
    .concat()
}

fn entry(dtype: &str, shape: &[u64], begin: u64, end: u64) -> Value {
    json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]})
}

fn open(bytes: &[u8]) -> Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    Checkpoint::open(folder.path())
}

/// The one line that a damaged file gives.
fn refused(bytes: &[u8]) -> String {
    let error = open(bytes).unwrap_err().to_string();
    assert!(
        error.contains("model.safetensors") && !error.contains('\n') && error.len() < 600,
        "{error}"
    );
    error
}

fn good() -> Vec<u8> {
    file(
        &json!({"a": entry("F32", &[2, 1], 0, 8), "b": entry("BF16", &[1], 8, 10)}),
        &[0; 10],
    )
}

#[test]
fn attack_truncated_anywhere() {
    let good = good();
    assert!(open(&good).is_ok());
    for length in 0..good.len() {
        let message = refused(&good[..length]);
        assert!(message.contains("truncated"), "{length}: {message}");
    }
    assert!(refused(&[good, vec![0]].concat()).contains("damaged"));
}

#[test]
fn attack_header_length() {
    for length in [u64::MAX, 1 << 62, (MAX_HEADER_BYTES + 1) as u64] {
        assert!(
            refused(&[&length.to_le_bytes()[..], &[b' '; 64]].concat())
                .contains("not a safetensors file")
        );
    }
    assert!(refused(&file(&json!([1, 2]), &[])).contains("not a valid safetensors header"));
    assert!(
        refused(b"<html><body>404: not found</body></html>").contains("not a safetensors file")
    );
    let deep = "[".repeat(1 << 20);
    refused(&[&(deep.len() as u64).to_le_bytes(), deep.as_bytes()].concat());
}

#[test]
fn attack_offsets() {
    for (name, header) in [
        ("beyond the end", json!({"a": entry("F32", &[4], 0, 16)})),
        ("backwards", json!({"a": entry("F32", &[2], 8, 0)})),
        (
            "overlap",
            json!({"a": entry("F32", &[2], 0, 8), "b": entry("F32", &[2], 0, 8)}),
        ),
        ("hole", json!({"a": entry("F32", &[1], 4, 8)})),
        (
            "shape and size differ",
            json!({"a": entry("F32", &[3], 0, 8)}),
        ),
        (
            "shape overflows",
            json!({"a": entry("F32", &[1 << 40, 1 << 40], 0, 8)}),
        ),
        (
            "negative",
            json!({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}),
        ),
        ("no such type", json!({"a": entry("X9", &[2], 0, 8)})),
    ] {
        assert!(!refused(&file(&header, &[0; 8])).is_empty(), "{name}");
    }
}

/// Sizes that are consistent among themselves and wrap around 2^64 to the size of the file.
#[test]
fn attack_sizes_that_wrap_around() {
    let piece = 1u64 << 60;
    for surplus in 0..400u64 {
        let mut header = json!({});
        for part in 0..15 {
            header[format!("t{part:02}")] =
                entry("F4", &[piece * 2], part * piece, (part + 1) * piece);
        }
        let end = u64::MAX - surplus;
        header["u"] = entry("U8", &[end - 15 * piece], 15 * piece, end);
        refused(&file(&header, &[0; 8]));
    }
}

#[test]
fn floats_widen_exactly_at_any_alignment() {
    let values = [0.0f32, -1.5, 0.333_251_95, 65_504.0, f32::INFINITY];
    let f16 = values
        .map(|value| half::f16::from_f32(value).to_le_bytes())
        .concat();
    let bf16 = values
        .map(|value| half::bf16::from_f32(value).to_le_bytes())
        .concat();
    let f32 = values.map(f32::to_le_bytes).concat();
    let header = json!({
        "pad": entry("U8", &[1], 0, 1),
        "a": entry("F16", &[5], 1, 11),
        "b": entry("BF16", &[5], 11, 21),
        "c": entry("F32", &[1, 5], 21, 41),
    });
    let checkpoint = open(&file(&header, &[vec![0], f16, bf16, f32].concat())).unwrap();
    assert_eq!(checkpoint.read_f32("a").unwrap(), values);
    assert_eq!(checkpoint.read_f32("c").unwrap(), values);
    assert_eq!(checkpoint.shape("c").unwrap(), [1, 5]);
    let rounded = values.map(|value| half::bf16::from_f32(value).to_f32());
    let mut out = [0.0; 5];
    checkpoint.read_f32_into("b", &mut out).unwrap();
    assert_eq!(out, rounded);

    let message = checkpoint
        .read_f32_into("b", &mut [0.0; 4])
        .unwrap_err()
        .to_string();
    assert!(message.contains("expected [4], got [5]"), "{message}");
    let message = checkpoint.read_f32("pad").unwrap_err().to_string();
    assert!(
        message.contains("`pad`") && message.contains("stored as u8"),
        "{message}"
    );
    let message = checkpoint.read_f32("d").unwrap_err().to_string();
    assert!(message.contains("`d` is missing"), "{message}");
}

#[test]
fn names_of_transformers_5_are_translated() {
    let header = json!({
        "model.language_model.norm.weight": entry("F32", &[1], 0, 4),
        "model.visual.merger.ln_q.weight": entry("F32", &[1], 4, 8),
        "lm_head.weight": entry("F32", &[1], 8, 12),
    });
    let checkpoint = open(&file(&header, &[0; 12])).unwrap();
    let names: Vec<&str> = checkpoint.names().collect();
    assert_eq!(
        names,
        [
            "lm_head.weight",
            "model.norm.weight",
            "visual.merger.ln_q.weight"
        ]
    );

    let twice = json!({
        "model.norm.weight": entry("F32", &[1], 0, 4),
        "model.language_model.norm.weight": entry("F32", &[1], 4, 8),
    });
    assert!(refused(&file(&twice, &[0; 8])).contains("`model.norm.weight` is there twice"));
}

/// A folder `snapshots/r` of a hub cache with an index that places tensor `a` in `shard`.
fn indexed(shard: &str) -> (tempfile::TempDir, PathBuf) {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("snapshots/r");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::create_dir(cache.path().join("blobs")).unwrap();
    let index = json!({"metadata": {}, "weight_map": {"a": shard}});
    std::fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    (cache, folder)
}

#[test]
fn shards_and_the_links_of_a_hub_cache_are_read() {
    let (cache, folder) = indexed("m-1.safetensors");
    std::fs::write(cache.path().join("blobs/abc"), good()).unwrap();
    symlink("../../blobs/abc", folder.join("m-1.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    // `b` is in the shard, but the index does not count it in.
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a"]);
    assert_eq!(checkpoint.read_f32("a").unwrap(), [0.0, 0.0]);

    std::fs::remove_file(folder.join("m-1.safetensors")).unwrap();
    std::fs::write(folder.join("m-1.safetensors"), file(&json!({}), &[])).unwrap();
    let message = Checkpoint::open(&folder).unwrap_err().to_string();
    assert!(message.contains("`a` is not in this file"), "{message}");
}

#[test]
fn attack_index_leads_outside() {
    for shard in [
        "../x.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/../x",
        "sub/x.safetensors",
        "./x",
        "x/",
    ] {
        let (cache, folder) = indexed(shard);
        std::fs::write(cache.path().join("snapshots/x.safetensors"), good()).unwrap();
        let message = Checkpoint::open(&folder).unwrap_err().to_string();
        assert!(
            message.contains("must lie beside its index"),
            "{shard:?}: {message}"
        );
    }
    let (cache, folder) = indexed("m.safetensors");
    for target in ["../../secret", "../other/x", "../../blobs/link"] {
        let _ = std::fs::remove_file(folder.join("m.safetensors"));
        std::fs::create_dir_all(cache.path().join("snapshots/other")).unwrap();
        std::fs::write(cache.path().join("secret"), good()).unwrap();
        std::fs::write(cache.path().join("snapshots/other/x"), good()).unwrap();
        let _ = symlink("../secret", cache.path().join("blobs/link"));
        symlink(target, folder.join("m.safetensors")).unwrap();
        let message = Checkpoint::open(&folder).unwrap_err().to_string();
        assert!(
            message.contains("outside its folder"),
            "{target}: {message}"
        );
    }
}

#[test]
fn attack_index_without_sense() {
    let (_cache, folder) = indexed("m.safetensors");
    assert!(
        Checkpoint::open(&folder)
            .unwrap_err()
            .to_string()
            .contains("which is missing")
    );
    for index in [
        json!({}),
        json!({"weight_map": []}),
        json!({"weight_map": {"a": 1}}),
        json!([]),
    ] {
        std::fs::write(
            folder.join("model.safetensors.index.json"),
            index.to_string(),
        )
        .unwrap();
        let message = Checkpoint::open(&folder).unwrap_err().to_string();
        assert!(message.contains("index.json"), "{message}");
    }
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        Checkpoint::open(folder.path())
            .unwrap_err()
            .to_string()
            .contains("no model.safetensors in")
    );
    assert!(
        Checkpoint::open(Path::new("/nowhere"))
            .unwrap_err()
            .to_string()
            .contains("/nowhere")
    );
    std::fs::create_dir(folder.path().join("model.safetensors")).unwrap();
    assert!(
        Checkpoint::open(folder.path())
            .unwrap_err()
            .to_string()
            .contains("not a regular file")
    );
    // Opening a device like this one would succeed and never end.
    assert!(
        Checkpoint::open(Path::new("/dev/zero"))
            .unwrap_err()
            .to_string()
            .contains("not a regular file")
    );
}

/// The fixtures' model, whose configuration the next tests need.
fn model() -> (PathBuf, ModelConfig) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/qwen2_5_vl/model");
    let config = ModelConfig::from_dir(&dir).unwrap();
    (dir, config)
}

#[test]
fn a_checkpoint_of_another_model_is_told_by_tensor() {
    let (dir, config) = model();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let mut wider = config.clone();
    wider.text.intermediate_size += 1;
    let message = checkpoint.check(&wider).unwrap_err().to_string();
    let (hidden, mlp) = (config.text.hidden_size, config.text.intermediate_size);
    let shapes = format!("expected [{}, {hidden}], got [{mlp}, {hidden}]", mlp + 1);
    assert!(
        message.contains("mlp.gate_proj.weight") && message.contains(&shapes),
        "{message}"
    );

    let mut deeper = config;
    deeper.text.num_layers += 1;
    let message = checkpoint.check(&deeper).unwrap_err().to_string();
    assert!(
        message.contains("is missing") && message.contains("model.layers."),
        "{message}"
    );
}

#[test]
fn a_written_file_is_private_and_whole_or_not_there() {
    let (dir, mut config) = model();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    write_f32(&path, &checkpoint, &config).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    Checkpoint::open(&path).unwrap().check(&config).unwrap();

    std::fs::remove_file(&path).unwrap();
    config.text.num_layers += 1;
    assert!(write_f32(&path, &checkpoint, &config).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_layout_is_aligned_and_without_gaps() {
    let specs: Vec<TensorSpec> = names::tensors(&model().1)
        .into_iter()
        .filter(|spec| spec.name.contains("layers.0."))
        .collect();
    let layout = F32Layout::new(&specs);
    assert_eq!(layout.header.len() % 64, 0);
    let mut end = layout.header.len();
    for (spec, offset) in &layout.tensors {
        assert_eq!((*offset, layout.offset(&spec.name)), (end, Some(end)));
        end += spec.len() * 4;
    }
    assert_eq!((layout.total_bytes, layout.offset("x")), (end, None));
    // What is multiplied with one input is one piece.
    let offset = |tensor: &str| layout.offset(&names::text_layer(0, tensor)).unwrap();
    let shape = |tensor: &str| {
        layout
            .tensors
            .iter()
            .find(|(spec, _)| spec.name.ends_with(tensor))
            .unwrap()
            .0
            .len()
    };
    assert_eq!(
        offset("self_attn.q_proj.weight") + 4 * shape("q_proj.weight"),
        offset("self_attn.k_proj.weight")
    );
    assert_eq!(
        offset("mlp.gate_proj.weight") + 4 * shape("gate_proj.weight"),
        offset("mlp.up_proj.weight")
    );
}

#[test]
fn who_watches_a_write_hears_of_every_byte_and_may_end_it() {
    let (dir, config) = model();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut heard = Vec::new();
    let mut listen = |bytes| {
        heard.push(bytes);
        Ok(())
    };
    write_f32_watched(&path, &checkpoint, &config, &mut listen).unwrap();
    assert!(heard.is_sorted() && heard.len() > 1);
    assert_eq!(heard.last(), Some(&path.metadata().unwrap().len()));

    let other = tempfile::tempdir().unwrap();
    let path = other.path().join("model.safetensors");
    let mut refuse = |_| Err(std::io::Error::other("enough"));
    let message = write_f32_watched(&path, &checkpoint, &config, &mut refuse)
        .unwrap_err()
        .to_string();
    assert!(message.contains("enough"), "{message}");
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
}
