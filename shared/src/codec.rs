//! A group record as bytes, and back from bytes that nobody vouches for.
//!
//! Little-endian: magic `u32`, layout version `u32`, body, xxh3-64 of everything before it. In the body a list is its
//! length as `u64` and then its items, fields in the order of `record.rs`. Decoding checks magic, version and checksum,
//! takes no length for granted (a list is allocated only when the bytes left can hold it), accepts no byte too many, and
//! ends with `GroupRecord::check`.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::ids::{PolicyVersion, Ticket};
use crate::record::{FinishReason, GroupRecord, ImageRecord, ResponseRecord, Reward};

const MAGIC: u32 = u32::from_le_bytes(*b"ToRg");
const VERSION: u32 = 1;
const CHECKSUM_BYTES: usize = 8;
/// Fewest bytes that an image, a response take: what bounds the length of their lists.
const MIN_IMAGE_BYTES: usize = 4 + 4 + 8;
const MIN_RESPONSE_BYTES: usize = 8 + 1 + 8 + 8 + 16 + 4 * 8;

/// The record's bytes. Call [`GroupRecord::check`] first: a record that fails it is refused by `decode`.
pub fn encode(record: &GroupRecord) -> Vec<u8> {
    let mut out = Writer {
        bytes: Vec::with_capacity(encoded_bytes(record)),
    };
    out.u32(MAGIC);
    out.u32(VERSION);
    out.u64(record.ticket.0);
    out.list(record.sample_id.as_bytes());
    out.u32s(&record.prompt_ids);
    out.u64(record.images.len() as u64);
    for image in &record.images {
        out.u32(image.width);
        out.u32(image.height);
        out.list(&image.pixels);
    }
    out.f32(record.temperature);
    out.u64(record.responses.len() as u64);
    for response in &record.responses {
        out.response(response);
    }
    let checksum = xxh3_64(&out.bytes);
    out.u64(checksum);
    out.bytes
}

/// The record that `bytes` hold. Never panics, and allocates a small multiple of `bytes.len()` at most.
pub fn decode(bytes: &[u8]) -> Result<GroupRecord> {
    let mut input = Reader { left: bytes };
    let magic = input.u32("magic")?;
    if magic != MAGIC {
        return Err(refuse(
            "magic",
            format!("is {magic:#010x}, expected {MAGIC:#010x}"),
        ));
    }
    let version = input.u32("layout version")?;
    if version != VERSION {
        return Err(refuse(
            "layout version",
            format!(
                "is {version}, expected {VERSION}: run the rollout and the learner of the same build"
            ),
        ));
    }
    let Some((body, expected)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(refuse("checksum", "is cut off".to_owned()));
    };
    if xxh3_64(body) != u64::from_le_bytes(*expected) {
        return Err(refuse("checksum", "differs".to_owned()));
    }
    let header = bytes.len() - input.left.len();
    input.left = body.get(header..).unwrap_or_default();

    let record = GroupRecord {
        ticket: Ticket(input.u64("ticket")?),
        sample_id: input.text("sample id")?,
        prompt_ids: input.u32s("prompt ids")?,
        images: input.items("images", MIN_IMAGE_BYTES, Reader::image)?,
        temperature: input.f32("temperature")?,
        responses: input.items("responses", MIN_RESPONSE_BYTES, Reader::response)?,
    };
    if !input.left.is_empty() {
        return Err(refuse(
            "end",
            format!("is followed by {} bytes", input.left.len()),
        ));
    }
    record.check()?;
    Ok(record)
}

/// The exact length of `encode(record)`, so that one allocation does.
fn encoded_bytes(record: &GroupRecord) -> usize {
    let images = record
        .images
        .iter()
        .map(|image| MIN_IMAGE_BYTES + image.pixels.len());
    let responses = record.responses.iter().map(|response| {
        let streams = [
            &response.logprobs,
            &response.blank_logprobs,
            &response.entropies,
            &response.blank_entropies,
        ];
        MIN_RESPONSE_BYTES
            + 4 * (response.token_ids.len()
                + streams.iter().map(|stream| stream.len()).sum::<usize>())
    });
    let fixed = 4 + 4 + 8 + 8 + 8 + 8 + 4 + 8 + CHECKSUM_BYTES;
    let lists = record.sample_id.len() + 4 * record.prompt_ids.len();
    fixed + lists + images.sum::<usize>() + responses.sum::<usize>()
}

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn response(&mut self, response: &ResponseRecord) {
        self.u32s(&response.token_ids);
        self.bytes.push(match response.finish_reason {
            FinishReason::Stop => 0,
            FinishReason::Length => 1,
        });
        self.u64(response.first_version.0);
        self.u64(response.last_version.0);
        let Reward {
            total,
            accuracy,
            format,
            overlong,
        } = response.reward;
        for part in [total, accuracy, format, overlong] {
            self.f32(part);
        }
        self.f32s(&response.logprobs);
        self.f32s(&response.blank_logprobs);
        self.f32s(&response.entropies);
        self.f32s(&response.blank_entropies);
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn f32(&mut self, value: f32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn list(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn u32s(&mut self, values: &[u32]) {
        self.u64(values.len() as u64);
        values.iter().for_each(|value| self.u32(*value));
    }

    fn f32s(&mut self, values: &[f32]) {
        self.u64(values.len() as u64);
        values.iter().for_each(|value| self.f32(*value));
    }
}

/// A cursor that takes from the front of `left`; every error names the field that was being read.
struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    fn image(&mut self) -> Result<ImageRecord> {
        Ok(ImageRecord {
            width: self.u32("image width")?,
            height: self.u32("image height")?,
            pixels: self.list("image pixels", 1)?.to_vec(),
        })
    }

    fn response(&mut self) -> Result<ResponseRecord> {
        Ok(ResponseRecord {
            token_ids: self.u32s("response tokens")?,
            finish_reason: match self.array::<1>("finish reason")? {
                [0] => FinishReason::Stop,
                [1] => FinishReason::Length,
                [other] => return Err(refuse("finish reason", format!("{other} is unknown"))),
            },
            first_version: PolicyVersion(self.u64("first version")?),
            last_version: PolicyVersion(self.u64("last version")?),
            reward: Reward {
                total: self.f32("reward")?,
                accuracy: self.f32("reward")?,
                format: self.f32("reward")?,
                overlong: self.f32("reward")?,
            },
            logprobs: self.f32s("logprobs")?,
            blank_logprobs: self.f32s("blank logprobs")?,
            entropies: self.f32s("entropies")?,
            blank_entropies: self.f32s("blank entropies")?,
        })
    }

    fn take(&mut self, field: &'static str, count: usize) -> Result<&'a [u8]> {
        let Some((taken, left)) = self.left.split_at_checked(count) else {
            let reason = format!("needs {count} bytes, {} are left", self.left.len());
            return Err(refuse(field, reason));
        };
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        let Some((taken, left)) = self.left.split_first_chunk::<N>() else {
            return Err(refuse(field, "is cut off".to_owned()));
        };
        self.left = left;
        Ok(*taken)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &'static str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    fn f32(&mut self, field: &'static str) -> Result<f32> {
        Ok(f32::from_le_bytes(self.array(field)?))
    }

    /// A list's length, when the bytes left can hold that many items of `item_bytes` or more.
    fn length(&mut self, field: &'static str, item_bytes: usize) -> Result<usize> {
        let length = self.u64(field)?;
        let most = self.left.len() / item_bytes;
        match usize::try_from(length) {
            Ok(length) if length <= most => Ok(length),
            _ => Err(refuse(
                field,
                format!("claim {length} items where {most} fit"),
            )),
        }
    }

    /// The bytes of a list of items of exactly `item_bytes`.
    fn list(&mut self, field: &'static str, item_bytes: usize) -> Result<&'a [u8]> {
        let length = self.length(field, item_bytes)?;
        self.take(field, length * item_bytes)
    }

    fn u32s(&mut self, field: &'static str) -> Result<Vec<u32>> {
        let (words, _) = self.list(field, 4)?.as_chunks::<4>();
        Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    fn f32s(&mut self, field: &'static str) -> Result<Vec<f32>> {
        let (words, _) = self.list(field, 4)?.as_chunks::<4>();
        Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }

    fn text(&mut self, field: &'static str) -> Result<String> {
        let bytes = self.list(field, 1)?;
        let text = std::str::from_utf8(bytes);
        Ok(text
            .map_err(|error| refuse(field, error.to_string()))?
            .to_owned())
    }

    fn items<T>(
        &mut self,
        field: &'static str,
        min_bytes: usize,
        item: impl Fn(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let length = self.length(field, min_bytes)?;
        (0..length).map(|_| item(self)).collect()
    }
}

fn refuse(field: &'static str, reason: String) -> Error {
    Error::Record { field, reason }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn response() -> impl Strategy<Value = ResponseRecord> {
        let finite = -1e6f32..1e6;
        let rows = vec(
            (
                any::<u32>(),
                finite.clone(),
                finite.clone(),
                finite.clone(),
                finite,
            ),
            0..9,
        );
        let reward = (-2f32..2.0, 0f32..1.0, 0f32..1.0, -1f32..=0.0);
        (rows, any::<bool>(), any::<u32>(), any::<u32>(), reward).prop_map(
            |(rows, stop, version, age, (total, accuracy, format, overlong))| ResponseRecord {
                token_ids: rows.iter().map(|row| row.0).collect(),
                finish_reason: if stop {
                    FinishReason::Stop
                } else {
                    FinishReason::Length
                },
                first_version: PolicyVersion(version.into()),
                last_version: PolicyVersion(u64::from(version) + u64::from(age)),
                reward: Reward {
                    total,
                    accuracy,
                    format,
                    overlong,
                },
                logprobs: rows.iter().map(|row| row.1).collect(),
                blank_logprobs: rows.iter().map(|row| row.2).collect(),
                entropies: rows.iter().map(|row| row.3).collect(),
                blank_entropies: rows.iter().map(|row| row.4).collect(),
            },
        )
    }

    fn image() -> impl Strategy<Value = ImageRecord> {
        (1u32..5, 1u32..5, any::<u8>()).prop_map(|(width, height, value)| ImageRecord {
            width,
            height,
            pixels: vec![value; 3 * width as usize * height as usize],
        })
    }

    fn record() -> impl Strategy<Value = GroupRecord> {
        let prompt = vec(any::<u32>(), 0..20);
        (
            0..=Ticket::MAX.0,
            ".{0,12}",
            prompt,
            vec(image(), 0..3),
            0f32..2.0,
            vec(response(), 0..4),
        )
            .prop_map(
                |(ticket, sample_id, prompt_ids, images, temperature, responses)| GroupRecord {
                    ticket: Ticket(ticket),
                    sample_id,
                    prompt_ids,
                    images,
                    temperature,
                    responses,
                },
            )
    }

    /// Makes the checksum right again, so that what stands behind it is reached.
    fn seal(bytes: &mut [u8]) {
        if let Some((body, checksum)) = bytes.split_last_chunk_mut::<CHECKSUM_BYTES>() {
            *checksum = xxh3_64(body).to_le_bytes();
        }
    }

    proptest! {
        #[test]
        fn a_record_comes_back(record in record()) {
            let bytes = encode(&record);
            prop_assert_eq!(bytes.len(), encoded_bytes(&record));
            prop_assert_eq!(decode(&bytes).unwrap(), record);
        }

        #[test]
        fn a_changed_byte_is_noticed(record in record(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = encode(&record);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn a_cut_record_is_refused(record in record(), at in any::<prop::sample::Index>(), sealed in any::<bool>()) {
            let mut bytes = encode(&record);
            bytes.truncate(at.index(bytes.len()));
            if sealed {
                seal(&mut bytes);
            }
            prop_assert!(decode(&bytes).is_err());
        }

        /// What decodes in spite of mutations is a record like any other; nothing panics or allocates by a wrong length.
        #[test]
        fn mutated_bytes_with_a_right_checksum_never_panic(
            record in record(),
            edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            splice in vec(any::<u8>(), 0..16),
        ) {
            let mut bytes = encode(&record);
            for (at, value) in edits {
                let at = 8 + at.index(bytes.len() - 8);
                bytes[at] = value;
            }
            bytes.extend(splice);
            seal(&mut bytes);
            if let Ok(decoded) = decode(&bytes) {
                prop_assert_eq!(encode(&decoded), bytes);
            }
        }

        #[test]
        fn noise_is_refused(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }

    fn simple() -> GroupRecord {
        GroupRecord {
            ticket: Ticket(7),
            sample_id: "a".to_owned(),
            prompt_ids: vec![1, 2],
            images: vec![ImageRecord {
                width: 1,
                height: 1,
                pixels: vec![1, 2, 3],
            }],
            temperature: 1.0,
            responses: vec![ResponseRecord {
                token_ids: vec![5],
                finish_reason: FinishReason::Stop,
                first_version: PolicyVersion(3),
                last_version: PolicyVersion(3),
                reward: Reward {
                    total: 1.0,
                    accuracy: 1.0,
                    format: 0.0,
                    overlong: 0.0,
                },
                logprobs: vec![-0.5],
                blank_logprobs: vec![-1.5],
                entropies: vec![0.25],
                blank_entropies: vec![0.75],
            }],
        }
    }

    /// The layout is a contract between builds: whoever changes these bytes changes `VERSION`.
    #[test]
    fn the_bytes_of_version_1() {
        let bytes = encode(&simple());
        assert_eq!(bytes.len(), 182);
        assert_eq!(&bytes[..17], b"ToRg\x01\0\0\0\x07\0\0\0\0\0\0\0\x01");
        assert_eq!(xxh3_64(&bytes), 0, "update me");
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        let mut bytes = encode(&simple());
        // The sample id's length stands behind magic, version and ticket.
        for claimed in [u64::MAX, u64::MAX / 4, 1 << 40, 200] {
            bytes[16..24].copy_from_slice(&claimed.to_le_bytes());
            seal(&mut bytes);
            let error = decode(&bytes).unwrap_err().to_string();
            assert!(
                error.contains("sample id claim") && error.contains("items where"),
                "{error}"
            );
        }
    }

    #[test]
    fn values_that_no_rollout_may_send_are_refused() {
        let refused = |change: &dyn Fn(&mut GroupRecord), why: &str| {
            let mut record = simple();
            change(&mut record);
            let error = decode(&encode(&record)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused(
            &|record| record.responses[0].entropies[0] = f32::NAN,
            "entropies [0] is NaN",
        );
        refused(
            &|record| record.responses[0].reward.total = f32::INFINITY,
            "reward [0] is inf",
        );
        refused(
            &|record| record.responses[0].logprobs.clear(),
            "logprobs have 0 values for 1 tokens",
        );
        refused(
            &|record| record.responses[0].first_version = PolicyVersion(4),
            "v4 comes after v3",
        );
        refused(
            &|record| record.images[0].width = 2,
            "image of 2 x 1 pixels has 3 bytes",
        );
        refused(
            &|record| record.temperature = -1.0,
            "temperature -1 is negative",
        );
        refused(
            &|record| record.ticket = Ticket(1 << 48),
            "ticket 281474976710656 is too large",
        );
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encode(&simple());
        bytes[4] = 9;
        let error = decode(&bytes).unwrap_err().to_string();
        assert!(error.contains("is 9, expected 1"), "{error}");
    }
}
