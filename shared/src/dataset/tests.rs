//! Whole data sets through files, good, bad and mutated.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::*;

/// The schema that `datasets` writes for hiyouga/geometry3k, with the two optional columns.
const SCHEMA: &str = "message schema {
    optional group images (LIST) { repeated group list { optional group element {
        optional binary bytes; optional binary path (STRING); } } }
    optional binary problem (STRING); optional binary answer (STRING); optional binary solution (STRING); optional int64 id; }";

/// Four rows: one image, two images, none, one without bytes.
fn write(path: &Path, properties: WriterProperties, row_groups: usize) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let mut writer =
        SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties))
            .unwrap();
    for group in 0..row_groups {
        let mut columns = writer.next_row_group().unwrap();
        let text = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| ByteArray::from(*text))
                .collect::<Vec<_>>()
        };
        let mut bytes = |values: &[ByteArray], definitions: &[i16], repetitions: Option<&[i16]>| {
            let mut column = columns.next_column().unwrap().unwrap();
            column
                .typed::<ByteArrayType>()
                .write_batch(values, Some(definitions), repetitions)
                .unwrap();
            column.close().unwrap();
        };
        let image = |byte: u8| ByteArray::from(vec![byte; 40]);
        let repetitions = [0, 0, 1, 0, 0];
        bytes(
            &[image(1), image(2), image(3)],
            &[4, 4, 4, 1, 3],
            Some(&repetitions),
        );
        bytes(&[], &[3, 3, 3, 1, 3], Some(&repetitions));
        bytes(
            &text(&["<image>a", "<image><image>b", "c", "<image>d"]),
            &[1; 4],
            None,
        );
        bytes(&text(&["1", "2 \\sqrt { 221 }", "3", "4"]), &[1; 4], None);
        bytes(&text(&["so 1"]), &[1, 0, 0, 0], None);
        let mut column = columns.next_column().unwrap().unwrap();
        let first = i64::try_from(group * 4).unwrap();
        column
            .typed::<Int64Type>()
            .write_batch(
                &[first, first + 1, first + 2, first + 3],
                Some(&[1; 4]),
                None,
            )
            .unwrap();
        column.close().unwrap();
        columns.close().unwrap();
    }
    writer.close().unwrap();
}

fn open(path: &Path) -> Result<Dataset> {
    Dataset::open(path.to_str().unwrap(), &DatasetLimits::default())
}

#[test]
fn every_codec_version_and_encoding() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ];
    for codec in codecs {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for dictionary in [true, false] {
                let properties = WriterProperties::builder()
                    .set_compression(codec)
                    .set_writer_version(version)
                    .set_dictionary_enabled(dictionary)
                    .set_encoding(parquet::basic::Encoding::PLAIN)
                    .build();
                write(&path, properties, 3);
                let dataset = open(&path).unwrap();
                assert_eq!(dataset.len(), 12);
                let first = dataset.get(0).unwrap();
                assert_eq!(
                    (
                        first.id.as_str(),
                        first.problem.as_str(),
                        first.answer.as_str()
                    ),
                    ("0", "<image>a", "1")
                );
                assert_eq!(
                    (first.solution.as_deref(), first.images.as_slice()),
                    (Some("so 1"), [vec![1; 40]].as_slice())
                );
                let second = dataset.get(5).unwrap();
                assert_eq!(
                    (second.id.as_str(), second.answer.as_str()),
                    ("5", "2 \\sqrt { 221 }")
                );
                assert_eq!(
                    (second.solution, second.images),
                    (None, vec![vec![2; 40], vec![3; 40]])
                );
                assert!(dataset.get(10).unwrap().images.is_empty());
                let bad = dataset.get(11).unwrap_err();
                assert!(bad.is_sample());
                assert_eq!(
                    bad.to_string(),
                    "sample 11 (train.parquet#11): image 0 has neither bytes nor a path"
                );
                assert!(!dataset.get(12).unwrap_err().is_sample());
            }
        }
    }
}

#[test]
fn limits_are_kept_before_anything_is_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    write(
        &path,
        WriterProperties::builder()
            .set_dictionary_enabled(false)
            .build(),
        1,
    );
    let with = |change: fn(&mut DatasetLimits)| {
        let mut limits = DatasetLimits::default();
        change(&mut limits);
        Dataset::open(path.to_str().unwrap(), &limits).and_then(|dataset| dataset.get(1))
    };
    assert!(with(|_| {}).is_ok());
    assert!(with(|limits| limits.max_rows = 3).is_err());
    assert!(with(|limits| limits.max_footer_bytes = 100).is_err());
    assert!(
        with(|limits| limits.max_page_bytes = 100)
            .unwrap_err()
            .to_string()
            .contains("at most 100 allowed")
    );
    assert!(with(|limits| limits.max_row_group_bytes = 500).is_err());
    assert!(with(|limits| limits.max_row_group_values = 4).is_err());
    assert!(
        with(|limits| limits.max_images = 1)
            .unwrap_err()
            .is_sample()
    );
    assert!(
        with(|limits| limits.max_image_bytes = 39)
            .unwrap_err()
            .is_sample()
    );
    assert!(
        with(|limits| limits.max_text_bytes = 3)
            .unwrap_err()
            .is_sample()
    );
    // A cache smaller than a row group still serves.
    assert!(with(|limits| limits.cache_bytes = 0).is_ok());
}

/// Every third byte of each file, each file another third. A data set of one byte changed is rows or an error; never a panic, and none that the parquet crate had to be caught in.
#[test]
fn bytes_mutated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    let properties = [
        WriterProperties::builder().build(),
        WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .build(),
        WriterProperties::builder()
            .set_compression(Compression::GZIP(GzipLevel::default()))
            .set_dictionary_enabled(false)
            .build(),
    ];
    let mut caught = 0;
    for (which, properties) in properties.into_iter().enumerate() {
        write(&path, properties, 1);
        let good = fs::read(&path).unwrap();
        for position in (which..good.len()).step_by(3) {
            let mut bytes = good.clone();
            bytes[position] ^= [0x81, 0x7f][position % 2];
            caught += try_all(&path, &bytes);
        }
        for length in (0..good.len()).step_by(29) {
            caught += try_all(&path, &good[..length]);
        }
    }
    assert_eq!(caught, 0);
}

fn try_all(path: &Path, bytes: &[u8]) -> usize {
    // Not `fs::write`: it truncates first, and file systems flush a file that was truncated and written again.
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    let errors = match open(path) {
        Ok(dataset) => (0..dataset.len().min(8))
            .filter_map(|index| dataset.get(index).err())
            .collect(),
        Err(error) => vec![error],
    };
    assert!(errors.iter().all(|error| !error.to_string().contains('\n')));
    usize::from(
        errors
            .iter()
            .any(|error| error.to_string().contains("gave up")),
    )
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), is_parquet in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = bytes;
        if is_parquet {
            let length = u32::try_from(bytes.len()).unwrap();
            bytes.extend(length.to_le_bytes());
            bytes.extend(b"PAR1");
        }
        try_all(&folder.path().join(if is_parquet { "x.parquet" } else { "x.jsonl" }), &bytes);
    }
}

#[test]
fn what_is_no_parquet_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    fs::write(&path, "version https://git-lfs.github.com/spec/v1").unwrap();
    let message = open(&path).err().unwrap().to_string();
    assert!(
        message.ends_with("it does not end in PAR1 (an unfinished download?)"),
        "{message}"
    );

    let schema = Arc::new(
        parse_message_type("message m { required binary problm (STRING); required int32 n; }")
            .unwrap(),
    );
    let writer =
        SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::default()).unwrap();
    writer.close().unwrap();
    let message = open(&path).err().unwrap().to_string();
    assert!(
        message.ends_with(
            "no column \"problem\" or \"prompt\" or \"question\"; did you mean \"problm\"? (--prompt-key NAME chooses another); it has problm, n"
        ),
        "{message}"
    );
}

#[test]
fn json_lines_with_images_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("set")).unwrap();
    fs::write(folder.path().join("secret.png"), "secret").unwrap();
    fs::write(folder.path().join("set/a.png"), "image").unwrap();
    std::os::unix::fs::symlink("../secret.png", folder.path().join("set/link.png")).unwrap();
    let path = folder.path().join("set/train.jsonl");
    let lines = [
        r#"{"problem": "<image>x?", "answer": 3, "images": ["a.png"], "id": "first", "more": 1}"#,
        "",
        r#"{"prompt": "y?", "answer": "4", "solution": "so"}"#,
        r#"{"problem": "<image>", "answer": "5", "images": "../secret.png"}"#,
        r#"{"problem": "<image>", "answer": "6", "images": ["link.png"]}"#,
        r#"{"problem": "<image>", "answer": "7", "images": ["/etc/passwd"]}"#,
        r#"{"problem": "#,
        r#"{"problem": "z", "answer": " "}"#,
    ];
    fs::write(&path, lines.join("\n")).unwrap();
    let dataset = open(&path).unwrap();
    assert_eq!(dataset.len(), 7);
    let first = dataset.get(0).unwrap();
    assert_eq!(
        (first.id.as_str(), first.answer.as_str(), first.images),
        ("first", "3", vec![b"image".to_vec()])
    );
    let second = dataset.get(1).unwrap();
    assert_eq!(
        (
            second.id.as_str(),
            second.problem.as_str(),
            second.solution.as_deref()
        ),
        ("train.jsonl#1", "y?", Some("so"))
    );
    for index in 2..7 {
        let error = dataset.get(index).unwrap_err();
        assert!(
            error.is_sample() && error.to_string().contains(&format!("train.jsonl#{index}")),
            "{error}"
        );
    }
    assert!(
        dataset
            .get(2)
            .unwrap_err()
            .to_string()
            .contains("out of the data set's folder")
    );
    assert!(
        dataset
            .get(3)
            .unwrap_err()
            .to_string()
            .contains("out of the data set's folder")
    );

    fs::write(&path, "").unwrap();
    assert!(open(&path).err().unwrap().to_string().contains("no rows"));
}
