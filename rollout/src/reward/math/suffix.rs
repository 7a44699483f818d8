//! What stands behind a number: a percent sign, a unit, several of them. A missing unit is no fault; one of another dimension is.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One as _, Zero as _};

use super::parse::parse_number;
use super::token::{Kind, Token};
use super::units::{ANGLE, CELSIUS, Dimension, FAHRENHEIT, GENERIC, RADIANS, Unit, find};

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

impl Suffix {
    pub(crate) fn is_degrees(&self) -> bool {
        matches!(self, Self::Unit(unit) if unit.is_angle())
    }
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
        // In `AB + CM` no number stands before the segment.
        let ends_value = |token: &Token| match token.kind {
            Kind::Mark(mark) => !"+-*/^_=<>([{:".contains(mark),
            _ => true,
        };
        if !value.last().is_some_and(ends_value) {
            continue;
        }
        if let Some(suffix) = parse_suffix(tail) {
            // `\tan 35^\circ` has its degrees inside.
            if suffix.is_degrees() && value.iter().any(is_function) {
                return (tokens, None);
            }
            return (value, Some(suffix));
        }
    }
    (tokens, None)
}

/// `5 ft 6 in`, `1 hour and 30 minutes`, `30^\circ 15'`, `6'2"`: the value in the first unit. Each unit is a smaller one of the
/// same kind, and no part is as much as one of the unit before it.
pub(crate) fn compound(tokens: &[Token]) -> Option<(BigRational, Unit)> {
    let mut rest = tokens;
    let mut parts: Vec<(BigRational, Unit)> = Vec::new();
    while !rest.is_empty() {
        let (number, behind) = split_where(rest, |t| !is_numeric(t));
        let (tail, behind) = split_where(behind, |t| matches!(t.kind, Kind::Digit(_)));
        let number = parse_number(number)?;
        let degrees = parts.first().map(|(_, unit)| unit.is_angle());
        let unit = part_unit(tail, degrees, behind.is_empty())?;
        if let Some((_, last)) = parts.last() {
            let is_smaller = unit.dimension == last.dimension && unit.scale < last.scale;
            if !is_smaller || &number * &unit.scale >= last.scale {
                return None;
            }
        }
        parts.push((number, unit));
        rest = behind;
    }
    let first = parts.first()?.1.clone();
    let sum = |sum, (number, unit): &(BigRational, Unit)| sum + number * &unit.scale;
    let total: BigRational = parts.iter().fold(BigRational::zero(), sum);
    (parts.len() > 1).then(|| (total / &first.scale, first))
}

fn split_where(tokens: &[Token], is_end: impl Fn(&Token) -> bool) -> (&[Token], &[Token]) {
    let end = tokens.iter().position(is_end).unwrap_or(tokens.len());
    tokens.split_at(end)
}

fn is_numeric(token: &Token) -> bool {
    matches!(token.kind, Kind::Digit(_) | Kind::Mark('.'))
}

/// The unit of one part; what separates it from the next one is no part of it.
fn part_unit(tail: &[Token], degrees: Option<bool>, is_last: bool) -> Option<Unit> {
    let is_separator = |t: &Token| t.is_mark(',') || t.is_word(&["and"]);
    let num_separators = tail.iter().rev().take_while(|t| is_separator(t)).count();
    if is_last && num_separators > 0 {
        return None;
    }
    let tail = tail.get(..tail.len() - num_separators)?;
    let minute = |unit: &'static str, per_degree: i64| match degrees {
        Some(true) => Some(Unit {
            scale: BigRational::new(BigInt::one(), BigInt::from(per_degree)),
            ..Unit::base(ANGLE)
        }),
        _ => {
            let mut length = Unit::one();
            length.multiply(find(unit)?, 1);
            Some(length)
        }
    };
    match tail {
        [mark] if mark.is_mark('\'') => return minute("ft", 60),
        [mark] if mark.is_mark('"') => return minute("in", 3600),
        [a, b] if a.is_mark('\'') && b.is_mark('\'') => return minute("in", 3600),
        _ => {}
    }
    // Behind a number and before another one a letter is a unit.
    let text: Vec<Token> = tail
        .iter()
        .map(|token| Token {
            is_text: true,
            ..token.clone()
        })
        .collect();
    match parse_suffix(&text)? {
        Suffix::Unit(unit) => Some(unit),
        _ => None,
    }
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
        // `4 (units)`
        [open, inner @ .., close] if open.is_mark('(') && close.is_mark(')') => {
            let is_word = inner
                .first()
                .is_some_and(|t| matches!(t.kind, Kind::Word(_)));
            return if is_word { parse_suffix(inner) } else { None };
        }
        _ => {}
    }
    if let Some(rest) = take_circle(tail) {
        return if rest.is_empty() {
            Some(Suffix::Unit(Unit::base(ANGLE)))
        } else {
            temperature(rest)
        };
    }
    let mut reader = UnitReader {
        rest: tail,
        unit: Unit::one(),
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
    Some(Suffix::Unit(Unit::base(axis)))
}

struct UnitReader<'a> {
    rest: &'a [Token],
    unit: Unit,
    /// Units and radians, which stand alone.
    nameless: Option<Suffix>,
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
            // Longer rows are no products of units.
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
            without_point(rest).split_first()?
        } else {
            (first, rest)
        };
        // `km/h`: behind a unit a letter is one.
        let takes_letters = name.is_text || self.unit.dimension != Dimension::default();
        let (word, rest) = match (&name.kind, rest) {
            (Kind::Word(word), rest) => (word.clone(), rest),
            (Kind::Letter(letter), rest) if takes_letters => (letter.to_string(), rest),
            (Kind::Mark('Ω'), rest) => ("Ω".to_owned(), rest),
            // The micro sign, or the Greek letter in `\text{}`.
            (mu, [unit, rest @ ..])
                if *mu == Kind::Mark('µ') || name.is_text && name.is_command(&["mu"]) =>
            {
                let Kind::Letter(letter) = unit.kind else {
                    return None;
                };
                (format!("μ{letter}"), rest)
            }
            _ => return None,
        };
        let (power, rest) = match without_point(rest) {
            [hat, open, minus, digit, close, rest @ ..]
                if hat.is_mark('^')
                    && open.is_mark('{')
                    && minus.is_mark('-')
                    && close.is_mark('}') =>
            {
                (-digit_of(digit)?, rest)
            }
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
        if before > 1 && power != 1 {
            return None;
        }
        self.rest = rest;
        let power = before * power;
        let lower = word.to_ascii_lowercase();
        if GENERIC.contains(&lower.as_str()) {
            self.nameless = Some(Suffix::Units(power));
        } else if RADIANS.contains(&lower.as_str()) && power == 1 {
            self.nameless = Some(Suffix::Radians);
        } else {
            self.unit.multiply(find(&word)?, power * sign);
        }
        Some(())
    }
}

/// Behind `ft.`
fn without_point(tokens: &[Token]) -> &[Token] {
    match tokens {
        [point, rest @ ..] if point.is_mark('.') => rest,
        tokens => tokens,
    }
}

fn digit_of(token: &Token) -> Option<i8> {
    match token.kind {
        Kind::Digit(digit @ 1..=3) => i8::try_from(digit).ok(),
        _ => None,
    }
}
