//! Units of measure behind a number. A missing unit is no fault; one of another dimension is.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::One as _;

use super::token::{Kind, Token};

/// Powers of: length, time, mass, angle, money, degrees Celsius, degrees Fahrenheit.
pub(crate) type Dimension = [i8; 7];

const LENGTH: usize = 0;
const TIME: usize = 1;
const MASS: usize = 2;
pub(crate) const ANGLE: usize = 3;
const MONEY: usize = 4;
const CELSIUS: usize = 5;
const FAHRENHEIT: usize = 6;

/// A unit and its size in the base unit of its dimension.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unit {
    pub(crate) dimension: Dimension,
    pub(crate) scale: BigRational,
}

/// Names, axis and its power, numerator and denominator in metres, seconds, grams, degrees, dollars.
type Row = (&'static [&'static str], usize, i8, u64, u64);
const UNITS: &[Row] = &[
    (&["mm", "millimeter", "millimetre"], LENGTH, 1, 1, 1000),
    (&["cm", "centimeter", "centimetre"], LENGTH, 1, 1, 100),
    (&["dm", "decimeter", "decimetre"], LENGTH, 1, 1, 10),
    (&["m", "meter", "metre"], LENGTH, 1, 1, 1),
    (&["km", "kilometer", "kilometre"], LENGTH, 1, 1000, 1),
    (&["in", "inch", "inche"], LENGTH, 1, 254, 10_000),
    (&["ft", "foot", "feet"], LENGTH, 1, 3048, 10_000),
    (&["yd", "yard"], LENGTH, 1, 9144, 10_000),
    (&["mi", "mile"], LENGTH, 1, 1_609_344, 1000),
    (&["ha", "hectare"], LENGTH, 2, 10_000, 1),
    (&["l", "liter", "litre"], LENGTH, 3, 1, 1000),
    (&["ml", "milliliter", "millilitre"], LENGTH, 3, 1, 1_000_000),
    (&["cc"], LENGTH, 3, 1, 1_000_000),
    (&["degree", "deg"], ANGLE, 1, 1, 1),
    (&["s", "sec", "second"], TIME, 1, 1, 1),
    (&["min", "minute"], TIME, 1, 60, 1),
    (&["h", "hr", "hour"], TIME, 1, 3600, 1),
    (&["day"], TIME, 1, 86_400, 1),
    (&["week"], TIME, 1, 604_800, 1),
    (&["month"], TIME, 1, 2_629_746, 1),
    (&["year", "yr"], TIME, 1, 31_556_952, 1),
    (&["mg", "milligram"], MASS, 1, 1, 1000),
    (&["g", "gram"], MASS, 1, 1, 1),
    (&["kg", "kilogram"], MASS, 1, 1000, 1),
    (&["ton", "tonne"], MASS, 1, 1_000_000, 1),
    (&["lb", "pound"], MASS, 1, 45_359_237, 100_000),
    (&["oz", "ounce"], MASS, 1, 45_359_237, 1_600_000),
    (&["dollar", "usd"], MONEY, 1, 1, 1),
    (&["cent"], MONEY, 1, 1, 100),
];

/// Words that name no unit of their own: 24 square units.
const GENERIC: [&str; 2] = ["unit", "units"];
const RADIANS: [&str; 3] = ["rad", "radian", "radians"];

fn find(word: &str) -> Option<&'static Row> {
    let named = |word: &str| UNITS.iter().find(|row| row.0.contains(&word));
    // Plurals of names, not of symbols.
    named(word).or_else(|| {
        let singular = word.strip_suffix('s')?;
        named(singular).filter(|_| singular.len() > 2 || matches!(singular, "hr" | "yd" | "lb"))
    })
}

/// Whether a run of plain letters can only be a unit: two letters at least.
pub(crate) fn is_unit_word(word: &str) -> bool {
    word.len() > 1
        && (GENERIC.contains(&word)
            || RADIANS.contains(&word)
            || matches!(word, "mph" | "kph")
            || find(word).is_some())
}

/// What stands behind a number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Suffix {
    Percent,
    Unit(Unit),
    /// "units", "square units", "cubic units": a length of no known unit to that power.
    Units(i8),
    /// An angle that is a bare number.
    Radians,
}

/// Cuts a unit, a percent sign or words off the end.
pub(crate) fn split_suffix(tokens: &[Token]) -> (&[Token], Option<Suffix>) {
    // `3+9\%` is 3.09: there the sign belongs to the last term, which the parser reads.
    if let [value @ .., sign] = tokens
        && is_percent(sign)
        && is_sum_or_product(value)
    {
        return (tokens, None);
    }
    // A unit has at most 16 tokens: `square feet per hour`, `cm^{2}/s^{2}`.
    for start in tokens.len().saturating_sub(16).max(1)..tokens.len() {
        let (value, tail) = tokens.split_at(start);
        if let Some(suffix) = parse_suffix(tail) {
            let is_degree = matches!(&suffix, Suffix::Unit(unit) if unit.dimension[ANGLE] == 1);
            // `\tan 35^\circ` has its degrees inside.
            if is_degree && value.iter().any(is_function) {
                return (tokens, None);
            }
            return (value, Some(suffix));
        }
    }
    (tokens, None)
}

fn is_percent(token: &Token) -> bool {
    token.is_mark('%') || token.is_word(&["percent"])
}

/// Whether terms or factors stand outside of all brackets, a sign in front apart.
fn is_sum_or_product(tokens: &[Token]) -> bool {
    let mut depth = 0_i32;
    tokens.iter().enumerate().any(|(position, token)| {
        match &token.kind {
            Kind::Mark('(' | '[' | '{') => depth += 1,
            Kind::Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        let is_sign =
            token.is_mark('+') || token.is_mark('-') || token.is_command(&["pm", "mp", "div"]);
        let is_times = token.is_mark('*') || token.is_command(&["times", "cdot", "ast"]);
        depth == 0 && (is_sign && position > 0 || is_times)
    })
}

fn is_function(token: &Token) -> bool {
    const NAMES: [&str; 6] = ["sin", "cos", "tan", "cot", "sec", "csc"];
    token.is_command(&NAMES) || token.is_word(&NAMES)
}

fn degree() -> Suffix {
    let mut dimension = Dimension::default();
    dimension[ANGLE] = 1;
    Suffix::Unit(Unit {
        dimension,
        scale: BigRational::one(),
    })
}

/// `^\circ`, `^{\circ}`, `\degree`; the rest behind them.
fn take_circle(tokens: &[Token]) -> Option<&[Token]> {
    let is_circle = |token: &Token| token.is_command(&["circ", "degree", "textdegree"]);
    match tokens {
        [hat, open, circle, close, rest @ ..]
            if hat.is_mark('^') && open.is_mark('{') && is_circle(circle) && close.is_mark('}') =>
        {
            Some(rest)
        }
        [hat, circle, rest @ ..] if hat.is_mark('^') && is_circle(circle) => Some(rest),
        [circle, rest @ ..] if is_circle(circle) => Some(rest),
        _ => None,
    }
}

fn parse_suffix(tail: &[Token]) -> Option<Suffix> {
    match tail {
        [only] if is_percent(only) => return Some(Suffix::Percent),
        [first, rest @ ..] if first.is_word(&["degree", "degrees"]) && !rest.is_empty() => {
            return temperature(rest);
        }
        _ => {}
    }
    if let Some(rest) = take_circle(tail) {
        return if rest.is_empty() {
            Some(degree())
        } else {
            temperature(rest)
        };
    }
    let mut reader = UnitReader {
        rest: tail,
        unit: Unit {
            dimension: Dimension::default(),
            scale: BigRational::one(),
        },
        nameless: None,
    };
    reader.product()?;
    Some(reader.nameless.unwrap_or(Suffix::Unit(reader.unit)))
}

fn temperature(rest: &[Token]) -> Option<Suffix> {
    let axis = match rest {
        [only] => match &only.kind {
            Kind::Letter('C') => CELSIUS,
            Kind::Letter('F') => FAHRENHEIT,
            Kind::Word(word) if word == "celsius" => CELSIUS,
            Kind::Word(word) if word == "fahrenheit" => FAHRENHEIT,
            _ => return None,
        },
        _ => return None,
    };
    let mut dimension = Dimension::default();
    dimension[axis] = 1;
    Some(Suffix::Unit(Unit {
        dimension,
        scale: BigRational::one(),
    }))
}

struct UnitReader<'a> {
    rest: &'a [Token],
    unit: Unit,
    /// Units and radians, which stand alone.
    nameless: Option<Suffix>,
}

/// Whether units without a name measure the same: "units" are lengths, "square units" areas.
pub(crate) fn fits(unit: &Unit, power: i8) -> bool {
    let mut dimension = Dimension::default();
    dimension[LENGTH] = power;
    unit.dimension == dimension
}

impl UnitReader<'_> {
    /// All of it: `km/h`, `square feet`, `cm^3 per s`.
    fn product(&mut self) -> Option<()> {
        self.factor(1)?;
        let mut num_factors = 1;
        while let Some((first, rest)) = self.rest.split_first() {
            let is_over = first.is_mark('/') || first.is_word(&["per"]);
            if is_over || first.is_command(&["cdot", "times"]) {
                self.rest = rest;
            }
            self.factor(if is_over { -1 } else { 1 })?;
            num_factors += 1;
            // `5 ft 6 in` and longer rows are no products of units.
            if num_factors > 3 || self.nameless.is_some() {
                return None;
            }
        }
        Some(())
    }

    fn factor(&mut self, sign: i8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        let before = if first.is_word(&["square", "sq"]) {
            2
        } else if first.is_word(&["cubic", "cu"]) {
            3
        } else {
            1
        };
        let (name, rest) = if before > 1 {
            rest.split_first()?
        } else {
            (first, rest)
        };
        let word = match &name.kind {
            Kind::Word(word) => word.clone(),
            // `km/h`: behind a unit a letter is one.
            Kind::Letter(letter) if name.is_text || self.unit.dimension != Dimension::default() => {
                letter.to_ascii_lowercase().to_string()
            }
            _ => return None,
        };
        let (power, rest) = match rest {
            [hat, open, digit, close, rest @ ..]
                if hat.is_mark('^') && open.is_mark('{') && close.is_mark('}') =>
            {
                (digit_of(digit)?, rest)
            }
            [hat, digit, rest @ ..] if hat.is_mark('^') => (digit_of(digit)?, rest),
            [word, rest @ ..] if word.is_word(&["squared"]) => (2, rest),
            [word, rest @ ..] if word.is_word(&["cubed"]) => (3, rest),
            rest => (1, rest),
        };
        if before > 1 && power > 1 {
            return None;
        }
        self.rest = rest;
        let power = before * power;
        match word.as_str() {
            word if GENERIC.contains(&word) => self.nameless = Some(Suffix::Units(power)),
            word if RADIANS.contains(&word) && power == 1 => {
                self.nameless = Some(Suffix::Radians);
            }
            "mph" => {
                self.multiply(find("mile")?, sign);
                self.multiply(find("hour")?, -sign);
            }
            "kph" => {
                self.multiply(find("km")?, sign);
                self.multiply(find("hour")?, -sign);
            }
            word => self.multiply(find(word)?, power * sign),
        }
        Some(())
    }

    fn multiply(&mut self, row: &Row, power: i8) {
        let (_, axis, own_power, numerator, denominator) = row;
        if let Some(total) = self.unit.dimension.get_mut(*axis) {
            *total += own_power * power;
        }
        let scale = BigRational::new(BigInt::from(*numerator), BigInt::from(*denominator));
        self.unit.scale *= scale.pow(i32::from(power));
    }
}

fn digit_of(token: &Token) -> Option<i8> {
    match token.kind {
        Kind::Digit(digit @ 1..=3) => i8::try_from(digit).ok(),
        _ => None,
    }
}
