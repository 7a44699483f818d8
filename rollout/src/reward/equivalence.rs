//! Are two answers the same answer? The gold answer's kind decides how.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Signed as _;

use super::answer::{Answer, Quantity, Relation};
use super::choice::{choice_of, matches_choice};
use super::extract::boxed;
use super::math::canonical::Value;
use super::math::text::{normalise, words};
use super::math::token::tokenize;
use super::math::units::Suffix;
use super::math::{Fuel, Stop};

/// Whether `prediction` (the content of a box) says what `gold` (the data set's answer) says.
///
/// Values are compared exactly, whatever their form; a decimal of at least six digits may be off by 1e-6 of the value. Degrees
/// and units may be missing but must not contradict, `50\%` is 50 and 0.5, `x=4` is 4, lists are unordered, tuples ordered.
/// An answer that we cannot read is equal to its own text only.
#[must_use]
pub fn equivalent(prediction: &str, gold: &str) -> bool {
    // ViRL39K writes its answers in boxes.
    let unboxed = boxed(gold);
    let gold = unboxed.as_deref().unwrap_or(gold);
    let (Some(prediction), Some(gold)) = (normalise(prediction), normalise(gold)) else {
        return !gold.trim().is_empty() && prediction.trim() == gold.trim();
    };
    if gold.is_empty() || prediction.is_empty() {
        return false;
    }
    if same_text(&prediction, &gold) {
        return true;
    }
    if let Some(letter) = choice_of(&gold) {
        return matches_choice(&prediction, letter);
    }
    if is_text(&words(&gold)) {
        return words(&prediction) == words(&gold);
    }
    // Out of fuel, undefined, not understood: not equal.
    compare_answers(&prediction, &gold).unwrap_or(false)
}

fn same_text(a: &str, b: &str) -> bool {
    a.chars()
        .filter(|c| *c != ' ')
        .eq(b.chars().filter(|c| *c != ' '))
}

/// Words rather than a formula.
fn is_text(words: &str) -> bool {
    const SHORT: [&str; 5] = ["yes", "no", "true", "false", "none"];
    const MATH: [&str; 9] = [
        "sqrt", "sin", "cos", "tan", "log", "percent", "square", "cubic", "and",
    ];
    let is_plain = words
        .chars()
        .all(|c| c.is_alphabetic() || matches!(c, ' ' | '-' | '\'' | ','));
    let is_word = |word: &str| SHORT.contains(&word) || (word.len() > 2 && !MATH.contains(&word));
    is_plain && words.split([' ', '-', ',']).any(is_word)
}

fn compare_answers(prediction: &str, gold: &str) -> Result<bool, Stop> {
    let mut fuel = Fuel::new();
    let gold = Answer::read(&tokenize(gold)?, true, &mut fuel)?;
    // Against a list, `3,500` is two numbers.
    let thousands = !matches!(gold, Answer::List(_));
    let prediction = Answer::read(&tokenize(prediction)?, thousands, &mut fuel)?;
    same(&prediction, &gold, &mut fuel)
}

fn same(prediction: &Answer, gold: &Answer, fuel: &mut Fuel) -> Result<bool, Stop> {
    match (prediction, gold) {
        (Answer::Quantity(p), Answer::Quantity(g)) => same_quantity(p, g, fuel),
        (
            Answer::Named {
                name: p,
                content: a,
                ..
            },
            Answer::Named {
                name: g,
                content: b,
                ..
            },
        ) => {
            if p == g {
                return same(a, b, fuel);
            }
            same_equation(prediction, gold, fuel)
        }
        (Answer::Named { content, .. }, g) if !matches!(g, Answer::Relation(_)) => {
            same(content, g, fuel)
        }
        (p, Answer::Named { content, .. }) if !matches!(p, Answer::Relation(_)) => {
            same(p, content, fuel)
        }
        (Answer::Relation(_), Answer::Named { .. })
        | (Answer::Named { .. }, Answer::Relation(_)) => same_equation(prediction, gold, fuel),
        (Answer::Relation(p), Answer::Relation(g)) => same_relation(p, g, fuel),
        (Answer::Relation(p), g @ Answer::Group { .. }) => {
            p.interval(fuel)?.map_or(Ok(false), |p| same(&p, g, fuel))
        }
        (p @ Answer::Group { .. }, Answer::Relation(g)) => {
            g.interval(fuel)?.map_or(Ok(false), |g| same(p, &g, fuel))
        }
        (
            Answer::Group {
                open: a,
                close: b,
                items: p,
            },
            Answer::Group {
                open: c,
                close: d,
                items: g,
            },
        ) => Ok((a, b) == (c, d) && same_in_order(p, g, fuel)?),
        (Answer::Matrix(p), Answer::Matrix(g)) => {
            let mut is_same = p.len() == g.len();
            for (p, g) in p.iter().zip(g) {
                is_same = is_same && same_in_order(p, g, fuel)?;
            }
            Ok(is_same)
        }
        (Answer::List(p), Answer::List(g)) => same_in_any_order(p, g, fuel),
        (Answer::List(p), g) => match p.as_slice() {
            [only] => same(only, g, fuel),
            _ => Ok(false),
        },
        _ => Ok(false),
    }
}

fn same_in_order(p: &[Answer], g: &[Answer], fuel: &mut Fuel) -> Result<bool, Stop> {
    if p.len() != g.len() {
        return Ok(false);
    }
    for (p, g) in p.iter().zip(g) {
        if !same(p, g, fuel)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Every item of each side has its own partner on the other.
fn same_in_any_order(p: &[Answer], g: &[Answer], fuel: &mut Fuel) -> Result<bool, Stop> {
    if p.len() != g.len() {
        return Ok(false);
    }
    let mut free: Vec<&Answer> = p.iter().collect();
    for gold in g {
        let mut found = None;
        for (index, candidate) in free.iter().enumerate() {
            if same(candidate, gold, fuel)? {
                found = Some(index);
                break;
            }
        }
        match found {
            Some(index) => free.swap_remove(index),
            None => return Ok(false),
        };
    }
    Ok(true)
}

fn same_quantity(p: &Quantity, g: &Quantity, fuel: &mut Fuel) -> Result<bool, Stop> {
    let hundred = BigRational::from(BigInt::from(100));
    let (mut prediction, mut gold) = (p.value.clone(), g.value.clone());
    if let (Some(Suffix::Unit(Some(a))), Some(Suffix::Unit(Some(b)))) = (&p.suffix, &g.suffix) {
        if a.dimension != b.dimension {
            return Ok(false);
        }
        prediction = prediction.multiply(&Value::rational(a.scale.clone()), fuel)?;
        gold = gold.multiply(&Value::rational(b.scale.clone()), fuel)?;
    }
    let is_decimal = p.is_long_decimal || g.is_long_decimal;
    let mut same = |a: &Value, b: &Value| -> Result<bool, Stop> {
        Ok(a.equals(b, fuel)? || (is_decimal && a.is_near(b)))
    };
    if same(&prediction, &gold)? {
        return Ok(true);
    }
    // One side in percent: 50\% is also 0.5.
    let (is_p, is_g) = (
        p.suffix == Some(Suffix::Percent),
        g.suffix == Some(Suffix::Percent),
    );
    let scale = |value: &Value| value.divide(&Value::rational(hundred.clone()), &mut Fuel::new());
    match (is_p, is_g) {
        (true, false) => same(&scale(&prediction)?, &gold),
        (false, true) => same(&prediction, &scale(&gold)?),
        _ => Ok(false),
    }
}

/// `y-2x=1` and `y=2x+1`: the differences of the sides are multiples of each other.
fn same_equation(p: &Answer, g: &Answer, fuel: &mut Fuel) -> Result<bool, Stop> {
    match (p.as_relation(), g.as_relation()) {
        (Some(p), Some(g)) => same_relation(p, g, fuel),
        _ => Ok(false),
    }
}

fn same_relation(p: &Relation, g: &Relation, fuel: &mut Fuel) -> Result<bool, Stop> {
    let Some(ratio) = p.difference.ratio_to(&g.difference, fuel)? else {
        return Ok(false);
    };
    let sign = if ratio.is_negative() {
        p.sign.flipped()
    } else {
        p.sign
    };
    Ok(sign == g.sign)
}
