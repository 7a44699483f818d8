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

const IMAGE: &[u8] = b"the bytes of an image";

fn write(folder: &Path, name: &str, rows: &serde_json::Value) -> String {
    let path = folder.join(name);
    fs::write(&path, rows.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn write_image(folder: &Path, name: &str) {
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
fn verdicts(benchmark: Benchmark, questions: &[Question], responses: &[&str]) -> Vec<bool> {
    assert_eq!(questions.len(), responses.len());
    let pairs = questions.iter().zip(responses);
    pairs
        .map(|(question, response)| benchmark.score(question, response).is_right)
        .collect()
}

fn figures(benchmark: Benchmark, questions: &[Question], verdicts: &[bool]) -> Vec<(String, f64)> {
    let graded = questions
        .iter()
        .zip(verdicts)
        .map(|(question, &is_right)| Graded { question, is_right });
    let figures = benchmark.figures(&graded.collect::<Vec<_>>());
    figures
        .into_iter()
        .map(|figure| (figure.name, figure.value))
        .collect()
}

fn assert_figures(found: &[(String, f64)], expected: &[(&str, f64)]) {
    for (name, value) in expected {
        let figure = found.iter().find(|(found, _)| found == name).unwrap();
        assert!(
            (figure.1 - value).abs() < 1e-12,
            "{name}: {} for {value}",
            figure.1
        );
    }
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

/// Two-step problems 1: all right; 2: steps right, whole wrong; 3: one step and the whole right; 4: its whole is not asked.
/// Three-step problems 1: the whole alone right; 2: two steps right, whole wrong. Of these five:
/// strict: CM 1 (1), RM 2 (3 and the three-step 1), IG 1, IK 1: score (1 + 0.5) / 5 = 0.3 = (5 - 0.5 - 2 - 1) / 5, RM rate 2/3;
/// loose: CM 2, RM 1: score (2 + 0.5) / 5 = 0.5, RM rate 1/3.
#[test]
fn wemath() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [
        ("1", "2steps_1", true),
        ("1", "2steps_2", true),
        ("1", "2steps_multi", true),
        ("2", "2steps_1", true),
        ("2", "2steps_2", true),
        ("2", "2steps_multi", false),
        ("3", "2steps_1", true),
        ("3", "2steps_2", false),
        ("3", "2steps_multi", true),
        ("4", "2steps_1", true),
        ("1", "3steps_1", false),
        ("1", "3steps_2", false),
        ("1", "3steps_3", false),
        ("1", "3steps_multi", true),
        ("2", "3steps_1", true),
        ("2", "3steps_2", false),
        ("2", "3steps_3", true),
        ("2", "3steps_multi", false),
    ];
    let json_rows: Vec<_> = rows
        .iter()
        .map(|(id, key, _)| {
            json!({"ID": id, "split": "testmini", "knowledge concept": "Area", "question": "How large?",
                "option": "A. 1;B. 2; C. No correct answer", "answer": "B", "image_path": "2steps/image/1-1.png",
                "key": key, "question number": 1, "knowledge concept description": "..."})
        })
        .collect();
    let path = write(folder.path(), "testmini.json", &json!(json_rows));
    let (_, questions) = Benchmark::WeMath.open(&path, Options::default()).unwrap();
    assert_eq!(
        questions[0].text,
        "How large?\n\nOptions: A. 1;B. 2; C. No correct answer"
    );
    assert_eq!(questions[0].id, "1@2steps_1");
    let answers = ["\\boxed{A}", "\\boxed{B}"];
    let responses: Vec<&str> = rows.iter().map(|row| answers[usize::from(row.2)]).collect();
    let verdicts = verdicts(Benchmark::WeMath, &questions, &responses);
    assert_eq!(verdicts, rows.map(|row| row.2));
    assert_figures(
        &figures(Benchmark::WeMath, &questions, &verdicts),
        &[
            ("Score (strict)", 0.3),
            ("Score (loose)", 0.5),
            ("CM (strict)", 0.2),
            ("CM (loose)", 0.4),
            ("RM / (CM + RM) (strict)", 2.0 / 3.0),
            ("RM / (CM + RM) (loose)", 1.0 / 3.0),
            ("IK", 0.2),
            ("IG", 0.2),
            ("problems asked whole and by steps", 5.0),
        ],
    );
    let bad =
        json!([{"ID": "1", "key": "4steps_1", "question": "?", "option": "A. 1", "answer": "A"}]);
    let path = write(folder.path(), "bad.json", &bad);
    let message = format!(
        "{:#}",
        Benchmark::WeMath
            .open(&path, Options::default())
            .err()
            .unwrap()
    );
    assert!(
        message.contains("is no file of wemath: the key"),
        "{message}"
    );
}

/// VD set 0 with figures 0 and 1 and questions 0 and 1, of which figure 1, question 1 is answered wrong; VS set 0, question 0,
/// without a figure (wrong) and with figure 1 (right).
/// With images: aAcc 4/5; figures VD 0 and VS 1 of three: fAcc 2/3; pairs VD 0 and VS 0 of three: qAcc 2/3.
/// With the text row: aAcc 4/6; fAcc 2/3 as before; VS 0 is no longer right throughout: qAcc 1/3.
#[test]
fn hallusionbench() {
    let folder = tempfile::tempdir().unwrap();
    write_image(folder.path(), "VD/illusion/0_0.png");
    let row = |place: [&str; 4], question: &str, gold: &str, file: Option<&str>| {
        let [category, set, figure, id] = place;
        json!({"category": category, "subcategory": "illusion", "visual_input": if file.is_some() { "1" } else { "0" },
            "set_id": set, "figure_id": figure, "sample_note": "", "question_id": id, "question": question,
            "gt_answer_details": "...", "gt_answer": gold, "filename": file})
    };
    let rows = json!([
        row(
            ["VD", "0", "0", "0"],
            "Is it so? Look closely?",
            "1",
            Some("./VD/illusion/0_0.png")
        ),
        row(
            ["VD", "0", "0", "1"],
            "Is it not?",
            "0",
            Some("./VD/illusion/0_0.png")
        ),
        row(
            ["VD", "0", "1", "0"],
            "Is it so?",
            "0",
            Some("./VD/illusion/0_1.png")
        ),
        row(
            ["VD", "0", "1", "1"],
            "Is it not?",
            "1",
            Some("./VD/illusion/0_1.png")
        ),
        row(
            ["VS", "0", "0", "0"],
            "According to the chart, is it so?",
            "1",
            None
        ),
        row(
            ["VS", "0", "1", "0"],
            "According to the chart, is it so?",
            "1",
            Some("./VS/chart/0_1.png")
        ),
    ]);
    let path = write(folder.path(), "HallusionBench.json", &rows);
    let (table, questions) = Benchmark::HallusionBench
        .open(&path, Options::default())
        .unwrap();
    assert_eq!(questions.len(), 5);
    assert_eq!(
        questions[0].text,
        "Is it so? You final answer can only be \\boxed{yes} or \\boxed{no}."
    );
    assert_eq!(table.images(&questions[0]).unwrap(), [IMAGE]);
    let (yes, no) = (r"\boxed{Yes}", "<think>yes</think> No.");
    let with_images = verdicts(
        Benchmark::HallusionBench,
        &questions,
        &[yes, no, no, no, yes],
    );
    assert_eq!(with_images, [true, true, true, false, true]);
    assert_figures(
        &figures(Benchmark::HallusionBench, &questions, &with_images),
        &[("aAcc", 0.8), ("fAcc", 2.0 / 3.0), ("qAcc", 2.0 / 3.0)],
    );
    let options = Options {
        with_text_rows: true,
        ..Options::default()
    };
    let (table, questions) = Benchmark::HallusionBench.open(&path, options).unwrap();
    assert_eq!(table.images(&questions[4]).unwrap(), Vec::<Vec<u8>>::new());
    let all = verdicts(
        Benchmark::HallusionBench,
        &questions,
        &[yes, no, no, no, "I cannot say", yes],
    );
    assert_figures(
        &figures(Benchmark::HallusionBench, &questions, &all),
        &[
            ("aAcc", 4.0 / 6.0),
            ("fAcc", 2.0 / 3.0),
            ("qAcc", 1.0 / 3.0),
        ],
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
