//! Small files in each published schema, and scores that were worked out by hand.

use std::fs::{self, File};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, StructArray,
};
use parquet::arrow::ArrowWriter;
use serde_json::json;

use super::super::question::Kind;
use super::*;
use crate::reward::Verifier;

pub(super) const IMAGE: &[u8] = b"the bytes of an image";

pub(super) fn write(folder: &Path, name: &str, rows: &serde_json::Value) -> String {
    let path = folder.join(name);
    fs::write(&path, rows.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

pub(super) fn write_image(folder: &Path, name: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, IMAGE).unwrap();
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn lists(values: &[&[&str]]) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for list in values {
        builder.append_value(list.iter().map(|text| Some(*text)));
    }
    Arc::new(builder.finish())
}

/// The hub's images: bytes and a name.
fn images(count: usize) -> ArrayRef {
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![IMAGE; count]));
    let paths = texts(&vec!["1.png"; count]);
    let fields = [("bytes", bytes), ("path", paths)];
    Arc::new(StructArray::try_from(fields.to_vec()).unwrap())
}

/// The verdicts on one response to each question.
pub(super) fn verdicts(
    benchmark: Benchmark,
    questions: &[Question],
    responses: &[&str],
) -> Vec<bool> {
    assert_eq!(questions.len(), responses.len());
    let pairs = questions.iter().zip(responses);
    pairs
        .map(|(question, response)| {
            benchmark
                .score(question, response, &Verifier::default())
                .is_right()
        })
        .collect()
}

#[test]
fn mathverse() {
    let folder = tempfile::tempdir().unwrap();
    write_image(folder.path(), "images/images_version_1-4/image_1.png");
    let row = |index: &str, version: &str, kind: &str, question: &str, answer: &str| {
        json!({"sample_index": index, "problem_index": "1", "problem_version": version, "question": question,
            "image": "images_version_1-4/image_1.png", "answer": answer, "question_type": kind,
            "metadata": {"split": "testmini", "source": "geoqa", "subject": "Plane Geometry", "subfield": "Length"},
            "query_wo": "...", "query_cot": format!("Please reason. Question: {question}"), "question_for_eval": question})
    };
    let choices = "How long is AB?\nChoices:\nA:12\nB:10\nC:8\nD:6";
    let rows = json!([
        row("1", "Text Dominant", "multi-choice", choices, "B"),
        row(
            "2",
            "Vision Only",
            "free-form",
            "How long is BC?",
            "\\frac{1}{2}"
        ),
    ]);
    let path = write(folder.path(), "testmini.json", &rows);
    // The folder will do as well.
    for spec in [path.as_str(), folder.path().to_str().unwrap()] {
        let (table, questions) = Benchmark::MathVerse.open(spec, Options::default()).unwrap();
        assert_eq!(
            questions[0].text,
            format!("Please reason. Question: {choices}")
        );
        assert_eq!(questions[0].choices, ["12", "10", "8", "6"]);
        assert_eq!(questions[1].group("problem version"), "Vision Only");
        assert_eq!(questions[1].group("subfield"), "Length");
        assert_eq!(questions[1].cluster, "1");
        assert_eq!(table.images(&questions[0]).unwrap(), [IMAGE]);
        let score = |responses| verdicts(Benchmark::MathVerse, &questions, responses);
        assert_eq!(score(&[r"\boxed{B}", r"\boxed{0.5}"]), [true, true]);
        // The paper's code cuts a box at its first brace; a whole fraction is read here.
        assert_eq!(
            score(&[r"\boxed{10}", r"\boxed{\frac{1}{2}}"]),
            [true, true]
        );
        assert_eq!(score(&[r"\boxed{12}", "0.5"]), [false, false]);
    }
    // With another folder of images.
    let elsewhere = tempfile::tempdir().unwrap();
    let options = Options {
        image_dir: Some(elsewhere.path()),
        ..Options::default()
    };
    let (table, questions) = Benchmark::MathVerse.open(&path, options).unwrap();
    let reason = table.images(&questions[0]).unwrap_err();
    assert!(
        reason.starts_with("image images_version_1-4/image_1.png: not in"),
        "{reason}"
    );
}

#[test]
fn mathvision_tsv_and_parquet() {
    let folder = tempfile::tempdir().unwrap();
    write_image(folder.path(), "images/1.jpg");
    let path = folder.path().join("MathVision.tsv");
    let tsv = "index\tquestion\tanswer\tcategory\tchoices\tlevel\n\
        1\t\"Which \"\"one\"\"?\n<image1>\"\tB\talgebra\t\"['3', '4']\"\t2\n\
        2\tHow many?\t7\tcounting\t[]\t5\n";
    fs::write(&path, tsv).unwrap();
    let spec = path.to_str().unwrap();
    let (table, questions) = Benchmark::MathVision
        .open(spec, Options::default())
        .unwrap();
    assert_eq!(
        questions[0].text,
        "Which \"one\"?\n<image1>\nChoices:\n(A) 3\n(B) 4"
    );
    assert_eq!(
        (questions[1].kind, questions[1].group("level")),
        (Kind::Free, "5")
    );
    assert_eq!(table.images(&questions[0]).unwrap(), [IMAGE]);
    assert!(table.images(&questions[1]).is_err());
    let paper = Options {
        as_paper: true,
        ..Options::default()
    };
    let (_, as_paper) = Benchmark::MathVision.open(spec, paper).unwrap();
    assert_eq!(as_paper[0].text, "Which \"one\"?\n<image1>");
    // The letter, or the text of the option.
    let score = |responses| verdicts(Benchmark::MathVision, &questions, responses);
    assert_eq!(score(&[r"\boxed{B}", r"\boxed{7.0}"]), [true, true]);
    assert_eq!(score(&[r"\boxed{4}", r"\boxed{8}"]), [true, false]);

    let path = folder.path().join("test.parquet");
    write_parquet(
        &path,
        vec![
            ("id", texts(&["1", "2"])),
            ("question", texts(&["Which?\n<image1>", "How many?"])),
            ("options", lists(&[&["3", "4"], &[]])),
            ("image", texts(&["images/1.jpg", "images/2.jpg"])),
            ("decoded_image", images(2)),
            ("answer", texts(&["B", "7"])),
            ("level", Arc::new(Int64Array::from(vec![2, 5])) as ArrayRef),
            ("subject", texts(&["algebra", "counting"])),
        ],
    );
    let (table, questions) = Benchmark::MathVision
        .open(path.to_str().unwrap(), Options::default())
        .unwrap();
    assert_eq!(questions[0].choices, ["3", "4"]);
    assert_eq!(
        (questions[1].group("subject"), questions[1].group("level")),
        ("counting", "5")
    );
    assert_eq!(table.images(&questions[1]).unwrap(), [IMAGE]);
}

#[test]
fn mathvision_with_images_in_base64() {
    use base64::Engine as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("MathVision.tsv");
    let bytes = vec![7; 600];
    let encoded = base64::engine::general_purpose::STANDARD.encode(&bytes);
    fs::write(
        &path,
        format!("index\timage\tquestion\tanswer\tcategory\n1\t{encoded}\tWhich?\tB\talgebra\n"),
    )
    .unwrap();
    let (table, questions) = Benchmark::MathVision
        .open(path.to_str().unwrap(), Options::default())
        .unwrap();
    assert_eq!(table.images(&questions[0]).unwrap(), [bytes]);
}

#[test]
fn mathvista_parquet_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("testmini-00000-of-00001.parquet");
    let metadata = StructArray::try_from(vec![
        (
            "task",
            texts(&[
                "geometry problem solving",
                "figure question answering",
                "math word problem",
            ]),
        ),
        (
            "skills",
            lists(&[
                &["geometry reasoning", "algebraic reasoning"],
                &["statistical reasoning"],
                &[],
            ]),
        ),
    ]);
    write_parquet(
        &path,
        vec![
            ("pid", texts(&["1", "2", "3"])),
            ("question", texts(&["Which?", "How much?", "How many?"])),
            (
                "image",
                texts(&["images/1.jpg", "images/2.jpg", "images/3.jpg"]),
            ),
            ("decoded_image", images(3)),
            ("choices", lists(&[&["triangle", "square"], &[], &[]])),
            (
                "unit",
                Arc::new(StringArray::from(vec![None::<&str>; 3])) as ArrayRef,
            ),
            (
                "precision",
                Arc::new(Float64Array::from(vec![None, Some(1.0), None])) as ArrayRef,
            ),
            ("answer", texts(&["square", "1.2", "14"])),
            (
                "question_type",
                texts(&["multi_choice", "free_form", "free_form"]),
            ),
            ("answer_type", texts(&["text", "float", "integer"])),
            ("metadata", Arc::new(metadata.unwrap()) as ArrayRef),
            (
                "query",
                texts(&[
                    "Hint: ...\nQuestion: Which?\nChoices:\n(A) triangle\n(B) square",
                    "Hint: ...",
                    "Hint: ...",
                ]),
            ),
        ],
    );
    let (table, questions) = Benchmark::MathVista
        .open(path.to_str().unwrap(), Options::default())
        .unwrap();
    assert!(questions[0].text.starts_with("Hint: ...\nQuestion: Which?"));
    assert_eq!(
        (questions[0].answer.as_str(), questions[0].kind),
        ("B", Kind::Choice)
    );
    assert_eq!(
        (questions[1].kind, questions[2].kind),
        (Kind::Float(1), Kind::Integer)
    );
    assert_eq!(
        questions[0].groups["skill"],
        ["geometry reasoning", "algebraic reasoning"]
    );
    assert_eq!(questions[1].group("task"), "figure question answering");
    assert_eq!(table.images(&questions[2]).unwrap(), [IMAGE]);
    let score = |responses| verdicts(Benchmark::MathVista, &questions, responses);
    assert_eq!(
        score(&[r"\boxed{B}", r"\boxed{1.23}", r"\boxed{14.0}"]),
        [true, true, true]
    );
    assert_eq!(
        score(&[r"\boxed{squares}", r"\boxed{1.26}", r"\boxed{15}"]),
        [true, false, false]
    );

    // Its authors' own file: an object of objects, images as files.
    let row = json!({"question": "Which?", "image": "images/1.jpg", "choices": ["triangle", "square"], "unit": null,
        "precision": null, "answer": "triangle", "question_type": "multi_choice", "answer_type": "text",
        "metadata": {"task": "t", "skills": ["s"]}, "query": "Question: Which?"});
    let path = write(folder.path(), "testmini.json", &json!({"7": row}));
    let (_, questions) = Benchmark::MathVista
        .open(&path, Options::default())
        .unwrap();
    assert_eq!(
        (questions[0].id.as_str(), questions[0].answer.as_str()),
        ("7", "A")
    );
    assert_eq!(
        questions[0].image,
        ImageSource::File("images/1.jpg".to_owned())
    );
}

#[test]
fn files_of_another_kind_are_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let said = |spec: &str| {
        let error = Benchmark::MathVerse
            .open(spec, Options::default())
            .err()
            .unwrap();
        let message = format!("{error:#}");
        assert_eq!(message.lines().count(), 1, "{message}");
        message
    };
    let other = write(
        folder.path(),
        "other.json",
        &json!([{"question": "?", "answer": "1"}]),
    );
    let message = said(&other);
    assert!(
        message.contains("other.json#0 has no query_cot; it has question, answer"),
        "{message}"
    );
    let list = write(folder.path(), "list.json", &json!([1, 2]));
    assert!(said(&list).contains("one of its rows is no object"));
    fs::write(folder.path().join("broken.json"), "[{").unwrap();
    assert!(said(folder.path().join("broken.json").to_str().unwrap()).contains("cannot read"));
    assert!(said(folder.path().to_str().unwrap()).contains("testmini.json"));
    let empty = json!([{"sample_index": "1", "problem_index": "1", "query_cot": "?", "question_type": "free-form", "answer": ""}]);
    assert!(
        said(&write(folder.path(), "empty.json", &empty))
            .contains("take the split whose answers are published")
    );
}
