//! The ring on the heap and in files, in one process. Those on the heap run under Miri too.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Consumer, Producer, heap};
use crate::error::Error;

const NEVER: &dyn Fn() -> bool = &|| false;

#[test]
fn frames_come_out_as_they_went_in_over_many_laps() {
    let (mut producer, mut consumer) = heap(104);
    let mut out = Vec::new();
    for lap in 0..50u8 {
        let first = vec![lap; usize::from(lap) % 24];
        let second = vec![!lap; 8];
        assert!(producer.try_push(&first).unwrap());
        assert!(producer.try_push(&second).unwrap());
        assert!(consumer.try_pop(&mut out).unwrap());
        assert_eq!(out, first);
        assert!(consumer.try_pop(&mut out).unwrap());
        assert_eq!(out, second);
        assert!(!consumer.try_pop(&mut out).unwrap());
    }
}

#[test]
fn a_full_ring_refuses_until_there_is_room() {
    let (mut producer, mut consumer) = heap(64);
    assert!(producer.try_push(&[1; 16]).unwrap());
    assert!(producer.try_push(&[2; 16]).unwrap());
    assert!(!producer.try_push(&[]).unwrap());
    assert!(
        !producer.push(&[3], &|| true).unwrap(),
        "stopped while waiting"
    );
    assert_eq!(consumer.unread_bytes().unwrap(), 64);
    let mut out = Vec::new();
    assert!(consumer.try_pop(&mut out).unwrap());
    assert!(producer.push(&[3; 16], NEVER).unwrap());
}

#[test]
fn a_frame_larger_than_the_ring_is_an_error() {
    let (mut producer, mut consumer) = heap(64);
    assert_eq!(producer.max_frame_bytes(), 48);
    assert!(producer.try_push(&[7; 48]).unwrap());
    assert!(consumer.try_pop(&mut Vec::new()).unwrap());
    let error = producer.push(&[7; 49], NEVER).unwrap_err();
    assert!(matches!(error, Error::FrameTooLarge { got: 49, max: 48 }));
    assert!(error.to_string().contains("raise --ring-mib"), "{error}");
}

#[test]
fn two_threads_wait_for_each_other() {
    let frames: u32 = if cfg!(miri) { 30 } else { 2000 };
    let (mut producer, mut consumer) = heap(128);
    let writer = thread::spawn(move || {
        for number in 0..frames {
            let frame = number.to_le_bytes().repeat(1 + number as usize % 12);
            assert!(producer.push(&frame, NEVER).unwrap());
        }
    });
    let mut out = Vec::new();
    for number in 0..frames {
        while !consumer.try_pop(&mut out).unwrap() {
            consumer.wait(Duration::from_secs(10)).unwrap();
        }
        assert_eq!(out, number.to_le_bytes().repeat(1 + number as usize % 12));
    }
    writer.join().unwrap();
}

#[test]
fn a_frame_that_was_written_and_not_published_is_not_there() {
    let (producer, mut consumer) = heap(64);
    producer.write(0, &[9; 20]);
    let mut out = Vec::new();
    assert!(!consumer.try_pop(&mut out).unwrap());
    // The next producer writes over it.
    let mut producer = Producer::on(producer.storage());
    assert!(producer.try_push(&[1, 2, 3]).unwrap());
    assert!(consumer.try_pop(&mut out).unwrap());
    assert_eq!(out, [1, 2, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: if cfg!(miri) { 4 } else { 256 }, ..ProptestConfig::default() })]

    /// Against a plain queue: any mixture of pushes, pops and new ends on the same words.
    #[test]
    fn the_ring_is_a_queue(capacity in 16usize..200, steps in vec((0..4u8, 0..80usize), 0..60)) {
        let (mut producer, mut consumer) = heap(capacity);
        let mut expected: VecDeque<Vec<u8>> = VecDeque::new();
        let mut out = Vec::new();
        for (number, (step, length)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 if length > producer.max_frame_bytes() => {
                    prop_assert!(producer.try_push(&vec![0; length]).is_err());
                }
                0 | 1 => {
                    let frame: Vec<u8> = (0..length).map(|index| (number * 31 + index).to_le_bytes()[0]).collect();
                    if producer.try_push(&frame).unwrap() {
                        expected.push_back(frame);
                    } else {
                        prop_assert!(!expected.is_empty());
                    }
                }
                2 => match expected.pop_front() {
                    Some(frame) => {
                        prop_assert!(consumer.try_pop(&mut out).unwrap());
                        prop_assert_eq!(&out, &frame);
                    }
                    None => prop_assert!(!consumer.try_pop(&mut out).unwrap()),
                },
                _ => {
                    producer = Producer::on(producer.storage());
                    consumer = Consumer::on(producer.storage());
                }
            }
        }
    }

    /// Whatever stands in the words, the consumer neither panics nor returns a frame with a wrong checksum.
    #[test]
    fn any_words_are_refused_or_a_frame(body in vec(any::<u64>(), 2..12), head in 0u64..200, tail in 0u64..200, whole in any::<bool>()) {
        let (producer, mut consumer) = heap(body.len() * 8);
        let round = |position: u64| if whole { position / 8 * 8 } else { position };
        producer.forge(&body, round(head), round(tail));
        let mut out = Vec::new();
        let popped = consumer.try_pop(&mut out);
        prop_assert!(out.len() <= body.len() * 8);
        prop_assert!(!matches!(popped, Ok(true)), "a checksum by chance");
    }
}

#[test]
fn a_changed_word_is_noticed_and_can_be_passed() {
    let (mut producer, mut consumer) = heap(64);
    assert!(producer.try_push(&[5; 24]).unwrap());
    producer.forge(&[24, 0, 1, 2, 3], 40, 0);
    let mut out = Vec::new();
    let error = consumer.try_pop(&mut out).unwrap_err().to_string();
    assert!(
        error.contains("checksum of a frame of 24 bytes differs"),
        "{error}"
    );
    producer.forge(&[25], 40, 0);
    let error = consumer.try_pop(&mut out).unwrap_err().to_string();
    assert!(
        error.contains("claims 25 bytes where 24 were published"),
        "{error}"
    );
    assert_eq!(consumer.discard_unread(), 40);
    assert!(producer.try_push(&[6; 40]).unwrap());
    assert!(consumer.try_pop(&mut out).unwrap());
    assert_eq!(out, [6; 40]);
}

#[cfg(not(miri))]
mod files {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn both_ends_resume_where_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ring");
        let mut out = Vec::new();
        for round in 0..20u8 {
            // A new pair each round: everything they know is in the file.
            let mut producer = Producer::open_or_create(&path, 200).unwrap();
            assert!(producer.try_push(&[round; 33]).unwrap());
            assert!(producer.try_push(&[round; 5]).unwrap());
            drop(producer);
            let mut consumer = Consumer::open(&path).unwrap();
            assert!(consumer.try_pop(&mut out).unwrap());
            assert_eq!(out, [round; 33]);
            drop(consumer);
            let mut consumer = Consumer::open(&path).unwrap();
            assert!(consumer.try_pop(&mut out).unwrap());
            assert_eq!(out, [round; 5]);
        }
    }

    #[test]
    fn the_file_is_private_allocated_and_keeps_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ring");
        drop(Producer::open_or_create(&path, 1 << 20).unwrap());
        let data = fs::metadata(&path).unwrap();
        assert_eq!(data.permissions().mode() & 0o777, 0o600);
        assert_eq!(data.len(), 4096 + (1 << 20));
        let blocks = std::os::unix::fs::MetadataExt::blocks(&data);
        assert!(blocks * 512 >= data.len(), "{blocks} blocks");
        let producer = Producer::open_or_create(&path, 1 << 21).unwrap();
        assert_eq!(producer.capacity_bytes(), 1 << 20);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file left"
        );
    }

    #[test]
    fn a_second_producer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ring");
        let _first = Producer::open_or_create(&path, 100).unwrap();
        let error = Producer::open_or_create(&path, 100)
            .unwrap_err()
            .to_string();
        assert!(error.contains("is in use by another process"), "{error}");
    }

    #[test]
    fn files_of_another_layout_are_refused_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ring");
        drop(Producer::open_or_create(&path, 100).unwrap());
        let good = fs::read(&path).unwrap();
        let refused = |bytes: &[u8], why: &str| {
            fs::write(&path, bytes).unwrap();
            for error in [
                Consumer::open(&path).unwrap_err(),
                Producer::open_or_create(&path, 100).unwrap_err(),
            ] {
                let error = error.to_string();
                assert!(
                    error.contains(why) && error.contains("delete the file"),
                    "{error}"
                );
            }
        };
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        refused(&with(8, 2), "layout version is 2, expected 1");
        refused(&with(0, b'X'), "magic is \"XoR ring\"");
        refused(
            &with(16, 96),
            "length is 4200 bytes, expected 4096 + 96 bytes",
        );
        refused(&with(23, 255), "length is 4200 bytes");
        refused(&good[..good.len() - 8], "length is 4192 bytes");
        refused(&good[..100], "length is 100 bytes, expected at least 4096");
        refused(&[], "length is 0 bytes");
    }

    #[test]
    fn a_reader_sleeps_and_is_woken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ring");
        let mut producer = Producer::open_or_create(&path, 100).unwrap();
        let mut consumer = Consumer::open(&path).unwrap();
        let mut out = Vec::new();
        assert!(!consumer.try_pop(&mut out).unwrap());
        assert!(
            !consumer.wait(Duration::from_millis(30)).unwrap(),
            "nothing came"
        );
        let began = Instant::now();
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            producer.try_push(&[1]).unwrap()
        });
        assert!(consumer.wait(Duration::from_secs(60)).unwrap());
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "the futex woke it, not the time"
        );
        assert!(consumer.try_pop(&mut out).unwrap());
        assert!(writer.join().unwrap());
    }

    #[test]
    fn a_missing_ring_is_named() {
        let error = Consumer::open("nowhere/a.ring".as_ref())
            .unwrap_err()
            .to_string();
        assert_eq!(error, "cannot open nowhere/a.ring");
    }
}
