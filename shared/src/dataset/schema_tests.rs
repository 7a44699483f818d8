//! The schemas of the field, mixtures, and rows that are refused.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;

/// A column of [`write`]: values with their definition and repetition levels.
enum Values<'a> {
    Bytes(Vec<ByteArray>, &'a [i16], &'a [i16]),
    Doubles(Vec<f64>),
}

fn texts(values: &[&str]) -> Vec<ByteArray> {
    values.iter().map(|value| ByteArray::from(*value)).collect()
}

fn write(path: &Path, schema: &str, columns: &[Values]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .build();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for values in columns {
        let mut column = group.next_column().unwrap().unwrap();
        match values {
            Values::Bytes(values, definitions, repetitions) => column
                .typed::<ByteArrayType>()
                .write_batch(values, Some(definitions), Some(repetitions)),
            Values::Doubles(values) => column.typed::<DoubleType>().write_batch(values, None, None),
        }
        .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

fn open(spec: &str, keys: &DataKeys) -> Result<Dataset> {
    Dataset::open_with(spec, keys, &DatasetLimits::default())
}

/// TIGER-Lab/ViRL39K: `question`, `answer` in a box, `image` as paths in a folder beside the file, `qid`.
fn write_virl(path: &Path) {
    let schema = "message schema {
        required binary question (STRING); required binary answer (STRING); optional double PassRate_32BTrained;
        optional group image (LIST) { repeated group list { optional binary element (STRING); } }
        required binary qid (STRING); }"
        .replace("optional double", "required double");
    write(
        path,
        &schema,
        &[
            Values::Bytes(
                texts(&[
                    "<image>How long?",
                    "<image> or <image>?",
                    "What is 1+1?",
                    "<image>",
                ]),
                &[0; 4],
                &[0; 4],
            ),
            Values::Bytes(
                texts(&[
                    r"\boxed{2 \sqrt{221}}",
                    r"\boxed{A}",
                    r"\boxed{2}",
                    r"\boxed{B}",
                ]),
                &[0; 4],
                &[0; 4],
            ),
            Values::Doubles(vec![0.5, -1.0, 1.0, 0.0]),
            // One image, two, an empty list, one that leads out.
            Values::Bytes(
                texts(&[
                    "images/a.png",
                    "images/a.png",
                    "images/b.png",
                    "../secret.png",
                ]),
                &[3, 3, 3, 1, 3],
                &[0, 0, 1, 0, 0],
            ),
            Values::Bytes(texts(&["q0", "q1", "q2", "q3"]), &[0; 4], &[0; 4]),
        ],
    );
}

#[test]
fn virl39k() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("set");
    fs::create_dir_all(folder.join("images")).unwrap();
    fs::write(root.path().join("secret.png"), "secret").unwrap();
    fs::write(folder.join("images/a.png"), "A").unwrap();
    fs::write(folder.join("images/b.png"), "B").unwrap();
    let path = folder.join("39Krelease.parquet");
    write_virl(&path);
    let dataset = open(&format!("{}@train", folder.display()), &DataKeys::default()).unwrap();
    let row = |index| dataset.get(index);
    let first = row(0).unwrap();
    assert_eq!(
        (
            first.id.as_str(),
            first.problem.as_str(),
            first.answer.as_str()
        ),
        ("q0", "<image>How long?", r"2 \sqrt{221}")
    );
    assert_eq!(first.images, [b"A".to_vec()]);
    let second = row(1).unwrap();
    assert_eq!(
        (second.answer.as_str(), second.images),
        ("A", vec![b"A".to_vec(), b"B".to_vec()])
    );
    assert!(row(2).unwrap().images.is_empty());
    assert_eq!(
        row(3).unwrap_err().to_string(),
        "sample q3 (39Krelease.parquet#3): image \"../secret.png\": its path leads out of the data set's folder"
    );

    let columns = &dataset.files()[0].columns;
    let short: Vec<_> = columns
        .iter()
        .map(|c| (c.name.as_str(), c.kind.as_str(), c.used_as))
        .collect();
    assert_eq!(
        short,
        [
            ("question", "string", Some("prompt")),
            ("answer", "string", Some("answer")),
            ("PassRate_32BTrained", "double", None),
            ("image", "list of string", Some("images")),
            ("qid", "string", Some("id")),
        ]
    );

    // The archive of images was unpacked elsewhere.
    fs::rename(folder.join("images"), root.path().join("images")).unwrap();
    let message = row(0).unwrap_err().to_string();
    assert!(
        message.contains("name their folder with --image-dir"),
        "{message}"
    );
    let keys = DataKeys {
        image_dir: Some(root.path().to_owned()),
        ..DataKeys::default()
    };
    let dataset = open(path.to_str().unwrap(), &keys).unwrap();
    assert_eq!(dataset.get(1).unwrap().images.len(), 2);
    // A number is an answer as well.
    let keys = DataKeys {
        answer: Some("PassRate_32BTrained".to_owned()),
        ..keys
    };
    assert_eq!(
        open(path.to_str().unwrap(), &keys)
            .unwrap()
            .get(0)
            .unwrap()
            .answer,
        "0.5"
    );
}

#[test]
fn columns_of_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    // As verl writes its rule-based data: the answer within a group.
    let schema = "message schema { required binary text (STRING);
        required group reward_model { required binary style (STRING); required binary ground_truth (STRING); }
        required group figure { optional binary bytes; optional binary path (STRING); } }";
    let columns = [
        Values::Bytes(texts(&["<image>a", "<image>b"]), &[0; 2], &[0; 2]),
        Values::Bytes(texts(&["rule", "rule"]), &[0; 2], &[0; 2]),
        Values::Bytes(texts(&["1", "2"]), &[0; 2], &[0; 2]),
        Values::Bytes(texts(&["inside"]), &[1, 0], &[0; 2]),
        Values::Bytes(texts(&["b.png"]), &[0, 1], &[0; 2]),
    ];
    write(&path, schema, &columns);
    fs::write(folder.path().join("b.png"), "beside").unwrap();
    let spec = path.to_str().unwrap();
    let name = |name: &str| Some(name.to_owned());
    let keys = DataKeys {
        prompt: name("text"),
        answer: name("reward_model.ground_truth"),
        images: name("figure"),
        image_dir: None,
    };
    let dataset = open(spec, &keys).unwrap();
    let rows: Vec<Sample> = (0..2).map(|index| dataset.get(index).unwrap()).collect();
    assert_eq!(
        (rows[0].answer.as_str(), rows[0].images.as_slice()),
        ("1", [b"inside".to_vec()].as_slice())
    );
    assert_eq!(
        (rows[1].answer.as_str(), rows[1].images.as_slice()),
        ("2", [b"beside".to_vec()].as_slice())
    );
    for (keys, said) in [
        (
            DataKeys {
                prompt: name("txt"),
                ..keys.clone()
            },
            "no column \"txt\"; did you mean \"text\"? (--prompt-key NAME",
        ),
        (
            DataKeys {
                answer: name("reward_model"),
                ..keys.clone()
            },
            "column \"reward_model\" is not one string per row",
        ),
        (
            DataKeys {
                images: name("images"),
                ..keys.clone()
            },
            "no column \"images\" (--image-key NAME",
        ),
        (
            DataKeys {
                images: name("reward_model"),
                ..keys.clone()
            },
            "has no field \"bytes\" nor \"path\"",
        ),
    ] {
        let message = open(spec, &keys).err().unwrap().to_string();
        assert!(message.contains(said), "{message}");
    }

    let path = folder.path().join("x.jsonl");
    fs::write(
        &path,
        r#"{"q": {"text": "<image>?"}, "gold": 5, "pic": {"bytes": null, "path": "b.png"}}"#,
    )
    .unwrap();
    let keys = DataKeys {
        prompt: name("q.text"),
        answer: name("gold"),
        images: name("pic"),
        image_dir: None,
    };
    let dataset = open(path.to_str().unwrap(), &keys).unwrap();
    let row = dataset.get(0).unwrap();
    assert_eq!(
        (row.problem.as_str(), row.answer.as_str(), row.images.len()),
        ("<image>?", "5", 1)
    );
    let used: Vec<_> = dataset.files()[0]
        .columns
        .iter()
        .map(|c| c.used_as)
        .collect();
    assert_eq!(used, [Some("prompt"), Some("answer"), Some("images")]);
    let message = open(
        path.to_str().unwrap(),
        &DataKeys {
            answer: name("golt"),
            ..keys
        },
    )
    .err()
    .unwrap();
    assert!(
        message.to_string().ends_with(
            "x.jsonl: no column \"golt\"; did you mean \"gold\"? (--answer-key NAME chooses another); it has q, gold, pic"
        ),
        "{message}"
    );
}

#[test]
fn raw_geometry3k_folders() {
    let root = tempfile::tempdir().unwrap();
    let problem = |number: &str, answer: &str| {
        let folder = root.path().join("test").join(number);
        fs::create_dir_all(&folder).unwrap();
        let json = format!(
            r#"{{"id": {number}, "annotat_text": "Find $x$.", "choices": ["1", "2 \\sqrt {{ 221 }}", "3", "4"], "answer": "{answer}"}}"#
        );
        fs::write(folder.join("data.json"), json).unwrap();
        fs::write(folder.join("img_diagram.png"), number).unwrap();
    };
    problem("2401", "B");
    problem("300", "A");
    problem("2402", "F");
    fs::create_dir(root.path().join("test/logs")).unwrap();
    for spec in [
        format!("{}@test", root.path().display()),
        format!("{}/test", root.path().display()),
    ] {
        let dataset = open(&spec, &DataKeys::default()).unwrap();
        assert_eq!(dataset.len(), 3);
        let row = dataset.get(1).unwrap();
        assert_eq!(
            (row.id.as_str(), row.problem.as_str(), row.answer.as_str()),
            ("test/2401", "<image>Find $x$.", r"2 \sqrt { 221 }")
        );
        assert_eq!(row.images, [b"2401".to_vec()]);
        assert_eq!(dataset.get(0).unwrap().id, "test/300");
        assert_eq!(
            dataset.get(2).unwrap_err().to_string(),
            "sample test/2402: data.json: its answer is F, of 4 choices"
        );
    }
    let elsewhere = root.path().join("secret.png");
    fs::write(&elsewhere, "secret").unwrap();
    let diagram = root.path().join("test/300/img_diagram.png");
    fs::remove_file(&diagram).unwrap();
    symlink(&elsewhere, &diagram).unwrap();
    let dataset = open(
        &format!("{}/test", root.path().display()),
        &DataKeys::default(),
    )
    .unwrap();
    let message = dataset.get(0).unwrap_err().to_string();
    assert!(
        message.contains("test/300: img_diagram.png: its path leads out"),
        "{message}"
    );
}

#[test]
fn several_files_with_weights() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, rows: usize| {
        let path = folder.path().join(name);
        let lines: Vec<_> = (0..rows)
            .map(|row| format!(r#"{{"problem": "{name}", "answer": {row}}}"#))
            .collect();
        fs::write(&path, lines.join("\n")).unwrap();
        path.display().to_string()
    };
    let (a, b) = (file("a.jsonl", 3), file("b.jsonl", 5));
    let dataset = open(&format!("{a}=2,{b}=0.5"), &DataKeys::default()).unwrap();
    assert_eq!(dataset.len(), 8);
    let parts: Vec<_> = dataset
        .parts()
        .iter()
        .map(|part| (part.source.clone(), part.start, part.rows, part.visits))
        .collect();
    assert_eq!(parts, [(a.clone(), 0, 3, 6), (b.clone(), 3, 5, 3)]);
    let row = dataset.get(4).unwrap();
    assert_eq!((row.id.as_str(), row.answer.as_str()), ("b.jsonl#1", "1"));
    let limits = DatasetLimits {
        max_rows: 20,
        ..DatasetLimits::default()
    };
    let message = Dataset::open(&format!("{a}=9,{b}"), &limits)
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("an epoch of more than 20 rows"),
        "{message}"
    );
}

#[test]
fn a_row_of_100_mb_is_refused_and_the_others_stay() {
    const HUGE: usize = 100 << 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.jsonl");
    let mut file = File::create(&path).unwrap();
    let good = "{\"problem\": \"x\", \"answer\": \"1\"}\n";
    file.write_all(good.as_bytes()).unwrap();
    file.set_len((good.len() + HUGE) as u64).unwrap(); // a hole: a line of zeros
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(format!("\n{good}").as_bytes())
        .unwrap();
    let dataset = open(path.to_str().unwrap(), &DataKeys::default()).unwrap();
    assert_eq!(dataset.len(), 3);
    assert!(dataset.get(0).is_ok() && dataset.get(2).is_ok());
    assert_eq!(
        dataset.get(1).unwrap_err().to_string(),
        "sample train.jsonl#1: its line has 104857601 bytes, at most 4194304 allowed"
    );

    // Small in the file, large when unpacked.
    let path = folder.path().join("train.parquet");
    let schema = "message schema { required binary problem (STRING); required binary answer (STRING); required binary image; }";
    let huge = ByteArray::from(vec![0; HUGE]);
    write(
        &path,
        schema,
        &[
            Values::Bytes(texts(&["<image>", "<image>"]), &[0; 2], &[0; 2]),
            Values::Bytes(texts(&["1", "2"]), &[0; 2], &[0; 2]),
            Values::Bytes(vec![ByteArray::from("png"), huge], &[0; 2], &[0; 2]),
        ],
    );
    let dataset = open(path.to_str().unwrap(), &DataKeys::default()).unwrap();
    assert_eq!(dataset.get(0).unwrap().images, [b"png".to_vec()]);
    assert_eq!(
        dataset.get(1).unwrap_err().to_string(),
        "sample train.parquet#1: image 0 has 104857600 bytes, at most 67108864 allowed"
    );
}

/// `hf download` fills a cache in which every file of the repository is a link to a blob; other links lead out.
#[test]
fn images_in_the_hubs_cache_are_links_within_the_repository() {
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("datasets--o--n");
    let snapshot = repository.join("snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir(repository.join("blobs")).unwrap();
    fs::write(repository.join("blobs/1"), "image").unwrap();
    fs::write(cache.path().join("other"), "secret").unwrap();
    symlink("../../blobs/1", snapshot.join("in.png")).unwrap();
    symlink("../../../other", snapshot.join("out.png")).unwrap();
    let lines = ["in.png", "out.png"]
        .map(|name| format!(r#"{{"problem": "<image>", "answer": "1", "image": "{name}"}}"#));
    fs::write(snapshot.join("train.jsonl"), lines.join("\n")).unwrap();
    let dataset = open(snapshot.to_str().unwrap(), &DataKeys::default()).unwrap();
    assert_eq!(dataset.get(0).unwrap().images, [b"image".to_vec()]);
    assert!(
        dataset
            .get(1)
            .unwrap_err()
            .to_string()
            .contains("leads out")
    );
}
