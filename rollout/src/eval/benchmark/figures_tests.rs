//! The figures of benchmarks that report more than an accuracy, worked out by hand.

use serde_json::json;

use super::tests::{IMAGE, verdicts, write, write_image};
use super::*;

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
