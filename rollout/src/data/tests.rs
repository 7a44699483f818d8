//! What is printed of small data sets, word for word.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    data: DataCommand,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the command prints, and how it ends; the folder's path written as DIR.
fn run(folder: &Path, args: &[&str]) -> (String, Result<(), String>) {
    let args = Cli::parse_from([&["data"], args].concat()).data;
    let mut out = Vec::new();
    let mut run = || -> Result<()> {
        let dataset =
            Dataset::open_with(&args.data, &args.source.keys(), &DatasetLimits::default())?;
        let reader = Reader::new(&args)?;
        if let Some(row) = args.show {
            return show::show(&dataset, &reader, row, args.json, &mut out);
        }
        let rows = args.num_rows(&dataset);
        let report = scan(&dataset, &reader, rows, &Stop::default(), &mut |_| {})?;
        write(report, &args, &mut out)
    };
    let end = run().map_err(|error| format!("{error:#}"));
    let text = String::from_utf8(out).unwrap();
    let dir = folder.display().to_string();
    (
        text.replace(&dir, "DIR"),
        end.map_err(|e| e.replace(&dir, "DIR")),
    )
}

/// Eight rows: two good ones, one of text alone, one twice, and four that a run skips, each for another reason.
fn write_rows(folder: &Path) -> String {
    let figure = repository().join("tests/data/qwen2_5_vl/images/triangle.png");
    let figure = fs::read(figure).unwrap();
    fs::write(folder.join("a.png"), &figure).unwrap();
    fs::write(folder.join("half.png"), &figure[..figure.len() / 2]).unwrap();
    let path = folder.join("train.jsonl");
    let rows = [
        r#"{"id": "one", "question": "<image>How long is AB?", "answer": "\\boxed{3}", "image": "a.png"}"#,
        r#"{"id": "two", "question": "In <image> or <image>?", "answer": "(B)", "image": ["a.png", "a.png"]}"#,
        r#"{"question": "What is 1+1?", "answer": "\\boxed{2}", "solution": "It is 2."}"#,
        r#"{"question": "What is 1+1?", "answer": "\\frac{4}{2}"}"#,
        r#"{"id": "no mark", "question": "How long?", "answer": "3", "image": "a.png"}"#,
        r#"{"id": "half", "question": "<image>", "answer": "3", "image": "half.png"}"#,
        r#"{"id": "\u001b[2Jout", "question": "<image>", "answer": "3", "image": "../a.png"}"#,
        r#"{"question": "<image>", "image": "a.png"}"#,
    ];
    fs::write(&path, rows.join("\n")).unwrap();
    path.display().to_string()
}

#[test]
fn a_report_in_characters() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_rows(folder.path());
    let (text, end) = run(folder.path(), &[&data, "--prompt-template", "none"]);
    assert_eq!(end, Ok(()));
    assert_eq!(text, include_str!("expected/characters.txt"));
}

#[test]
fn a_report_in_a_models_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_rows(folder.path());
    let model = repository().join("models/geo-mini/model");
    let model = model.to_str().unwrap();
    let args = [
        &data,
        "--model",
        model,
        "--max-prompt-tokens",
        "50",
        "--json",
    ];
    let (text, end) = run(folder.path(), &args);
    assert_eq!(end, Ok(()));
    assert_eq!(text, include_str!("expected/tokens.json"));
}

#[test]
fn one_row_as_the_model_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_rows(folder.path());
    let model = repository().join("models/geo-mini/model");
    let args = [
        &data,
        "--model",
        model.to_str().unwrap(),
        "--prompt-template",
        "think-boxed",
    ];
    let (text, end) = run(folder.path(), &[&args[..], &["--show", "1"]].concat());
    assert_eq!(end, Ok(()));
    assert_eq!(text, include_str!("expected/row.txt"));
    let (_, end) = run(folder.path(), &[&args[..], &["--show", "8"]].concat());
    assert_eq!(
        end,
        Err("--show 8: the data set has 8 rows, counted from 0".to_owned())
    );
    let (_, end) = run(folder.path(), &[&args[..], &["--show", "6"]].concat());
    let said = "image \"../a.png\": its path leads out of the data set's folder";
    assert!(end.unwrap_err().ends_with(said));
    let (text, _) = run(folder.path(), &[&args[..], &["--show", "4"]].concat());
    assert!(
        text.contains("skipped       the problem has 0 <image> placeholders for 1 images"),
        "{text}"
    );
}

#[test]
fn a_data_set_without_a_usable_row_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.jsonl");
    fs::write(&path, r#"{"problem": "<image>", "answer": "1"}"#).unwrap();
    let (text, end) = run(folder.path(), &[path.to_str().unwrap()]);
    assert!(
        text.contains("N <image> placeholders for N images"),
        "{text}"
    );
    assert_eq!(end, Err("no row of DIR/train.jsonl can be used".to_owned()));
    let (_, end) = run(
        folder.path(),
        &[path.to_str().unwrap(), "--prompt-key", "problm"],
    );
    assert!(end.unwrap_err().contains("did you mean \"problem\"?"));
}
