//! HallusionBench: yes or no about pictures that mislead, in groups that only a consistent answerer gets right.

use std::collections::BTreeMap;

use anyhow::Result;

use super::super::interval::to_f64;
use super::super::question::{Kind, Question};
use super::table::Row;
use super::{Figure, Graded, ImageSource};

pub(super) const FILES: &[&str] = &["HallusionBench.json"];
pub(super) const AXES: &[&str] = &["category", "subcategory"];

/// None for a question without an image, unless those are wanted, too.
pub(super) fn read(row: &Row, with_text_rows: bool) -> Result<Option<Question>> {
    let input = row.need(&["visual_input"])?;
    let file = row
        .text(&["filename"])
        .filter(|file| !file.trim().is_empty());
    let has_image = input != "0" && file.is_some();
    if !has_image && !with_text_rows {
        return Ok(None);
    }
    let keys = [
        "category",
        "subcategory",
        "set_id",
        "figure_id",
        "question_id",
    ];
    let parts: Vec<String> = keys
        .iter()
        .map(|key| row.need(&[key]))
        .collect::<Result<_>>()?;
    let asked = row.need(&["question"])?;
    // As the field asks: up to the first question mark, and how to answer.
    let first = asked.split('?').next().unwrap_or(&asked);
    let mut question = Question {
        id: parts.join("_"),
        answer: if row.answer(&["gt_answer"])? == "1" {
            "yes"
        } else {
            "no"
        }
        .to_owned(),
        kind: Kind::YesNo,
        cluster: parts
            .iter()
            .take(3)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("_"),
        image: if has_image {
            row.image(&["filename"], || None)
        } else {
            ImageSource::None
        },
        text: format!("{first}? You final answer can only be \\boxed{{yes}} or \\boxed{{no}}."),
        question: asked,
        ..Question::default()
    };
    for (key, part) in keys.into_iter().zip(parts) {
        question.add_group(key, vec![part]);
    }
    Ok(Some(question))
}

/// aAcc: questions; fAcc: figures with all questions right (questions without a figure are none of them, as in its authors' code);
/// qAcc: questions that are right with each of their figures.
pub(super) fn figures(graded: &[Graded]) -> Vec<Figure> {
    let mut figures: BTreeMap<String, bool> = BTreeMap::new();
    let mut pairs: BTreeMap<String, bool> = BTreeMap::new();
    let mut num_right = 0;
    for one in graded {
        let group = |name| one.question.group(name);
        num_right += usize::from(one.is_right);
        let key = |last: &str| format!("{}_{last}", one.question.cluster);
        if (group("category"), group("figure_id")) != ("VS", "0") {
            *figures.entry(key(group("figure_id"))).or_insert(true) &= one.is_right;
        }
        *pairs.entry(key(group("question_id"))).or_insert(true) &= one.is_right;
    }
    let share = |name: &str, all: &BTreeMap<String, bool>| {
        let right = all.values().filter(|is_right| **is_right).count();
        Figure::share(name, to_f64(right), to_f64(all.len()))
    };
    vec![
        Figure::share("aAcc", to_f64(num_right), to_f64(graded.len())),
        share("fAcc", &figures),
        share("qAcc", &pairs),
    ]
}
