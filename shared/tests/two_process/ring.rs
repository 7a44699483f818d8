//! Both ends of one ring, killed and replaced.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use shared::ring::{Consumer, Producer};

use super::{NEVER, Process, RING_BYTES, Random, append, frame, lines, note, word};

/// Role: pushes frames as fast as there is room, and notes each after it is published.
pub(super) fn write_frames(folder: &Path, writer: u64) {
    let mut producer = Producer::open_or_create(&folder.join("ring"), RING_BYTES).unwrap();
    let mut log = append(&folder.join("written"));
    for number in 0.. {
        assert!(producer.push(&frame(writer, number), NEVER).unwrap());
        note(&mut log, &format!("{writer} {number}"));
    }
}

/// Role: pops frames, checks every byte, and notes each after its commit.
pub(super) fn read_frames(folder: &Path, reader: u64) {
    let path = folder.join("ring");
    let mut log = append(&folder.join("read"));
    note(&mut log, &format!("reader {reader}"));
    while !path.exists() {
        thread::sleep(Duration::from_millis(1));
    }
    let mut consumer = Consumer::open(&path).unwrap();
    let mut out = Vec::new();
    loop {
        if consumer.try_pop(&mut out).unwrap() {
            let (writer, number) = (word(&out, 0), word(&out, 1));
            assert!(
                out == frame(writer, number),
                "frame {number} of writer {writer} is torn"
            );
            note(&mut log, &format!("{writer} {number}"));
        } else {
            consumer.wait(Duration::from_millis(100)).unwrap();
        }
    }
}

/// Writer and reader are killed and replaced; what the reader saw is what the writers published, in order and whole. A reader
/// that is killed between commit and note has the frame and can't say so: one frame per killed reader may be missing.
#[test]
fn a_ring_survives_kills_of_either_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::of_the_moment();
    let began = Instant::now();
    let (mut writers, mut readers) = (0, 0);
    let mut writer = Process::start("writer", folder.path(), writers);
    let mut reader = Process::start("reader", folder.path(), readers);
    while began.elapsed() < Duration::from_secs(6) {
        random.sleep_ms(60);
        let which = random.below(3);
        if which != 0 {
            writer.kill();
            writers += 1;
            writer = Process::start("writer", folder.path(), writers);
        }
        if which != 1 {
            reader.kill();
            readers += 1;
            reader = Process::start("reader", folder.path(), readers);
        }
    }
    // However busy the machine, something must have been read.
    while lines(&folder.path().join("read")).len() < 500 {
        assert!(!writer.has_ended() && !reader.has_ended());
        thread::sleep(Duration::from_millis(10));
    }
    writer.kill();
    // The last reader gets all the time it needs for what is in the ring.
    let consumer = Consumer::open(&folder.path().join("ring")).unwrap();
    while consumer.unread_bytes().unwrap() > 0 {
        assert!(!reader.has_ended());
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(200));
    reader.kill();

    let mut published: BTreeMap<u64, u64> = BTreeMap::new();
    for line in lines(&folder.path().join("written")) {
        let (writer, number) = pair(&line);
        let next = published.entry(writer).or_default();
        assert_eq!(number, *next);
        *next += 1;
    }
    let (mut received, mut missing) = (0, 0);
    let mut next = (0, 0);
    let mut is_first_of_reader = true;
    for line in lines(&folder.path().join("read")) {
        if line.starts_with("reader") {
            is_first_of_reader = true;
            continue;
        }
        let (writer, number) = pair(&line);
        assert!(
            (writer, number) >= next,
            "{writer} {number} came twice or late, after {next:?}"
        );
        let mut gap = 0;
        while next.0 < writer {
            // Published and noted by an earlier writer, or published and killed before the note.
            gap += published
                .get(&next.0)
                .copied()
                .unwrap_or(0)
                .saturating_sub(next.1);
            next = (next.0 + 1, 0);
        }
        gap += number - next.1;
        assert!(
            gap == 0 || (gap == 1 && is_first_of_reader),
            "{gap} frames missing before {writer} {number}"
        );
        missing += gap;
        received += 1;
        next = (writer, number + 1);
        is_first_of_reader = false;
    }
    assert!(
        received > 100 && missing <= readers,
        "{received} frames, {missing} missing"
    );
    eprintln!(
        "{received} frames, {writers} writers and {readers} readers killed, {missing} in a killed reader's hands"
    );
}

fn pair(line: &str) -> (u64, u64) {
    let (first, second) = line.split_once(' ').unwrap();
    (first.parse().unwrap(), second.parse().unwrap())
}
