//! Are two answers the same answer? The gold answer's kind decides how.

use super::answer::{Answer, Quantity};
use super::choice::{choice_of, matches_choice};
use super::clock::same_time;
use super::compare::same;
use super::extract::{boxed, closing_brace};
use super::math::numeric::has_variables;
use super::math::suffix::Suffix;
use super::math::text::{normalise, words};
use super::math::token::tokenize;
use super::math::units::find;
use super::math::{Fuel, Stop};
use super::phrase::{has_letters, is_plural, is_text, same_phrase, split_noun};
use super::read::Reader;
use super::region::infinity;
use super::verdict::{Comparison, Kind, Reason};
use super::wording::plain;

/// Whether `prediction` (the content of a box) says what `gold` (the data set's answer) says.
///
/// Values are compared exactly, whatever their form; a decimal of at least six digits may be off by 1e-6 of the value. Degrees
/// and units may be missing but must not contradict, `50\%` is 50 and 0.5, `x=4` is 4, lists are unordered, tuples ordered.
/// An answer that we cannot read is equal to its own text only.
#[must_use]
pub fn equivalent(prediction: &str, gold: &str) -> bool {
    compare(prediction, gold, 0).is_same
}

/// [`equivalent`] with its reason; `salt` chooses the random points at which what has no canonical form is compared.
#[must_use]
pub fn compare(prediction: &str, gold: &str, salt: u64) -> Comparison {
    // ViRL39K writes its answers in boxes.
    let unboxed = boxed(gold);
    let gold = unboxed.as_deref().unwrap_or(gold);
    let unwrapped = unwrap_box(prediction);
    let prediction = unwrapped.as_deref().unwrap_or(prediction);
    let verdict = |is_same, kind, reason| Comparison {
        is_same,
        kind,
        reason,
        fuel: 0,
    };
    let (Some(prediction), Some(gold)) = (
        normalise(prediction).map(|text| plain(&text)),
        normalise(gold).map(|text| plain(&text)),
    ) else {
        let is_same = !gold.trim().is_empty() && prediction.trim() == gold.trim();
        let reason = if is_same {
            Reason::SameText
        } else {
            Reason::TooLong
        };
        return verdict(is_same, Kind::Unread, reason);
    };
    if gold.is_empty() || prediction.is_empty() {
        return verdict(false, Kind::Unread, Reason::Empty);
    }
    if let Some(letter) = choice_of(&gold) {
        let is_same = matches_choice(&prediction, letter);
        return verdict(is_same, Kind::Choice, Reason::of_value(is_same));
    }
    if let Some(is_same) = same_time(&prediction, &gold) {
        return verdict(is_same, Kind::Text, Reason::of_value(is_same));
    }
    if is_text(&words(&gold)) {
        let is_same = same_phrase(&words(&prediction), &words(&gold));
        return verdict(is_same, Kind::Text, Reason::of_value(is_same));
    }
    let mut comparison = compare_formulas(&prediction, &gold, salt);
    if !comparison.is_same && same_text(&prediction, &gold) {
        comparison.is_same = true;
        comparison.reason = Reason::SameText;
    }
    comparison
}

/// Letter for letter, but for spaces that part no words or numbers.
fn same_text(a: &str, b: &str) -> bool {
    let tight = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let parts = out.ends_with(|c: char| c.is_alphanumeric())
                && word.starts_with(|c: char| c.is_alphanumeric());
            if parts {
                out.push(' ');
            }
            out.push_str(word);
        }
        out
    };
    tight(a) == tight(b)
}

fn compare_formulas(prediction: &str, gold: &str, salt: u64) -> Comparison {
    let mut fuel = Fuel::salted(salt);
    let mut result = Comparison {
        is_same: false,
        kind: Kind::Unread,
        reason: Reason::GoldNotRead,
        fuel: 0,
    };
    // `5 apples`: what the data set names, the response may name too.
    let (gold, noun) = split_noun(gold);
    let prediction = match (&noun, split_noun(prediction)) {
        (Some(gold), (value, Some(noun))) if *gold == noun => value,
        // A unit that a bare number lacks.
        (None, (value, Some(_))) if is_plural(prediction) && ends_in_number(gold) => value,
        _ => prediction,
    };
    // `12m` may be a product.
    let lettered = letter_unit(gold).filter(|_| gold.contains(' '));
    let gold = lettered.as_deref().unwrap_or(gold);
    match read(gold, true, &mut fuel) {
        Ok(gold) => {
            result.kind = kind_of(&gold);
            // Against a list or a point, `3,500` is two numbers.
            let is_row = matches!(
                gold,
                Answer::List { .. } | Answer::Group { .. } | Answer::Matrix(_)
            );
            let lettered = letter_unit(prediction).filter(|_| is_constant(&gold));
            let prediction = lettered.as_deref().unwrap_or(prediction);
            match read(prediction, !is_row, &mut fuel) {
                // 5 cm are no 5 apples.
                Ok(prediction) if noun.is_some() && has_unit(&prediction) => {
                    result.reason = Reason::OtherValue;
                }
                Ok(prediction) => match same(&prediction, &gold, &mut fuel) {
                    Ok(is_same) => {
                        result.is_same = is_same;
                        result.reason = Reason::of_value(is_same);
                    }
                    Err(stop) => result.reason = stop.into(),
                },
                Err(stop) => result.reason = stop.into(),
            }
        }
        Err(Stop::Limit) => result.reason = Reason::TooMuchWork,
        Err(_) => {}
    }
    result.fuel = fuel.burnt();
    result
}

/// Whether it is a quantity without variables, so that a letter behind the other one can only be a unit.
fn is_constant(answer: &Answer) -> bool {
    matches!(answer, Answer::Quantity(Quantity { expr: Some(expr), .. }) if !has_variables(expr))
}

fn has_unit(answer: &Answer) -> bool {
    match answer {
        Answer::Quantity(quantity) => quantity.suffix.is_some(),
        Answer::Named { content, .. } => has_unit(content),
        _ => false,
    }
}

/// `12 m`, `12 m^2`, `5 MW`, `20 m/s` as `12 \\text{m}`.
fn letter_unit(answer: &str) -> Option<String> {
    let powers = ["^2", "^3", "^{2}", "^{3}"];
    let is_letter = |c: char| c.is_ascii_alphabetic();
    let power = powers.iter().find(|power| answer.ends_with(**power));
    let base = answer.strip_suffix(*power.unwrap_or(&"")).unwrap_or(answer);
    let mut value = base.trim_end_matches(is_letter);
    let mut names = vec![base.get(value.len()..)?];
    if let Some(before) = value.strip_suffix('/') {
        value = before.trim_end_matches(is_letter);
        names.push(before.get(value.len()..)?);
    }
    // `5K` may be thousands.
    let is_unit = |name: &&str| find(name).is_some() && !matches!(*name, "K" | "C");
    let is_power = power.is_none() || names.len() > 1 || base.ends_with('m');
    let number = value.trim_end();
    let is_number = ends_in_number(number) || value.ends_with(' ') && is_term(number);
    let unit = answer.get(value.len()..)?;
    (is_number && is_power && names.iter().all(is_unit))
        .then(|| format!("{number} \\text{{{unit}}}"))
}

/// `10\sqrt{3}`: no letters, no sum.
fn is_term(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    unsigned.contains(|c: char| c.is_ascii_digit())
        && !has_letters(unsigned)
        && !unsigned.contains(['+', '-', '=', '<', '>', ','])
}

/// One plain number, alone or behind `x =`; in `9+3m` the letter belongs to the last term.
fn ends_in_number(text: &str) -> bool {
    let number = text.rsplit_once('=').map_or(text, |(_, number)| number);
    let number = number.trim();
    let number = number.strip_prefix('-').unwrap_or(number);
    number.ends_with(|c: char| c.is_ascii_digit())
        && number
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | ','))
}

/// Without a box around all of it.
fn unwrap_box(answer: &str) -> Option<String> {
    let answer = answer.trim();
    let inner = answer.strip_prefix("\\boxed{")?;
    // `\boxed{5}^{2}` is not 5.
    let is_whole = closing_brace(inner)? + 1 == inner.len();
    boxed(answer).filter(|_| is_whole)
}

fn read(text: &str, thousands: bool, fuel: &mut Fuel) -> Result<Answer, Stop> {
    // Letters that are no product.
    let speed = letter_unit(text).filter(|_| text.contains("m/s"));
    let text = speed.as_deref().unwrap_or(text);
    Reader { thousands, fuel }.answer(&tokenize(text)?, 0)
}

fn kind_of(answer: &Answer) -> Kind {
    match answer {
        Answer::Quantity(quantity) => kind_of_quantity(quantity),
        Answer::Named {
            content, equation, ..
        } => match (content.as_ref(), equation) {
            (Answer::Group { .. }, None) => Kind::Interval,
            _ => Kind::Equation,
        },
        Answer::Relation(relation) if relation.sign == super::answer::Sign::Equal => Kind::Equation,
        Answer::Relation(_) => Kind::Relation,
        Answer::Group { open, close, items } => {
            let has_infinity = items.iter().any(|item| match item {
                Answer::Quantity(quantity) => infinity(quantity).is_some(),
                _ => false,
            });
            if items.len() == 2 && (*open == '[' || *close == ']' || has_infinity) {
                Kind::Interval
            } else {
                Kind::Tuple
            }
        }
        Answer::List { is_set: true, .. } => Kind::Set,
        Answer::List { .. } => Kind::List,
        Answer::Ratio(_) => Kind::Ratio,
        Answer::Matrix(_) => Kind::Matrix,
        Answer::Forms(forms) => forms.first().map_or(Kind::Expression, kind_of),
    }
}

fn kind_of_quantity(quantity: &Quantity) -> Kind {
    match &quantity.suffix {
        Some(Suffix::Percent) => Kind::Percentage,
        Some(suffix) if suffix.is_degrees() => Kind::Degrees,
        Some(Suffix::Radians | Suffix::Unit(_) | Suffix::Units(_)) => Kind::Measure,
        None => match &quantity.value {
            Ok(value) if value.as_rational().is_some() => Kind::Number,
            _ => Kind::Expression,
        },
    }
}

impl From<Stop> for Reason {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Syntax => Self::NotRead,
            Stop::Limit => Self::TooMuchWork,
            Stop::Undefined => Self::Undefined,
        }
    }
}
