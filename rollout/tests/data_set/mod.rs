//! A small data set with good and bad samples.

use std::path::Path;

use crate::common::fixtures;

/// Seven samples: four good ones, a corrupt image, one without the image that it names, one that is too long.
pub(crate) fn write_data(dir: &Path) {
    for name in ["triangle.png", "gray.png"] {
        std::fs::copy(fixtures().join("images").join(name), dir.join(name)).unwrap();
    }
    std::fs::write(dir.join("broken.png"), b"\x89PNG\r\n\x1a\nnothing more").unwrap();
    let long = "x ".repeat(400);
    let rows = [
        r#"{"id": "a", "problem": "<image>How long?", "answer": "3", "images": ["triangle.png"]}"#
            .to_owned(),
        r#"{"id": "b", "problem": "1 + 1?", "answer": "2"}"#.to_owned(),
        r#"{"id": "broken", "problem": "<image>?", "answer": "2", "images": ["broken.png"]}"#
            .to_owned(),
        r#"{"id": "c", "problem": "<image>What is it?", "answer": "5", "images": ["gray.png"]}"#
            .to_owned(),
        r#"{"id": "mismatch", "problem": "no mark", "answer": "5", "images": ["gray.png"]}"#
            .to_owned(),
        format!(r#"{{"id": "long", "problem": "{long}", "answer": "5"}}"#),
        r#"{"id": "d", "problem": "2 + 2?", "answer": "4"}"#.to_owned(),
    ];
    std::fs::write(dir.join("data.jsonl"), rows.join("\n")).unwrap();
}
