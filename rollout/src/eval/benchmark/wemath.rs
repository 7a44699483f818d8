//! We-Math: problems of two or three steps, asked whole and step by step: does who can do the steps put them together, and does who
//! gets the whole know the steps?

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::super::interval::to_f64;
use super::super::question::{Kind, Question};
use super::super::rules::split_options;
use super::table::Row;
use super::{Figure, Graded};

pub(super) const FILES: &[&str] = &["testmini.json"];
pub(super) const AXES: &[&str] = &["steps"];

pub(super) fn read(row: &Row) -> Result<Question> {
    let (problem, key) = (row.need(&["ID"])?, row.need(&["key"])?);
    let (asked, option) = (row.need(&["question"])?, row.need(&["option"])?);
    let Some((number, part)) = parts(&key) else {
        bail!("the key {key:.40?} is none of 2steps_1, 2steps_2, 2steps_multi, 3steps_1, ...");
    };
    let steps = match (part, number) {
        (Part::Step(_), _) => "one (S1)",
        (Part::Whole, 2) => "two (S2)",
        (Part::Whole, _) => "three (S3)",
    };
    let mut question = Question {
        // The numbers of two-step and of three-step problems begin at 1 again.
        cluster: format!("{number}steps-{problem}"),
        id: format!("{problem}@{key}"),
        answer: row.answer(&["answer"])?,
        kind: Kind::Choice,
        choices: split_options(&option),
        image: row.image(&["image_path"], || None),
        text: format!("{asked}\n\nOptions: {option}"),
        ..Question::default()
    };
    question.question.clone_from(&question.text);
    question.add_group("steps", vec![steps.to_owned()]);
    question.add_group("key", vec![key]);
    let concept = row.text(&["knowledge concept"]).into_iter().collect();
    question.add_group("knowledge concept", concept);
    Ok(question)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Step(usize),
    Whole,
}

/// 2 and its first step of `2steps_1`.
fn parts(key: &str) -> Option<(usize, Part)> {
    let (number, part) = key.split_once("steps_")?;
    let number: usize = number
        .parse()
        .ok()
        .filter(|number| (2..=3).contains(number))?;
    let part = match part {
        "multi" => Part::Whole,
        step => Part::Step(
            step.parse()
                .ok()
                .filter(|step| (1..=number).contains(step))?,
        ),
    };
    Some((number, part))
}

/// Four kinds of problems: insufficient knowledge (a step wrong, the whole wrong), inadequate generalisation (all steps right, the
/// whole wrong), complete mastery and rote memorisation (the whole right with the steps, or without them). Strict: mastery takes all
/// steps; loose: one. Score = (CM + IG / 2) / problems, which is its authors' (525 - IG / 2 - RM - IK) / 525.
pub(super) fn figures(graded: &[Graded]) -> Vec<Figure> {
    /// Of one problem: steps asked, steps right, the whole.
    #[derive(Default)]
    struct Problem {
        num_steps: usize,
        num_asked: usize,
        num_right: usize,
        whole: Option<bool>,
    }
    let mut problems: BTreeMap<&str, Problem> = BTreeMap::new();
    for one in graded {
        let Some((number, part)) = parts(one.question.group("key")) else {
            continue;
        };
        let problem = problems.entry(&one.question.cluster).or_default();
        problem.num_steps = number;
        match part {
            Part::Step(_) => {
                problem.num_asked += 1;
                problem.num_right += usize::from(one.is_right);
            }
            Part::Whole => problem.whole = Some(one.is_right),
        }
    }
    let (mut total, mut ik, mut ig) = (0, 0, 0);
    // Of problems whose whole is right: with all steps, with some, with none.
    let (mut all, mut some, mut none) = (0, 0, 0);
    for problem in problems.values() {
        let Some(whole) = problem
            .whole
            .filter(|_| problem.num_asked == problem.num_steps)
        else {
            continue; // with --limit some problems are asked in part
        };
        total += 1;
        let has_all = problem.num_right == problem.num_steps;
        match (whole, has_all) {
            (false, true) => ig += 1,
            (false, false) => ik += 1,
            (true, true) => all += 1,
            (true, false) if problem.num_right > 0 => some += 1,
            (true, false) => none += 1,
        }
    }
    let n = to_f64(total);
    let mut figures = Vec::new();
    for (rule, mastered, by_rote) in [("strict", all, some + none), ("loose", all + some, none)] {
        let (cm, rm) = (to_f64(mastered), to_f64(by_rote));
        let of = |what: &str| format!("{what} ({rule})");
        figures.push(Figure::share(&of("Score"), cm + to_f64(ig) / 2.0, n));
        figures.push(Figure::share(&of("CM"), cm, n));
        figures.push(Figure::share(&of("RM / (CM + RM)"), rm, cm + rm));
        figures.push(Figure::count(&of("RM, problems"), rm));
    }
    figures.push(Figure::share("IK", to_f64(ik), n));
    figures.push(Figure::share("IG", to_f64(ig), n));
    figures.push(Figure::count("problems asked whole and by steps", n));
    figures
}
