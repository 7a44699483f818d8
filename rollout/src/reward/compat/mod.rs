//! What mathruler 0.1, the grader of EasyR1 and NoisyRollout, would say, its known errors included: for numbers that can be
//! compared with theirs. `robust` is what a policy should be paid by.
//!
//! # Layout
//! - here: `extract_boxed_content` and `grade_answer`
//! - `hendrycks`: `math_normalize.normalize_answer`, the first string comparison
//! - `normalize`: `_normalize`, the second one
//! - `latex`: pylatexenc's text of a formula, without parentheses around what stands in a fraction
//! - `algebra`: sympy on that text; exact where sympy's `simplify` gives up, so at times kinder than the original

mod algebra;
mod hendrycks;
mod latex;
mod normalize;

use algebra::are_equal;
use hendrycks::normalize_answer;
use normalize::{normalize, python_float, strip_commas};

/// Longer answers than any data set's are compared as they are: the stages below copy them several times.
const MAX_BYTES: usize = 8192;

/// Content of the last `\boxed{`, as mathruler finds it: every brace counts, and no box is the text "None".
#[must_use]
pub fn compat_boxed(response: &str) -> &str {
    const OPEN: &str = "\\boxed{";
    let content = response
        .rfind(OPEN)
        .and_then(|start| response.get(start + OPEN.len()..));
    let Some(content) = content else {
        return "None";
    };
    let mut depth = 0_i64;
    for (position, byte) in content.bytes().enumerate() {
        depth += match byte {
            b'{' => 1,
            b'}' => -1,
            _ => 0,
        };
        if depth < 0 {
            return content.get(..position).unwrap_or_default().trim();
        }
    }
    "None"
}

/// Whether mathruler's `grade_answer` takes `given` for `gold`.
#[must_use]
pub fn compat_equivalent(given: &str, gold: &str) -> bool {
    if given.len() > MAX_BYTES || gold.len() > MAX_BYTES {
        return given.trim() == gold.trim();
    }
    if normalize_answer(gold) == normalize_answer(given) {
        return true;
    }
    let (gold, given) = (normalize(gold), normalize(given));
    if gold == given {
        return true;
    }
    if given.is_empty() {
        return false;
    }
    let (golds, givens) = (split_tuple(&gold), split_tuple(&given));
    let ends = |text: &str| (text.chars().next(), text.chars().next_back());
    if golds.len() != givens.len() || (golds.len() > 1 && ends(&gold) != ends(&given)) {
        return false;
    }
    golds.iter().zip(&givens).all(|(gold, given)| {
        if is_fraction(gold) && is_fraction(given) {
            gold == given
        } else {
            is_integer(gold) == is_integer(given) && are_equal(gold, given)
        }
    })
}

fn split_tuple(text: &str) -> Vec<String> {
    const BRACKETS: [char; 4] = ['(', ')', '[', ']'];
    let text = strip_commas(text);
    if text.is_empty() {
        return Vec::new();
    }
    let inner = text
        .strip_prefix(BRACKETS)
        .and_then(|rest| rest.strip_suffix(BRACKETS))
        .filter(|inner| !inner.is_empty() && !inner.contains(BRACKETS));
    match inner {
        Some(inner) => inner
            .split(',')
            .map(|item| item.trim().to_owned())
            .collect(),
        None => vec![text],
    }
}

/// `^-?[0-9]+.?/0*[1-9][0-9]*.?$`
fn is_fraction(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let Some((numerator, denominator)) = text.split_once('/') else {
        return false;
    };
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let is_nearly = |text: &str, length: usize| {
        length > 0
            && text
                .get(length..)
                .is_some_and(|rest| rest.chars().count() <= 1)
    };
    let length = digits(denominator);
    let is_zero = denominator
        .get(..length)
        .is_none_or(|digits| digits.bytes().all(|digit| digit == b'0'));
    is_nearly(numerator, digits(numerator)) && is_nearly(denominator, length) && !is_zero
}

/// `_str_is_int`
fn is_integer(text: &str) -> bool {
    python_float(&strip_commas(text)).is_some_and(normalize::is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each verdict is mathruler 0.1.0's (pylatexenc 2.11, sympy 1.14.0).
    #[test]
    fn its_errors_are_kept() {
        let right = [
            ("\\frac{6}{5\\sqrt7}", "\\frac{6\\sqrt7}{5}"),
            ("\\frac1{2+3}", "\\frac12+3"),
            ("6\\sqrt[3]2", "6\\sqrt2"),
            ("z=4", "x=4"),
            ("1e-9", "0"),
            ("None", "None"),
            ("12 m", "12 cm"),
        ];
        for (given, gold) in right {
            let gold = gold.replace("12 cm", "12 \\text{ cm}");
            let given = given.replace("12 m", "12 \\text{ m}");
            assert!(compat_equivalent(&given, &gold), "{given:?} for {gold:?}");
        }
        let wrong = [
            ("\\frac{15}{2\\sqrt3}", "\\frac{5\\sqrt3}{2}"),
            ("72/2", "36"),
            ("x=4.0", "x=4"),
            ("A.", "A"),
            ("30°", "30"),
            ("6√2", "6\\sqrt2"),
            ("\\frac{6}{14}", "\\frac{3}{7}"),
        ];
        for (given, gold) in wrong {
            assert!(!compat_equivalent(given, gold), "{given:?} for {gold:?}");
        }
    }

    #[test]
    fn its_box() {
        assert_eq!(
            compat_boxed("\\boxed{1} or \\boxed{ \\frac{1}{2} }"),
            "\\frac{1}{2}"
        );
        assert_eq!(compat_boxed("\\boxed {1}"), "None");
        assert_eq!(compat_boxed("\\boxed{1"), "None");
        assert_eq!(compat_boxed("\\boxed{\\}}"), "\\");
    }
}
