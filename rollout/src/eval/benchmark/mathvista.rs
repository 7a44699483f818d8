//! MathVista: 1000 questions of its testmini, five tasks, seven skills.

use anyhow::{Context as _, Result};

use super::super::question::{Kind, Question};
use super::super::rules::{self, Verdict, letter};
use super::table::Row;
use crate::reward::Verifier;

pub(super) const FILES: &[&str] = &["testmini.json"];
pub(super) const AXES: &[&str] = &["task", "skill"];

/// `query` holds the question with its options, and a hint at the form of the answer.
pub(super) fn read(row: &Row) -> Result<Question> {
    let id = row.need(&["pid"])?;
    let answer = row.answer(&["answer"])?;
    let choices = row.list("choices");
    let is_choice = row.need(&["question_type"])? == "multi_choice";
    let (kind, answer) = if is_choice {
        let right = choices.iter().position(|choice| choice.trim() == answer);
        let right =
            right.with_context(|| format!("question {id}: {answer:?} is none of its choices"))?;
        (Kind::Choice, letter(right))
    } else {
        (kind(row), answer)
    };
    let text = row.need(&["query"])?;
    let mut question = Question {
        kind,
        answer,
        choices: if is_choice { choices } else { Vec::new() },
        question: row.text(&["question"]).unwrap_or_else(|| text.clone()),
        text,
        image: row.image(&["image"], || None),
        cluster: id.clone(),
        id,
        ..Question::default()
    };
    question.add_group("task", row.text(&["metadata.task"]).into_iter().collect());
    question.add_group("skill", row.list("metadata.skills"));
    Ok(question)
}

fn kind(row: &Row) -> Kind {
    let precision = row
        .text(&["precision"])
        .and_then(|text| text.parse::<f64>().ok());
    match row.text(&["answer_type"]).as_deref() {
        Some("integer") => Kind::Integer,
        Some("float") => Kind::Float(decimals(precision.unwrap_or(2.0))),
        Some("list") => Kind::List,
        _ => Kind::Free,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 20"
)]
fn decimals(precision: f64) -> u8 {
    precision.clamp(0.0, 20.0) as u8
}

/// As its authors' code compares, without the model that extracts the answer there.
pub(super) fn score(question: &Question, response: &str, verifier: &Verifier) -> Verdict {
    rules::score_nearest(question, response, verifier)
}
