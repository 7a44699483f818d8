//! MATH-Vision: 3040 competition problems, 16 subjects, 5 levels.

use anyhow::Result;

use super::super::question::{Kind, Question};
use super::super::rules::{letter, split_options};
use super::table::Row;

pub(super) const FILES: &[&str] = &["MathVision.tsv", "MathVision_MINI.tsv"];
pub(super) const AXES: &[&str] = &["subject", "level"];

/// The paper's code asks the question as it is. Else options that it does not name stand behind it.
pub(super) fn read(row: &Row, as_paper: bool) -> Result<Question> {
    let id = row.need(&["id", "index"])?;
    let asked = row.need(&["question"])?;
    let options = row.list("options");
    let choices = if options.is_empty() {
        row.list("choices")
    } else {
        options
    };
    let file = || Some(format!("{id}.jpg"));
    let mut question = Question {
        answer: row.answer(&["answer"])?,
        kind: if choices.is_empty() {
            Kind::Free
        } else {
            Kind::Choice
        },
        image: row.image(&["image", "image_path"], file),
        cluster: id.clone(),
        id,
        ..Question::default()
    };
    question.add_group(
        "subject",
        row.text(&["subject", "category"]).into_iter().collect(),
    );
    question.add_group("level", row.text(&["level"]).into_iter().collect());
    let is_named = split_options(&asked).len() >= 2;
    question.text = if as_paper || is_named || choices.is_empty() {
        asked
    } else {
        asked + "\nChoices:" + &listed(&choices)
    };
    question.question.clone_from(&question.text);
    question.choices = choices;
    Ok(question)
}

fn listed(choices: &[String]) -> String {
    let lines = choices.iter().enumerate();
    lines
        .map(|(index, choice)| format!("\n({}) {choice}", letter(index)))
        .collect()
}
