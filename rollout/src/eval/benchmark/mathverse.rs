//! MathVerse: 788 problems in five versions that say less and less in text and more in the picture.

use anyhow::Result;

use super::super::question::{Kind, Question};
use super::super::rules::split_options;
use super::table::Row;

pub(super) const FILES: &[&str] = &["testmini.json"];
pub(super) const AXES: &[&str] = &["problem version", "subject", "subfield"];

pub(super) fn read(row: &Row) -> Result<Question> {
    let text = row.need(&["query_cot"])?;
    let asked = row
        .text(&["question_for_eval", "question"])
        .unwrap_or_default();
    let is_choice = row.need(&["question_type"])?.starts_with("multi");
    let choices = if is_choice {
        options(&asked, &text)
    } else {
        Vec::new()
    };
    let mut question = Question {
        id: row.need(&["sample_index"])?,
        answer: row.answer(&["answer"])?,
        kind: if is_choice { Kind::Choice } else { Kind::Free },
        choices,
        cluster: row.need(&["problem_index"])?,
        image: row.image(&["image"], || None),
        question: asked,
        text,
        ..Question::default()
    };
    let groups = [
        ("problem version", "problem_version"),
        ("subject", "metadata.subject"),
        ("subfield", "metadata.subfield"),
    ];
    for (name, key) in groups {
        question.add_group(name, row.text(&[key]).into_iter().collect());
    }
    Ok(question)
}

/// The options stand in the question, behind `Choices:`; one of the versions has them in the prompt alone.
fn options(asked: &str, text: &str) -> Vec<String> {
    let behind = |text: &str| {
        let choices = text
            .rsplit_once("Choices:")
            .map(|(_, choices)| split_options(choices));
        choices.unwrap_or_default()
    };
    let found = behind(asked);
    if found.is_empty() {
        behind(text)
    } else {
        found
    }
}
