//! Damaged image files: an error or an image, never a panic, never more memory than the limits allow.

#![allow(clippy::unwrap_used, reason = "a test may stop, and says what it saw")]

use std::path::Path;

use models::image::{ImageProcessor, ImageSettings};
use proptest::prelude::*;

/// Every golden file, read once.
fn files() -> &'static [(String, Vec<u8>)] {
    static FILES: std::sync::OnceLock<Vec<(String, Vec<u8>)>> = std::sync::OnceLock::new();
    FILES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/images");
        let mut files: Vec<_> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let extension = path.extension().and_then(|extension| extension.to_str());
                matches!(
                    extension,
                    Some("png" | "jpg" | "gif" | "webp" | "bmp" | "tiff")
                )
            })
            .map(|path| {
                (
                    path.file_name().unwrap().to_string_lossy().into_owned(),
                    std::fs::read(&path).unwrap(),
                )
            })
            .collect();
        files.sort();
        files
    })
}

fn processor() -> ImageProcessor {
    // A low limit keeps damaged sizes cheap.
    ImageProcessor::new(ImageSettings {
        max_source_pixels: 1 << 20,
        ..ImageSettings::default()
    })
}

/// Decoding and all that follows; an image that decodes must go through or be refused.
fn whole_way(bytes: &[u8]) {
    let processor = processor();
    if let Ok(image) = processor.decode(bytes) {
        assert_eq!(
            image.pixels.len(),
            image.width as usize * image.height as usize * 3
        );
        if let Ok(resized) = processor.resize(&image) {
            processor.patches(&resized).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn overwritten_bytes(file in 0..64usize, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = files()[file % files().len()].1.clone();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        whole_way(&bytes);
    }

    #[test]
    fn cut_and_spliced(file in 0..64usize, other in 0..64usize, from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let (head, tail) = (&files()[file % files().len()].1, &files()[other % files().len()].1);
        let mut bytes = head[..from.index(head.len())].to_vec();
        whole_way(&bytes);
        bytes.extend_from_slice(&tail[to.index(tail.len())..]);
        whole_way(&bytes);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400), magic in 0..6usize) {
        let magics: [&[u8]; 6] = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\x10\0\0\0WEBPVP8 ", b"II*\0"];
        whole_way(&[magics[magic], &bytes].concat());
    }
}

#[test]
fn a_cut_file_is_an_error() {
    for (name, bytes) in files() {
        let error = processor()
            .decode(&bytes[..bytes.len() / 2])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("image: ") && !error.contains('\n'),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_huge_declared_size_is_refused_before_decoding() {
    // Width and height of an otherwise whole PNG, raised; the chunk's checksum renewed.
    let mut png = files()
        .iter()
        .find(|(name, _)| name == "la.png")
        .unwrap()
        .1
        .clone();
    png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    let error = ImageProcessor::new(ImageSettings::default())
        .decode(&png)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("60000x60000") || error.contains("limit"),
        "{error}"
    );
    // The same for a JPEG: the frame header holds height, then width.
    let mut jpeg = files()
        .iter()
        .find(|(name, _)| name == "rgb444.jpg")
        .unwrap()
        .1
        .clone();
    let frame = jpeg
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC0])
        .unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xEA, 0x60, 0xEA, 0x60]);
    let error = ImageProcessor::new(ImageSettings::default())
        .decode(&jpeg)
        .unwrap_err()
        .to_string();
    assert!(error.contains("60000x60000"), "{error}");
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                0xEDB8_8320 ^ (crc >> 1)
            } else {
                crc >> 1
            }
        })
    })
}
