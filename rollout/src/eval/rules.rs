//! Scoring by rules. All that the evaluation takes from the verifier of the training goes through this file.

use shared::config::distance;

use crate::reward::{self, Verifier};

use super::question::{Kind, Question};

/// What the rules say of a response.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Verdict {
    /// The answer that was found in it.
    pub extraction: Option<String>,
    /// From 0 to 1: 0 or 1 but for an external verifier.
    pub accuracy: f64,
}

impl Verdict {
    /// Whether the answer is right, all of it.
    pub(super) fn is_right(&self) -> bool {
        self.accuracy >= 1.0
    }

    /// Of rules that know right and wrong alone.
    fn plain(extraction: Option<String>, is_right: impl Fn(&str) -> bool) -> Self {
        let is_right = extraction.as_deref().is_some_and(is_right);
        Self {
            extraction,
            accuracy: f64::from(u8::from(is_right)),
        }
    }
}

impl From<reward::Verdict> for Verdict {
    fn from(verdict: reward::Verdict) -> Self {
        Self {
            extraction: verdict.extracted,
            accuracy: f64::from(verdict.accuracy),
        }
    }
}

/// Longest text that the nearest option is looked for.
const MAX_NEAREST: usize = 200;

/// The content of the last `\boxed{}`.
pub(super) fn boxed(response: &str) -> Option<String> {
    reward::boxed(response)
}

/// Whether an answer says what the right one says: a letter, the text of an option.
fn same(answer: &str, right: &str) -> bool {
    reward::equivalent(answer, right)
}

/// Whether it has the form of the verifier's rule: `<think> ... </think> ... \boxed{}`.
pub(super) fn is_well_formed(response: &str, verifier: &Verifier) -> bool {
    reward::has_form(response, verifier.rule())
}

/// As in training: what the verifier finds, and says of it.
pub(super) fn score_box(question: &Question, response: &str, verifier: &Verifier) -> Verdict {
    verifier.verify(response, &question.answer).into()
}

/// The box, or else what stands behind `answer:`; compared as the question's kind asks, and where that is no rule of the
/// benchmark's own, by the verifier.
pub(super) fn score(question: &Question, response: &str, verifier: &Verifier) -> Verdict {
    if question.kind == Kind::YesNo {
        let extraction = yes_or_no(response).map(str::to_owned);
        return Verdict::plain(extraction, |answer| answer == question.answer);
    }
    let Some(answer) = answer_of(response) else {
        return match question.kind {
            // A command of the user's own may see an answer where the rules see none.
            Kind::Free => score_box(question, response, verifier),
            _ => Verdict::default(),
        };
    };
    match by_own_rule(question, &answer) {
        Some(is_right) => Verdict::plain(Some(answer), |_| is_right),
        None => verifier
            .verify_answer(response, &answer, &question.answer)
            .into(),
    }
}

/// [`score`], but an answer to multiple choice that names no option is taken for the most similar one, as MathVista's own code does.
pub(super) fn score_nearest(question: &Question, response: &str, verifier: &Verifier) -> Verdict {
    let verdict = score(question, response, verifier);
    if question.kind != Kind::Choice || verdict.is_right() || question.choices.is_empty() {
        return verdict;
    }
    if let Some(answer) = &verdict.extraction
        && answer.chars().count() <= MAX_NEAREST
        && chosen(answer, &question.choices).is_none()
    {
        let nearest = nearest(answer, &question.choices);
        let is_right = nearest.is_some() && nearest == letter_index(&question.answer);
        return Verdict::plain(verdict.extraction, |_| is_right);
    }
    verdict
}

/// What the benchmark's own rule says; nothing where it has none for these two answers.
fn by_own_rule(question: &Question, answer: &str) -> Option<bool> {
    let right = &question.answer;
    let numbers = || Some((number(answer)?, number(right)?));
    match question.kind {
        Kind::Choice => Some(match letter_index(right) {
            Some(index) if !question.choices.is_empty() => {
                chosen(answer, &question.choices) == Some(index)
            }
            _ => same(answer, right),
        }),
        Kind::Integer => numbers().map(|(answer, right)| exactly(answer.trunc(), right)),
        Kind::Float(decimals) => numbers()
            .map(|(answer, right)| exactly(rounded(answer, decimals), rounded(right, decimals))),
        Kind::List => (compact(answer) == compact(right)).then_some(true),
        Kind::Free | Kind::YesNo => None,
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
    use shared::config::{FormatRule, VerifierMode};

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
        let robust = Verifier::default();
        let is_right = |response: &str| score(&asked, response, &robust).is_right();
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
        assert!(!score(&twins, r"\boxed{4}", &robust).is_right());
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
            let response = format!(r"\boxed{{{given}}}");
            score(&question(kind, gold, &[]), &response, &Verifier::default()).is_right()
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
        let robust = Verifier::default();
        assert!(score_nearest(&asked, r"\boxed{a triangel}", &robust).is_right());
        assert!(!score(&asked, r"\boxed{a triangel}", &robust).is_right());
        assert!(!score_nearest(&asked, r"\boxed{B}", &robust).is_right());
    }

    /// mathruler takes `z=4` for `x=4` and no `\sqrt{4}` for a 2; letters and rounded numbers are the benchmark's.
    #[test]
    fn free_answers_go_through_the_verifier_and_own_rules_stay() {
        let robust = Verifier::default();
        let compat = Verifier::new(VerifierMode::Compat, FormatRule::EasyR1, 0);
        let both = |kind, gold: &str, choices: &[&str], given: &str| {
            let asked = question(kind, gold, choices);
            let response = format!(r"\boxed{{{given}}}");
            [&robust, &compat].map(|verifier| score(&asked, &response, verifier).is_right())
        };
        assert_eq!(both(Kind::Free, "x=4", &[], "z=4"), [false, true]);
        assert_eq!(both(Kind::Free, "x=4", &[], "x=4.0"), [true, false]);
        assert_eq!(both(Kind::Integer, "2", &[], r"\sqrt{4}"), [true, false]);
        assert_eq!(both(Kind::Integer, "3", &[], "3.7"), [true, true]);
        assert_eq!(both(Kind::Float(1), "1.2", &[], "1.23"), [true, true]);
        assert_eq!(both(Kind::Choice, "B", &["x=4", "z=4"], "x=4"), [false; 2]);
        assert_eq!(both(Kind::Choice, "B", &["3", "4"], "4.0"), [true, true]);
        let asked = question(Kind::Free, "x=4", &[]);
        let free = |verifier| score_box(&asked, r"\boxed{z=4}", verifier);
        assert_eq!([free(&robust).accuracy, free(&compat).accuracy], [0.0, 1.0]);
        assert_eq!(free(&compat).extraction.as_deref(), Some("z=4"));
        // The form decides where a data set's answer stands.
        let tagged = Verifier::new(VerifierMode::Robust, FormatRule::R1v, 0);
        let response = "<think>a</think><answer>x=4</answer>";
        assert!(score_box(&asked, response, &tagged).is_right());
        assert!(!score_box(&asked, response, &robust).is_right());
        assert!(is_well_formed(response, &tagged) && !is_well_formed(response, &robust));
    }
}
