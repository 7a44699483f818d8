//! Every interleaving and every reordering that the memory model allows, on small rings:
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p shared --release --lib loom_`
//!
//! The ring is generic over nothing: it is the real producer and consumer, their atomics replaced by loom's. A wake-up that
//! can be lost shows as a deadlock, since loom's waits have no timeout. Loom can't show a load that happens after a later
//! store: that the tail's Release (reads end before the writer may overwrite) is needed rests on the argument beside it.

use std::time::Duration;

use loom::thread;

use super::{Consumer, Producer, heap};

/// Explores with at most so many forced switches of thread; what goes wrong in practice needs one or two.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn pop(consumer: &mut Consumer, out: &mut Vec<u8>) {
    while !consumer.try_pop(out).unwrap() {
        consumer.wait(Duration::MAX).unwrap();
    }
}

/// A ring that holds one frame: the writer waits for room, the reader for frames, no frame is torn, lost or doubled.
#[test]
fn loom_frames_arrive_whole_and_in_order() {
    explore(3, || {
        let (mut producer, mut consumer) = heap(24);
        let writer = thread::spawn(move || {
            for number in 1..=2u64 {
                assert!(producer.push(&number.to_le_bytes(), &|| false).unwrap());
            }
        });
        let mut out = Vec::new();
        for number in 1..=2u64 {
            pop(&mut consumer, &mut out);
            assert_eq!(out, number.to_le_bytes());
        }
        assert!(!consumer.try_pop(&mut out).unwrap());
        writer.join().unwrap();
    });
}

/// A ring that holds two frames, and three of them: reading and writing overlap.
#[test]
fn loom_reading_and_writing_overlap() {
    explore(2, || {
        let (mut producer, mut consumer) = heap(48);
        let writer = thread::spawn(move || {
            for number in 1..=3u64 {
                assert!(producer.push(&number.to_le_bytes(), &|| false).unwrap());
            }
        });
        let mut out = Vec::new();
        for number in 1..=3u64 {
            pop(&mut consumer, &mut out);
            assert_eq!(out, number.to_le_bytes());
        }
        writer.join().unwrap();
    });
}

/// A writer dies with a frame written and not published; the next one goes on while the reader looks.
#[test]
fn loom_a_writer_that_died_leaves_nothing() {
    explore(3, || {
        let (mut producer, mut consumer) = heap(48);
        let writer = thread::spawn(move || {
            assert!(producer.push(&[1; 8], &|| false).unwrap());
            producer.write(24, &[9; 8]);
            let mut next = Producer::on(producer.storage());
            assert!(next.push(&[2; 8], &|| false).unwrap());
        });
        let mut out = Vec::new();
        pop(&mut consumer, &mut out);
        assert_eq!(out, [1; 8]);
        pop(&mut consumer, &mut out);
        assert_eq!(out, [2; 8]);
        writer.join().unwrap();
    });
}

/// A reader dies between copy and commit: the next one finds the same frame, and the writer has not written over it.
#[test]
fn loom_a_reader_that_died_is_replaced() {
    explore(3, || {
        let (mut producer, mut consumer) = heap(24);
        let storage = producer.storage();
        let writer = thread::spawn(move || {
            for number in 1..=2u64 {
                assert!(producer.push(&number.to_le_bytes(), &|| false).unwrap());
            }
        });
        let mut out = Vec::new();
        while !consumer.peek(&mut out).unwrap() {
            consumer.wait(Duration::MAX).unwrap();
        }
        drop(consumer);
        let mut next = Consumer::on(storage);
        for number in 1..=2u64 {
            pop(&mut next, &mut out);
            assert_eq!(out, number.to_le_bytes());
        }
        writer.join().unwrap();
    });
}
