//! Image preprocessing against the reference: `PARITY_FIXTURES` (pixel values of Hugging Face's PIL-backed processor)
//! and tests/data/images (PIL alone; every sample layout, many resize targets).

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test may stop, and says what it saw"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use models::config::ModelConfig;
use models::image::{ImageProcessor, ImageSettings, RgbImage, bicubic, target_size};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// `pixel_values` from equal 8-bit pixels.
const VALUES_TOLERANCE: f32 = 1e-5;
/// Two JPEG decoders may differ in the last bits of the inverse transform and of chroma interpolation.
const JPEG_MAX_LEVELS: u8 = 4;
const JPEG_MEAN_LEVELS: f64 = 0.5;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data")
        .join(name)
}

fn fixtures() -> PathBuf {
    std::env::var_os("PARITY_FIXTURES").map_or_else(|| data("qwen2_5_vl"), PathBuf::from)
}

fn rgb(tensors: &SafeTensors<'_>, name: &str) -> RgbImage {
    let tensor = tensors.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), Dtype::U8, "{name}");
    let [height, width, 3] = tensor.shape() else {
        panic!("{name}: {:?}", tensor.shape())
    };
    RgbImage {
        width: *width as u32,
        height: *height as u32,
        pixels: tensor.data().to_vec(),
    }
}

fn assert_same(name: &str, got: &RgbImage, expected: &RgbImage) {
    assert_eq!(
        (got.width, got.height),
        (expected.width, expected.height),
        "{name}"
    );
    let wrong = got
        .pixels
        .iter()
        .zip(&expected.pixels)
        .filter(|(got, expected)| got != expected)
        .count();
    assert_eq!(
        wrong,
        0,
        "{name}: {wrong} of {} samples differ",
        got.pixels.len()
    );
}

/// Largest and mean difference in levels.
fn assert_near(name: &str, got: &RgbImage, expected: &RgbImage) {
    assert_eq!(
        (got.width, got.height),
        (expected.width, expected.height),
        "{name}"
    );
    let differences = got
        .pixels
        .iter()
        .zip(&expected.pixels)
        .map(|(got, expected)| got.abs_diff(*expected));
    let largest = differences.clone().max().unwrap_or(0);
    let mean = differences.map(f64::from).sum::<f64>() / got.pixels.len() as f64;
    println!("{name}: at most {largest} levels, mean {mean:.3}");
    assert!(
        largest <= JPEG_MAX_LEVELS && mean <= JPEG_MEAN_LEVELS,
        "{name}: at most {largest}, mean {mean}"
    );
}

#[test]
fn pixel_values_are_hugging_faces() {
    let root = fixtures();
    let file = std::fs::read(root.join("preprocess.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let config = ModelConfig::from_dir(&root.join("model")).unwrap();
    let processor = ImageProcessor::from_dir(&root.join("model"), &config.vision).unwrap();
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(root.join("images")).unwrap() {
        let path = entry.unwrap().path();
        files.insert(path.file_stem().unwrap().to_str().unwrap().to_owned(), path);
    }
    let mut num_checked = 0;
    for (name, path) in &files {
        let (resized_name, values_name) = (
            format!("pil.{name}.resized_u8"),
            format!("pil.{name}.pixel_values"),
        );
        if tensors.tensor(&resized_name).is_err() {
            continue;
        }
        let decoded_name = format!("decoded_u8.{name}");
        let mut image = processor.decode(&std::fs::read(path).unwrap()).unwrap();
        if tensors.tensor(&decoded_name).is_ok() {
            // A JPEG: near after decoding; exact from the reference's own pixels on.
            let decoded = rgb(&tensors, &decoded_name);
            assert_near(name, &image, &decoded);
            image = decoded;
        }
        let resized = processor.resize(&image).unwrap();
        assert_same(name, &resized, &rgb(&tensors, &resized_name));
        let patches = processor.patches(&resized).unwrap();
        let grid = tensors
            .tensor(&format!("pil.{name}.image_grid_thw"))
            .unwrap();
        let grid: Vec<i64> = grid
            .data()
            .chunks_exact(8)
            .map(|at| i64::from_le_bytes(at.try_into().unwrap()))
            .collect();
        assert_eq!(
            grid,
            [patches.grid.t, patches.grid.h, patches.grid.w].map(|side| side as i64),
            "{name}"
        );
        let values = tensors.tensor(&values_name).unwrap();
        assert_eq!(values.shape()[0], patches.grid.num_patches());
        assert_eq!(
            values.shape().iter().product::<usize>(),
            patches.values.len()
        );
        let expected = values
            .data()
            .chunks_exact(4)
            .map(|at| f32::from_le_bytes(at.try_into().unwrap()));
        let largest = patches
            .values
            .iter()
            .zip(expected)
            .map(|(got, expected)| (got - expected).abs())
            .fold(0.0, f32::max);
        assert!(
            largest <= VALUES_TOLERANCE,
            "{name}: pixel_values differ by {largest}"
        );
        num_checked += 1;
    }
    assert!(num_checked > 0, "no image of the fixtures was checked");
}

#[test]
fn target_sizes_are_hugging_faces() {
    let text = std::fs::read_to_string(fixtures().join("smart_resize.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(!cases.is_empty());
    for case in &cases {
        let number = |key: &str| case[key].as_u64().unwrap();
        let side = |key: &str| number(key) as u32;
        let got = target_size::smart_resize(
            side("height"),
            side("width"),
            side("factor"),
            number("min_pixels"),
            number("max_pixels"),
        );
        if case.get("error").is_some() {
            assert!(got.is_err(), "{case}: got {got:?}");
        } else {
            assert_eq!(got.unwrap(), (side("h"), side("w")), "{case}");
        }
    }
}

#[test]
fn every_layout_becomes_pils_rgb() {
    let root = std::env::var_os("IMAGE_GOLDENS").map_or_else(|| data("images"), PathBuf::from);
    let file = std::fs::read(root.join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let processor = ImageProcessor::new(ImageSettings::default());
    let mut failures = Vec::new();
    for key in tensors.names() {
        if let Some(name) = key.strip_prefix("rgb.") {
            let bytes = std::fs::read(root.join(name)).unwrap();
            let outcome = std::panic::catch_unwind(|| {
                let got = processor.decode(&bytes).unwrap();
                let expected = rgb(&tensors, key);
                if name.ends_with(".jpg") {
                    assert_near(name, &got, &expected);
                } else {
                    assert_same(name, &got, &expected);
                }
            });
            if outcome.is_err() {
                failures.push(name);
            }
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn bicubic_is_pils_to_the_bit() {
    let root = std::env::var_os("IMAGE_GOLDENS").map_or_else(|| data("images"), PathBuf::from);
    let file = std::fs::read(root.join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut num_checked = 0;
    for key in tensors.names() {
        if let Some((source, _)) = key
            .strip_prefix("resize.")
            .and_then(|rest| rest.split_once('.'))
        {
            let expected = rgb(&tensors, key);
            let source = rgb(&tensors, &format!("source.{source}"));
            assert_same(
                key,
                &bicubic::resize(&source, expected.width, expected.height).unwrap(),
                &expected,
            );
            num_checked += 1;
        }
    }
    assert!(num_checked > 10);
}
