//! TensorBoard event files: TFRecords of `Event` protobufs, written with four fields and no library.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

/// tensorflow/core/util/event.proto, the fields used here.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.SessionStatus.START`
const START: i32 = 1;

/// One event file. Every start of a program opens a new one; TensorBoard reads all of a folder in the order of their names.
#[derive(Debug)]
pub(super) struct EventFile {
    file: File,
}

impl EventFile {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let seconds = wall_time();
        let name = format!(
            "events.out.tfevents.{seconds:017.6}.tor.{}",
            std::process::id()
        );
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.join(name))?;
        let mut events = Self { file };
        events.write(&Event {
            wall_time: seconds,
            file_version: Some("brain.Event:2".to_owned()),
            ..Event::default()
        })?;
        Ok(events)
    }

    /// Tells TensorBoard to forget what older files say of `step` and later ones.
    pub(super) fn restart(&mut self, step: u64) -> io::Result<()> {
        let session_log = Some(SessionLog { status: START });
        self.write(&Event {
            wall_time: wall_time(),
            step: signed(step),
            session_log,
            ..Event::default()
        })
    }

    pub(super) fn scalars(
        &mut self,
        step: u64,
        wall_time: f64,
        values: &[(&str, f64)],
    ) -> io::Result<()> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the format holds f32; metrics.jsonl has the full number"
        )]
        let value = values
            .iter()
            .map(|&(tag, value)| Value {
                tag: tag.to_owned(),
                simple_value: Some(value as f32),
            })
            .collect();
        self.write(&Event {
            wall_time,
            step: signed(step),
            summary: Some(Summary { value }),
            ..Event::default()
        })
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        // One write per record: a kill leaves at most one torn record, at the end.
        self.file.write_all(&record(&event.encode_to_vec()))
    }
}

/// Seconds since 1970.
pub(super) fn wall_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

fn signed(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}

/// Length, its checksum, the bytes, their checksum; little-endian.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&masked_crc32c(data).to_le_bytes());
    out
}

/// TFRecord's mask: a checksum of bytes that hold checksums would be weak.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: an event is about a kilobyte per step.
fn crc32c(data: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !data.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4.
    #[test]
    fn crc32c_of_the_rfc() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// The first record of every event file that TensorFlow writes, for wall_time 0:
    /// `struct.pack('<Q', 24)`, its masked checksum, then the event.
    #[test]
    fn records_are_framed() {
        let event = Event {
            file_version: Some("brain.Event:2".to_owned()),
            ..Event::default()
        };
        let bytes = event.encode_to_vec();
        assert_eq!(bytes, b"\x1a\x0dbrain.Event:2");
        let framed = record(&bytes);
        assert_eq!(framed.len(), 8 + 4 + 15 + 4);
        assert_eq!(framed[..8], 15_u64.to_le_bytes());
        assert_eq!(
            framed[8..12],
            masked_crc32c(&15_u64.to_le_bytes()).to_le_bytes()
        );
        assert_eq!(framed[12..27], bytes);
        // The length of a real file's first record is 24 (wall_time is not 0); these are its bytes.
        assert_eq!(
            record(&[0; 24])[..12],
            [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]
        );
    }

    #[test]
    fn files_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(&folder.path().join("tensorboard/learner")).unwrap();
        events.restart(3).unwrap();
        events
            .scalars(3, 7.0, &[("train/loss", 0.5), ("train/odd", f64::NAN)])
            .unwrap();
        let path = std::fs::read_dir(folder.path().join("tensorboard/learner"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut read) = (bytes.as_slice(), Vec::new());
        while let Some((length, tail)) = rest.split_first_chunk::<8>() {
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
            read.push(Event::decode(&tail[4..4 + length]).unwrap());
            rest = &tail[4 + length + 4..];
        }
        assert_eq!(read.len(), 3);
        assert_eq!(read[1].session_log, Some(SessionLog { status: START }));
        let summary = read[2].summary.as_ref().unwrap();
        assert_eq!((read[2].step, read[2].wall_time), (3, 7.0));
        assert_eq!(
            summary.value[0],
            Value {
                tag: "train/loss".to_owned(),
                simple_value: Some(0.5)
            }
        );
        assert!(summary.value[1].simple_value.unwrap().is_nan());
    }
}
