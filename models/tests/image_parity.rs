//! Image preprocessing against the reference: `PARITY_FIXTURES` (pixel values of Hugging Face's PIL-backed processor)
//! and tests/data/images (PIL alone; every sample layout, many resize targets).

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop, and says what it saw"
)]

use std::path::{Path, PathBuf};

use models::config::ModelConfig;
use models::image::{ImageProcessor, ImageSettings, RgbImage, bicubic, target_size};
use tests::{Fixtures, Tensors, assert_close};

/// `pixel_values` from equal 8-bit pixels.
const VALUES_TOLERANCE: f64 = 1e-5;
/// "A level or two" between JPEG libraries.
const JPEG_LEVELS: u8 = 2;

/// The folder of image files with PIL's pixels: `IMAGE_GOLDENS`, or the shipped one.
fn goldens() -> (PathBuf, Tensors) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/images");
    let root = std::env::var_os("IMAGE_GOLDENS").map_or(shipped, PathBuf::from);
    let tensors = Tensors::open(&root.join("golden.safetensors")).unwrap();
    (root, tensors)
}

fn rgb(tensors: &Tensors, name: &str) -> RgbImage {
    let tensor = tensors.u8(name).unwrap();
    let [height, width, 3] = tensor.shape[..] else {
        panic!("{name}: {:?}", tensor.shape)
    };
    RgbImage {
        width: width as u32,
        height: height as u32,
        pixels: tensor.data,
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

fn assert_near(name: &str, got: &RgbImage, expected: &RgbImage) {
    assert_eq!(
        (got.width, got.height),
        (expected.width, expected.height),
        "{name}"
    );
    let pairs = got.pixels.iter().zip(&expected.pixels);
    let largest = pairs.map(|(a, b)| a.abs_diff(*b)).max();
    assert!(largest <= Some(JPEG_LEVELS), "{name}: {largest:?} levels");
}

#[test]
fn pixel_values_are_hugging_faces() {
    Fixtures::each(|fixtures| {
        let reference = fixtures.tensors("preprocess").unwrap();
        let config = ModelConfig::from_dir(&fixtures.model()).unwrap();
        let processor = ImageProcessor::from_dir(&fixtures.model(), &config.vision).unwrap();
        let mut num_checked = 0;
        for name in fixtures.image_names().unwrap() {
            let key = |kind: &str| format!("pil.{name}.{kind}");
            if !reference.has(&key("resized_u8")) {
                continue;
            }
            let mut image = processor.decode(&fixtures.image(&name).unwrap()).unwrap();
            let decoded = format!("decoded_u8.{name}");
            if reference.has(&decoded) {
                // A JPEG. The reference may be of a machine whose library rounds otherwise: go on from its pixels.
                let expected = rgb(&reference, &decoded);
                assert_near(&decoded, &image, &expected);
                image = expected;
            }
            let resized = processor.resize(&image).unwrap();
            assert_same(&name, &resized, &rgb(&reference, &key("resized_u8")));
            num_checked += 1;
            if !reference.has(&key("pixel_values")) {
                continue;
            }
            let patches = processor.patches(&resized).unwrap();
            let grid = [patches.grid.t, patches.grid.h, patches.grid.w].map(|side| side as i64);
            assert_eq!(
                reference.i64(&key("image_grid_thw")).unwrap().data,
                grid,
                "{name}"
            );
            let values = reference.f32(&key("pixel_values")).unwrap();
            assert_eq!(values.shape[0], patches.grid.num_patches(), "{name}");
            assert_close(&name, &patches.values, &values.data, VALUES_TOLERANCE);
        }
        assert!(num_checked > 0, "no image of the fixtures was checked");
    })
    .unwrap();
}

#[test]
fn target_sizes_are_hugging_faces() {
    Fixtures::each(|fixtures| {
        let cases = fixtures.json("smart_resize").unwrap();
        let cases = cases.as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
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
    })
    .unwrap();
}

#[test]
fn every_layout_becomes_pils_rgb() {
    let (root, tensors) = goldens();
    let processor = ImageProcessor::new(ImageSettings::default());
    let mut failures = Vec::new();
    for key in tensors.names().unwrap() {
        if let Some(name) = key.strip_prefix("rgb.") {
            let bytes = std::fs::read(root.join(name)).unwrap();
            let outcome = std::panic::catch_unwind(|| {
                let got = processor.decode(&bytes).unwrap();
                assert_same(name, &got, &rgb(&tensors, &key));
            });
            if outcome.is_err() {
                failures.push(name.to_owned());
            }
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn bicubic_is_pils_to_the_bit() {
    let (_, tensors) = goldens();
    let mut num_checked = 0;
    for key in tensors.names().unwrap() {
        if let Some((source, _)) = key
            .strip_prefix("resize.")
            .and_then(|rest| rest.split_once('.'))
        {
            let expected = rgb(&tensors, &key);
            let source = rgb(&tensors, &format!("source.{source}"));
            assert_same(
                &key,
                &bicubic::resize(&source, expected.width, expected.height).unwrap(),
                &expected,
            );
            num_checked += 1;
        }
    }
    assert!(num_checked > 10);
}
