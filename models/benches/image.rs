//! Image preprocessing, in bytes of decoded pixels per second: decode, resize, patches.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a bench that fails may stop; samples are below 256"
)]

use std::hint::black_box;
use std::io::Cursor;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use image::ImageFormat;
use models::image::{ImageProcessor, ImageSettings, RgbImage};

/// A gradient with a texture, so that files have about the size of a photograph.
fn picture(side: u32) -> RgbImage {
    let sample = |index: u32| {
        let (x, y) = (index % side, index / side);
        [
            x * 255 / side,
            y * 255 / side,
            (x * 7 + y * 3 + x * y % 11) % 256,
        ]
        .map(|level| level as u8)
    };
    RgbImage {
        width: side,
        height: side,
        pixels: (0..side * side).flat_map(sample).collect(),
    }
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let buffer =
        image::RgbImage::from_raw(image.width, image.height, image.pixels.clone()).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    buffer.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn preprocess(criterion: &mut Criterion) {
    let processor = ImageProcessor::new(ImageSettings {
        max_pixels: 1 << 20,
        ..ImageSettings::default()
    });
    let mut group = criterion.benchmark_group("image");
    for side in [112, 1024] {
        let image = picture(side);
        // 1024 is no multiple of 28: the resize is a real one.
        let resized = processor.resize(&image).unwrap();
        group.throughput(Throughput::Bytes(image.pixels.len() as u64));
        for (name, format) in [
            ("decode-png", ImageFormat::Png),
            ("decode-jpeg", ImageFormat::Jpeg),
        ] {
            let bytes = encoded(&image, format);
            group.bench_function(BenchmarkId::new(name, side), |bencher| {
                bencher.iter(|| processor.decode(black_box(&bytes)).unwrap());
            });
        }
        group.bench_function(BenchmarkId::new("resize", side), |bencher| {
            bencher.iter(|| processor.resize(black_box(&image)).unwrap());
        });
        group.bench_function(BenchmarkId::new("patches", side), |bencher| {
            bencher.iter(|| processor.patches(black_box(&resized)).unwrap());
        });
        let bytes = encoded(&image, ImageFormat::Png);
        group.bench_function(BenchmarkId::new("preprocess-png", side), |bencher| {
            bencher.iter(|| {
                let image = processor.decode(black_box(&bytes)).unwrap();
                processor
                    .patches(&processor.resize(&image).unwrap())
                    .unwrap()
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = preprocess
}
criterion_main!(benches);
