//! A group record as bytes, and back from bytes that nobody vouches for.
//!
//! Little-endian: magic `u32`, layout version `u32`, body, xxh3-64 of everything before it. In the body a list is its
//! length as `u64` and then its items, fields in the order of `record.rs`. Decoding checks magic, version and checksum,
//! takes no length for granted (a list is allocated only when the bytes left can hold it), accepts no byte too many, and
//! ends with `GroupRecord::check`.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::ids::{PolicyVersion, Ticket};
use crate::record::{FinishReason, GroupRecord, ImageRecord, Precision, ResponseRecord, Reward};

const MAGIC: u32 = u32::from_le_bytes(*b"ToRg");
const VERSION: u32 = 3;
const CHECKSUM_BYTES: usize = 8;
/// Fewest bytes that an image, a response take: what bounds the length of their lists.
const MIN_IMAGE_BYTES: usize = 4 + 4 + 8;
const MIN_RESPONSE_BYTES: usize = 8 + 1 + 8 + 8 + REWARD_BYTES + 4 * 8;
const REWARD_BYTES: usize = 4 * 4;

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
    out.bytes.push(match record.precision {
        Precision::F32 => 0,
        Precision::Int8 => 1,
        Precision::Int8Head => 2,
        Precision::Bf16 => 3,
    });
    match &record.greedy_reward {
        Some(reward) => {
            out.bytes.push(1);
            out.reward(reward);
        }
        None => out.bytes.push(0),
    }
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
        precision: match input.array::<1>("precision")? {
            [0] => Precision::F32,
            [1] => Precision::Int8,
            [2] => Precision::Int8Head,
            [3] => Precision::Bf16,
            [other] => return Err(refuse("precision", format!("{other} is unknown"))),
        },
        greedy_reward: match input.array::<1>("greedy reward")? {
            [0] => None,
            [1] => Some(input.reward("greedy reward")?),
            [other] => {
                return Err(refuse(
                    "greedy reward",
                    format!("of kind {other} is unknown"),
                ));
            }
        },
        responses: input.items("responses", MIN_RESPONSE_BYTES, Reader::response)?,
    };
    if !input.left.is_empty() {
        return Err(refuse(
            "end",
            format!("is followed by {} bytes", input.left.len()),
        ));
    }
    match record.check() {
        Ok(()) => Ok(record),
        Err(Error::Record { field, reason }) => Err(refuse(
            field,
            format!("{reason} in sample {}", short(&record.sample_id)),
        )),
        Err(other) => Err(other),
    }
}

/// A sample's name in quotes, on one line and not longer than one can read.
fn short(sample_id: &str) -> String {
    const MAX_CHARS: usize = 80;
    let start: String = sample_id.chars().take(MAX_CHARS).collect();
    format!("{start:?}")
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
    let greedy = record.greedy_reward.map_or(0, |_| REWARD_BYTES);
    let fixed = 4 + 4 + 8 + 8 + 8 + 8 + 4 + 1 + 1 + greedy + 8 + CHECKSUM_BYTES;
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
        self.reward(&response.reward);
        self.f32s(&response.logprobs);
        self.f32s(&response.blank_logprobs);
        self.f32s(&response.entropies);
        self.f32s(&response.blank_entropies);
    }

    fn reward(&mut self, reward: &Reward) {
        reward.parts().into_iter().for_each(|part| self.f32(part));
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
            reward: self.reward("reward")?,
            logprobs: self.f32s("logprobs")?,
            blank_logprobs: self.f32s("blank logprobs")?,
            entropies: self.f32s("entropies")?,
            blank_entropies: self.f32s("blank entropies")?,
        })
    }

    fn reward(&mut self, field: &'static str) -> Result<Reward> {
        Ok(Reward {
            total: self.f32(field)?,
            accuracy: self.f32(field)?,
            format: self.f32(field)?,
            overlong: self.f32(field)?,
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
mod tests;
