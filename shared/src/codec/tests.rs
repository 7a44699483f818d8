//! The codec against records of all shapes, and against bytes of none.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn reward() -> impl Strategy<Value = Reward> {
    (-2f32..2.0, 0f32..1.0, 0f32..1.0, -1f32..=0.0).prop_map(
        |(total, accuracy, format, overlong)| Reward {
            total,
            accuracy,
            format,
            overlong,
        },
    )
}

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
    (rows, any::<bool>(), any::<u32>(), any::<u32>(), reward()).prop_map(
        |(rows, stop, version, age, reward)| ResponseRecord {
            token_ids: rows.iter().map(|row| row.0).collect(),
            finish_reason: if stop {
                FinishReason::Stop
            } else {
                FinishReason::Length
            },
            first_version: PolicyVersion(version.into()),
            last_version: PolicyVersion(u64::from(version) + u64::from(age)),
            reward,
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
        prop_oneof![
            Just(Precision::F32),
            Just(Precision::Int8),
            Just(Precision::Int8Head),
            Just(Precision::Bf16)
        ],
        (prop::option::of(reward()), vec(response(), 0..4)),
    )
        .prop_map(
            |(
                ticket,
                sample_id,
                prompt_ids,
                images,
                temperature,
                precision,
                (greedy_reward, responses),
            )| {
                GroupRecord {
                    ticket: Ticket(ticket),
                    sample_id,
                    prompt_ids,
                    images,
                    temperature,
                    precision,
                    greedy_reward,
                    responses,
                }
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
        precision: Precision::Int8,
        greedy_reward: Some(Reward {
            total: 0.9,
            accuracy: 1.0,
            format: 0.0,
            overlong: -0.1,
        }),
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
fn the_bytes_of_version_3() {
    let bytes = encode(&simple());
    assert_eq!(bytes.len(), 199);
    assert_eq!(&bytes[..17], b"ToRg\x03\0\0\0\x07\0\0\0\0\0\0\0\x01");
    assert_eq!(xxh3_64(&bytes), 13_061_950_337_189_116_916);
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
        let sample = format!(" in sample {:?}", record.sample_id);
        assert!(error.contains(why) && error.ends_with(&sample), "{error}");
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
        &|record| {
            record.greedy_reward = record.greedy_reward.map(|reward| Reward {
                total: f32::NAN,
                ..reward
            });
        },
        "greedy reward [0] is NaN",
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
    assert!(error.contains("is 9, expected 3"), "{error}");
    bytes[4] = 2; // records without a greedy reward
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("is 2, expected 3"), "{error}");
}
