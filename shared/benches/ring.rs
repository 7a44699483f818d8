//! The ring against memcpy of the same frames, and how long one frame takes to another process and back to sight.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a bench that fails may panic"
)]

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shared::ring::{Consumer, Producer};

const RING_BYTES: usize = 64 << 20;
const NEVER: &dyn Fn() -> bool = &|| false;

fn pair() -> (tempfile::TempDir, Producer, Consumer) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bench.ring");
    let producer = Producer::open_or_create(&path, RING_BYTES).unwrap();
    let consumer = Consumer::open(&path).unwrap();
    (folder, producer, consumer)
}

/// Bytes per second through push and pop (checksum twice, two copies), beside two plain copies of the same bytes.
fn throughput(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring_throughput");
    for bytes in [4 << 10, 256 << 10, 4 << 20] {
        let frame: Vec<u8> = (0..bytes)
            .map(|index: usize| index.to_le_bytes()[0])
            .collect();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::new("push_pop", bytes), &frame, |b, frame| {
            let (_folder, mut producer, mut consumer) = pair();
            let mut out = Vec::new();
            b.iter(|| {
                assert!(producer.try_push(black_box(frame)).unwrap());
                assert!(consumer.try_pop(&mut out).unwrap());
            });
        });
        group.bench_with_input(BenchmarkId::new("two_memcpy", bytes), &frame, |b, frame| {
            // Through a buffer as large as the ring, so that the caches see the same.
            let mut between = vec![0; RING_BYTES];
            let mut out = vec![0; frame.len()];
            let mut start = 0;
            b.iter(|| {
                if start + frame.len() > between.len() {
                    start = 0;
                }
                let place = &mut between[start..start + frame.len()];
                place.copy_from_slice(black_box(frame));
                out.copy_from_slice(black_box(place));
                start += frame.len();
                black_box(&out);
            });
        });
    }
    group.finish();
}

/// From push on one thread to the copy in another's hands, the reader asleep when the frame comes.
fn latency(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring_latency");
    for bytes in [64, 256 << 10] {
        group.bench_with_input(BenchmarkId::new("one_frame", bytes), &bytes, |b, &bytes| {
            b.iter_custom(|rounds| one_way(bytes, rounds));
        });
    }
    group.finish();
}

fn one_way(bytes: usize, rounds: u64) -> Duration {
    let (_folder, mut producer, mut consumer) = pair();
    let origin = Instant::now();
    let reader = thread::spawn(move || {
        let mut out = Vec::new();
        let mut total = Duration::ZERO;
        for _ in 0..rounds {
            while !consumer.try_pop(&mut out).unwrap() {
                consumer.wait(Duration::from_secs(1)).unwrap();
            }
            let sent = u64::from_le_bytes(out[..8].try_into().unwrap());
            total += origin.elapsed().saturating_sub(Duration::from_nanos(sent));
        }
        total
    });
    let mut frame = vec![0; bytes];
    for _ in 0..rounds {
        // Long enough for the reader to have gone to sleep.
        thread::sleep(Duration::from_micros(100));
        let now = u64::try_from(origin.elapsed().as_nanos()).unwrap();
        frame[..8].copy_from_slice(&now.to_le_bytes());
        assert!(producer.push(&frame, NEVER).unwrap());
    }
    reader.join().unwrap()
}

criterion_group!(benches, throughput, latency);
criterion_main!(benches);
