//! Scoring by rules. All that the evaluation takes from the verifier of the training goes through this file.

use shared::config::distance;

use crate::reward;

use super::question::{Kind, Question};

/// What the rules say of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The answer that was found in it.
    pub extraction: Option<String>,
    /// Whether that is right.
    pub is_right: bool,
}

/// Longest text that the nearest option is looked for.
const MAX_NEAREST: usize = 200;

/// The content of the last `\boxed{}`.
pub(super) fn boxed(response: &str) -> Option<String> {
    reward::boxed(response)
}

/// Whether an answer says what the right one says.
pub(super) fn same(answer: &str, right: &str) -> bool {
    reward::equivalent(answer, right)
}

/// `<think> ... </think> ... \boxed{}`.
pub(super) fn is_well_formed(response: &str) -> bool {
    reward::is_well_formed(response)
}

/// The box alone, as in training.
pub(super) fn score_box(question: &Question, response: &str) -> Verdict {
    verdict(boxed(response), |answer| same(answer, &question.answer))
}

/// The box, or else what stands behind `answer:`; compared as the question's kind asks.
pub(super) fn score(question: &Question, response: &str) -> Verdict {
    if question.kind == Kind::YesNo {
        let extraction = yes_or_no(response).map(str::to_owned);
        return verdict(extraction, |answer| answer == question.answer);
    }
    verdict(answer_of(response), |answer| is_right(question, answer))
}

/// [`score`], but an answer to multiple choice that names no option is taken for the most similar one, as MathVista's own code does.
pub(super) fn score_nearest(question: &Question, response: &str) -> Verdict {
    let mut verdict = score(question, response);
    if question.kind != Kind::Choice || verdict.is_right || question.choices.is_empty() {
        return verdict;
    }
    if let Some(answer) = &verdict.extraction
        && answer.chars().count() <= MAX_NEAREST
        && chosen(answer, &question.choices).is_none()
    {
        let nearest = nearest(answer, &question.choices);
        verdict.is_right = nearest.is_some() && nearest == letter_index(&question.answer);
    }
    verdict
}

fn verdict(extraction: Option<String>, is_right: impl Fn(&str) -> bool) -> Verdict {
    let is_right = extraction.as_deref().is_some_and(is_right);
    Verdict {
        extraction,
        is_right,
    }
}

fn is_right(question: &Question, answer: &str) -> bool {
    let right = &question.answer;
    match question.kind {
        Kind::Choice if question.choices.is_empty() => same(answer, right),
        Kind::Choice => match letter_index(right) {
            Some(index) => chosen(answer, &question.choices) == Some(index),
            None => same(answer, right),
        },
        Kind::Integer => match (number(answer), number(right)) {
            (Some(answer), Some(right)) => exactly(answer.trunc(), right),
            _ => same(answer, right),
        },
        Kind::Float(decimals) => match (number(answer), number(right)) {
            (Some(answer), Some(right)) => {
                exactly(rounded(answer, decimals), rounded(right, decimals))
            }
            _ => same(answer, right),
        },
        Kind::List => compact(answer) == compact(right) || same(answer, right),
        Kind::Free | Kind::YesNo => same(answer, right),
    }
}

/// The option that an answer means: its letter, said once, or the text of one option alone.
pub(super) fn chosen(answer: &str, choices: &[String]) -> Option<usize> {
    let letters = (0..choices.len()).filter(|&index| same(answer, &letter(index)));
    if let Some(index) = only(letters) {
        return Some(index);
    }
    only((0..choices.len()).filter(|&index| {
        choices
            .get(index)
            .is_some_and(|choice| same(answer, choice))
    }))
}

fn only(mut found: impl Iterator<Item = usize>) -> Option<usize> {
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// `A` of 0.
pub(super) fn letter(index: usize) -> String {
    let letter = u8::try_from(index)
        .ok()
        .and_then(|index| b'A'.checked_add(index));
    letter
        .filter(u8::is_ascii_uppercase)
        .map_or_else(String::new, |letter| char::from(letter).to_string())
}

/// 0 of `A`.
pub(super) fn letter_index(text: &str) -> Option<usize> {
    match text.trim().as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        _ => None,
    }
}

/// `A. 3;B. 4; C. 5`, `Choices:\nA:3\nB:4`, `(A) 3 (B) 4` -> the texts in order; the letters must come in order as well.
pub(super) fn split_options(text: &str) -> Vec<String> {
    let mut starts: Vec<(usize, usize)> = Vec::new(); // of the letter, of its text
    let bytes = text.as_bytes();
    for (at, pair) in bytes.windows(2).enumerate() {
        let is_next = letter_index(&char::from(pair[0]).to_string()) == Some(starts.len());
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let is_apart = before.is_none_or(|b| b.is_ascii_whitespace() || b";,(".contains(b));
        if is_next && is_apart && b".:)".contains(&pair[1]) {
            let start = if before == Some(&b'(') { at - 1 } else { at };
            starts.push((start, at + 2));
        }
    }
    let ends = starts
        .iter()
        .skip(1)
        .map(|(start, _)| *start)
        .chain([text.len()]);
    let texts = starts
        .iter()
        .zip(ends)
        .filter_map(|((_, start), end)| text.get(*start..end));
    let trimmed = texts.map(|text| text.trim().trim_end_matches([';', ',']).trim().to_owned());
    trimmed.collect()
}

/// The last box; without one, what stands behind the last `answer is`, `answer:` or `<answer>` after the thoughts.
fn answer_of(response: &str) -> Option<String> {
    if let Some(answer) = boxed(response) {
        return Some(answer);
    }
    let said = after_thoughts(response);
    let lower = said.to_ascii_lowercase();
    let marks = ["answer is", "answer:", "<answer>"].into_iter();
    let start = marks
        .filter_map(|mark| lower.rfind(mark).map(|at| at + mark.len()))
        .max()?;
    let rest = said
        .get(start..)?
        .trim_start_matches([' ', '\n', ':', '*', '$']);
    let line = rest.lines().next()?;
    let line = line.split("</answer>").next().unwrap_or(line);
    let answer = line.trim_end_matches([' ', '.', '*', '$']).trim();
    (!answer.is_empty()).then(|| answer.to_owned())
}

fn after_thoughts(response: &str) -> &str {
    response.rsplit("</think>").next().unwrap_or(response)
}

/// In the box, or else in what is said after the thoughts: one of the two words and not the other.
fn yes_or_no(response: &str) -> Option<&'static str> {
    let text = boxed(response).unwrap_or_else(|| after_thoughts(response).to_owned());
    let text = text.to_lowercase();
    let has = |wanted| {
        text.split(|c: char| !c.is_alphanumeric())
            .any(|word| word == wanted)
    };
    match (has("yes"), has("no")) {
        (true, false) => Some("yes"),
        (false, true) => Some("no"),
        _ => None,
    }
}

/// What Python's `float` reads, with a comma between thousands.
fn number(text: &str) -> Option<f64> {
    let plain = text.trim().trim_matches('$').replace(',', "");
    let is_plain = plain
        .chars()
        .all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    plain
        .parse()
        .ok()
        .filter(|x: &f64| is_plain && x.is_finite())
}

/// As Python's `round`: to the nearest decimal number, of the exact binary value.
fn rounded(x: f64, decimals: u8) -> f64 {
    format!("{x:.*}", usize::from(decimals))
        .parse()
        .unwrap_or(x)
}

/// Both were read from decimal texts.
#[expect(clippy::float_cmp, reason = "rounded decimals, read the same way")]
fn exactly(a: f64, b: f64) -> bool {
    a == b
}

fn compact(text: &str) -> String {
    let kept = text
        .chars()
        .filter(|c| !c.is_whitespace() && !"'\"".contains(*c));
    kept.flat_map(char::to_lowercase).collect()
}

/// The option of the smallest edit distance, the first of several.
fn nearest(answer: &str, choices: &[String]) -> Option<usize> {
    let distances = choices.iter().map(|choice| {
        let start: String = choice.chars().take(10 * MAX_NEAREST).collect();
        distance(answer, &start)
    });
    distances
        .enumerate()
        .min_by_key(|(_, distance)| *distance)
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(kind: Kind, answer: &str, choices: &[&str]) -> Question {
        Question {
            kind,
            answer: answer.to_owned(),
            choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
            ..Question::default()
        }
    }

    #[test]
    fn choices_by_letter_by_text_and_by_neither() {
        let asked = question(Kind::Choice, "B", &["3", "4", "5"]);
        let is_right = |response: &str| score(&asked, response).is_right;
        for right in [
            r"\boxed{B}",
            r"\boxed{(B)}",
            r"\boxed{4}",
            "so the answer is **B**.",
            "Answer: 4",
        ] {
            assert!(is_right(right), "{right}");
        }
        for wrong in [
            r"\boxed{A}",
            r"\boxed{3}",
            r"\boxed{A or B}",
            "B",
            "",
            r"\boxed{6}",
        ] {
            assert!(!is_right(wrong), "{wrong}");
        }
        // Two options with the same text: the text alone says nothing.
        let twins = question(Kind::Choice, "B", &["4", "4", "5"]);
        assert!(!score(&twins, r"\boxed{4}").is_right);
    }

    #[test]
    fn options_are_cut_at_letters_in_order() {
        let texts = |text| split_options(text);
        assert_eq!(
            texts("A. 200.96;B. 3215.36;C. 6280;D. 32; E. No correct answer"),
            ["200.96", "3215.36", "6280", "32", "No correct answer"]
        );
        assert_eq!(
            texts("How long is AB?\nChoices:\nA:12\nB:10\nC:8\nD:6"),
            ["12", "10", "8", "6"]
        );
        assert_eq!(texts("(A) 1 (B) x é (C) 3"), ["1", "x é", "3"]);
        assert_eq!(texts("What is B. Smith's height?"), Vec::<String>::new());
    }

    #[test]
    fn numbers_as_mathvista_compares_them() {
        let right = |kind, gold: &str, given: &str| {
            score(&question(kind, gold, &[]), &format!(r"\boxed{{{given}}}")).is_right
        };
        assert!(right(Kind::Integer, "3", "3.0") && right(Kind::Integer, "3", "3.7"));
        assert!(right(Kind::Integer, "1200", "1,200") && !right(Kind::Integer, "3", "4"));
        assert!(right(Kind::Integer, "3", r"\frac{6}{2}"));
        assert!(right(Kind::Float(1), "1.2", "1.23") && !right(Kind::Float(2), "1.25", "1.2"));
        // Python: round(2.675, 2) is 2.67, because 2.675 is 2.67499999999999982236431605997495353221893310546875.
        assert!(right(Kind::Float(2), "2.67", "2.675"));
        assert!(
            right(Kind::List, "[0, 2, 3]", "[0,2,3]") && !right(Kind::List, "[0, 2]", "[2, 0]")
        );
    }

    #[test]
    fn yes_and_no() {
        assert_eq!(
            yes_or_no(r"<think>yes or no?</think> \boxed{No}"),
            Some("no")
        );
        assert_eq!(yes_or_no("<think>no</think>Yes, it is."), Some("yes"));
        assert_eq!(yes_or_no("yes and no"), None);
        assert_eq!(yes_or_no("I know nothing"), None);
    }

    #[test]
    fn the_nearest_option_counts_at_mathvista_alone() {
        let asked = question(Kind::Choice, "A", &["triangle", "square"]);
        assert!(score_nearest(&asked, r"\boxed{a triangel}").is_right);
        assert!(!score(&asked, r"\boxed{a triangel}").is_right);
        assert!(!score_nearest(&asked, r"\boxed{B}").is_right);
    }
}
