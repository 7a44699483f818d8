//! Units of measure behind a number. A missing unit is no fault; one of another dimension is.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::token::{Kind, Token};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// To the power of 1, 2 or 3.
    Length(u8),
    Angle,
    Time,
    Mass,
    Money,
}

/// A unit and its size in the base unit of its dimension.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unit {
    pub(crate) dimension: Dimension,
    pub(crate) scale: BigRational,
}

/// Names, dimension, numerator and denominator in metres, degrees, seconds, grams, dollars.
const UNITS: [(&[&str], Dimension, u64, u64); 21] = [
    (
        &[
            "mm",
            "millimeter",
            "millimeters",
            "millimetre",
            "millimetres",
        ],
        Dimension::Length(1),
        1,
        1000,
    ),
    (
        &[
            "cm",
            "centimeter",
            "centimeters",
            "centimetre",
            "centimetres",
        ],
        Dimension::Length(1),
        1,
        100,
    ),
    (
        &["dm", "decimeter", "decimeters"],
        Dimension::Length(1),
        1,
        10,
    ),
    (
        &["m", "meter", "meters", "metre", "metres"],
        Dimension::Length(1),
        1,
        1,
    ),
    (
        &["km", "kilometer", "kilometers", "kilometre", "kilometres"],
        Dimension::Length(1),
        1000,
        1,
    ),
    (&["in", "inch", "inches"], Dimension::Length(1), 254, 10_000),
    (&["ft", "foot", "feet"], Dimension::Length(1), 3048, 10_000),
    (&["yd", "yard", "yards"], Dimension::Length(1), 9144, 10_000),
    (
        &["mi", "mile", "miles"],
        Dimension::Length(1),
        1_609_344,
        1000,
    ),
    (&["degree", "degrees", "deg"], Dimension::Angle, 1, 1),
    (&["s", "sec", "second", "seconds"], Dimension::Time, 1, 1),
    (&["min", "minute", "minutes"], Dimension::Time, 60, 1),
    (&["h", "hr", "hour", "hours"], Dimension::Time, 3600, 1),
    (&["day", "days"], Dimension::Time, 86_400, 1),
    (&["g", "gram", "grams"], Dimension::Mass, 1, 1),
    (&["kg", "kilogram", "kilograms"], Dimension::Mass, 1000, 1),
    (
        &["lb", "lbs", "pound", "pounds"],
        Dimension::Mass,
        45_359_237,
        100_000,
    ),
    (
        &["oz", "ounce", "ounces"],
        Dimension::Mass,
        45_359_237,
        1_600_000,
    ),
    (&["dollar", "dollars"], Dimension::Money, 1, 1),
    (&["cent", "cents"], Dimension::Money, 1, 100),
    (
        &["ton", "tons", "tonne", "tonnes"],
        Dimension::Mass,
        1_000_000,
        1,
    ),
];

/// Words that name no unit of their own: 24 square units.
const GENERIC: [&str; 2] = ["unit", "units"];

/// Whether a run of plain letters can only be a unit: two letters at least.
pub(crate) fn is_unit_word(word: &str) -> bool {
    word.len() > 1
        && (GENERIC.contains(&word) || UNITS.iter().any(|(names, ..)| names.contains(&word)))
}

/// What stands behind a number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Suffix {
    Percent,
    /// `None`: "units", which fit every length.
    Unit(Option<Unit>),
}

/// Cuts a unit or a percent sign off the end.
pub(crate) fn split_suffix(tokens: &[Token]) -> (&[Token], Option<Suffix>) {
    // A unit has at most 6 tokens: `square feet`, `cm^{2}`.
    for start in tokens.len().saturating_sub(6).max(1)..tokens.len() {
        let (value, tail) = tokens.split_at(start);
        if let Some(suffix) = parse_suffix(tail) {
            return (value, Some(suffix));
        }
    }
    (tokens, None)
}

fn parse_suffix(tail: &[Token]) -> Option<Suffix> {
    match tail {
        [only] if only.is_mark('%') || only.is_word(&["percent"]) => return Some(Suffix::Percent),
        _ => {}
    }
    let (power, rest) = match tail {
        [word, rest @ ..] if word.is_word(&["square", "sq"]) => (2, rest),
        [word, rest @ ..] if word.is_word(&["cubic", "cu"]) => (3, rest),
        rest => (1, rest),
    };
    let (name, exponent) = rest.split_first()?;
    let power = match exponent {
        [] => power,
        [
            hat,
            Token {
                kind: Kind::Digit(digit @ 1..=3),
                ..
            },
        ] if hat.is_mark('^') && power == 1 => *digit,
        [
            hat,
            open,
            Token {
                kind: Kind::Digit(digit @ 1..=3),
                ..
            },
            close,
        ] if hat.is_mark('^') && open.is_mark('{') && close.is_mark('}') && power == 1 => *digit,
        _ => return None,
    };
    let word = match &name.kind {
        Kind::Word(word) => word.clone(),
        Kind::Letter(letter) if name.is_text => letter.to_string(),
        _ => return None,
    };
    if GENERIC.contains(&word.as_str()) {
        return Some(Suffix::Unit(None));
    }
    let (_, dimension, numerator, denominator) = UNITS
        .iter()
        .find(|(names, ..)| names.contains(&word.as_str()))?;
    let scale = BigRational::new(BigInt::from(*numerator), BigInt::from(*denominator));
    match (dimension, power) {
        (Dimension::Length(_), power) => {
            let scale = num_traits::pow(scale, usize::from(power));
            Some(Suffix::Unit(Some(Unit {
                dimension: Dimension::Length(power),
                scale,
            })))
        }
        (&dimension, 1) => Some(Suffix::Unit(Some(Unit { dimension, scale }))),
        _ => None,
    }
}
