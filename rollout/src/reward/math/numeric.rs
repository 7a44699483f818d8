//! Are two expressions the same where no canonical form decides: their values to 200 bits, at random points for variables.
//!
//! The points come from a salt, so that no response can be written for them, and are never small whole numbers. Both sides
//! must agree wherever the second one (the data set's answer) has a value, at four points at least.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed as _, ToPrimitive as _, Zero as _};

use super::expr::{Expr, Function};
use super::fixed::Fixed;
use super::{Fuel, Stop};

/// Points of mixed sign, then as many positive ones.
const POINTS: u64 = 8;
const NEEDED: usize = 4;
const MAX_EXPONENT: i64 = 10_000;

/// Whether `expr` and `gold` are one function of their variables.
pub(crate) fn same_function(expr: &Expr, gold: &Expr, fuel: &mut Fuel) -> Result<bool, Stop> {
    let salt = fuel.salt();
    if !has_variables(expr) && !has_variables(gold) {
        let point = Point { salt, number: 0 };
        return Ok(point
            .value(expr, false, fuel)?
            .agrees(&point.value(gold, false, fuel)?));
    }
    let mut num_valid = 0;
    for number in 0..2 * POINTS {
        if number >= POINTS && num_valid >= NEEDED {
            break;
        }
        let point = Point { salt, number };
        let gold = match point.value(gold, false, fuel) {
            Ok(gold) => gold,
            Err(Stop::Undefined) => continue,
            Err(stop) => return Err(stop),
        };
        match point.value(expr, false, fuel) {
            Ok(value) if value.agrees(&gold) => num_valid += 1,
            Ok(_) | Err(Stop::Undefined) => return Ok(false),
            Err(stop) => return Err(stop),
        }
    }
    Ok(num_valid >= NEEDED)
}

/// Whether a constant differs from the constant `gold` by at most a millionth of the larger one.
pub(crate) fn is_near(expr: &Expr, gold: &Expr, fuel: &mut Fuel) -> Result<bool, Stop> {
    if has_variables(expr) || has_variables(gold) {
        return Ok(false);
    }
    let point = Point { salt: 0, number: 0 };
    Ok(point
        .value(expr, false, fuel)?
        .is_near(&point.value(gold, false, fuel)?))
}

/// Which of two constants is less.
pub(crate) fn order(a: &Expr, b: &Expr, fuel: &mut Fuel) -> Result<Ordering, Stop> {
    if has_variables(a) || has_variables(b) {
        return Err(Stop::Syntax);
    }
    let point = Point { salt: 0, number: 0 };
    let (a, b) = (point.value(a, false, fuel)?, point.value(b, false, fuel)?);
    let difference = a.add(&b.negated())?;
    Ok(if difference.is_tiny() {
        Ordering::Equal
    } else if difference.is_negative() {
        Ordering::Less
    } else {
        Ordering::Greater
    })
}

pub(crate) fn has_variables(expr: &Expr) -> bool {
    // The base that is left to the reader is one.
    let is_variable = |part: &Expr| match part {
        Expr::Variable(name) => name != "e",
        part => matches!(part, Expr::Logarithm(None, _)),
    };
    any(expr, &mut |part| is_variable(part))
}

/// Whether 0 is multiplied with letters that no gold expression has: `0 but 5` is no 0, though `0x` is.
pub(crate) fn hides_words(expr: &Expr, gold: &[Expr]) -> bool {
    let is_foreign = |part: &Expr| {
        let is_letter = matches!(part, Expr::Variable(_));
        is_letter
            && !gold
                .iter()
                .any(|gold| any(gold, &mut |other| other == part))
    };
    any(expr, &mut |part| match part {
        Expr::Product(factors) => {
            let is_zero =
                |factor: &Expr| matches!(factor, Expr::Number(number) if number.is_zero());
            let num_foreign = || factors.iter().filter(|factor| is_foreign(factor)).count();
            factors.iter().any(is_zero) && num_foreign() > 1
        }
        _ => false,
    })
}

/// Whether a part of `expr`, or all of it, is such a one.
fn any(expr: &Expr, is_such: &mut dyn FnMut(&Expr) -> bool) -> bool {
    if is_such(expr) {
        return true;
    }
    match expr {
        Expr::Number(_) | Expr::Pi | Expr::Variable(_) => false,
        Expr::Degrees(a)
        | Expr::Negative(a)
        | Expr::Function(_, a)
        | Expr::Absolute(a)
        | Expr::Logarithm(None, a) => any(a, is_such),
        Expr::Sum(items) | Expr::Product(items) => items.iter().any(|item| any(item, is_such)),
        Expr::Quotient(a, b)
        | Expr::Power(a, b)
        | Expr::Root(a, b)
        | Expr::Logarithm(Some(a), b) => any(a, is_such) || any(b, is_such),
    }
}

/// What the variables are.
struct Point {
    salt: u64,
    number: u64,
}

impl Point {
    fn variable(&self, name: &str) -> Result<Fixed, Stop> {
        match name {
            "e" => return Ok(Fixed::e().clone()),
            "\\infty" => return Err(Stop::Syntax),
            _ => {}
        }
        let mut state = mix(self.salt ^ mix(self.number.wrapping_add(0x5bd1)));
        for byte in name.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        let low = state & 0xffff_ffff;
        let top = BigInt::from(low + 0x4000_0000);
        let value = BigRational::new(top, BigInt::from(0x6000_0001_u32));
        let is_negative = self.number < POINTS && state >> 63 == 1;
        Fixed::rational(&if is_negative { -value } else { value })
    }

    fn value(&self, expr: &Expr, is_angle: bool, fuel: &mut Fuel) -> Result<Fixed, Stop> {
        fuel.burn(8)?;
        let mut value = |expr: &Expr| self.value(expr, is_angle, fuel);
        match expr {
            Expr::Number(number) => Fixed::rational(number),
            Expr::Pi => Ok(Fixed::pi().clone()),
            Expr::Variable(name) => self.variable(name),
            Expr::Degrees(angle) => {
                let angle = value(angle)?;
                if is_angle {
                    angle.multiply(Fixed::pi())?.divide(&Fixed::integer(180))
                } else {
                    Ok(angle)
                }
            }
            Expr::Negative(inner) => Ok(value(inner)?.negated()),
            Expr::Absolute(inner) => Ok(value(inner)?.absolute()),
            Expr::Sum(terms) => terms
                .iter()
                .try_fold(Fixed::integer(0), |sum, term| sum.add(&value(term)?)),
            Expr::Product(factors) => factors
                .iter()
                .try_fold(Fixed::integer(1), |product, factor| {
                    product.multiply(&value(factor)?)
                }),
            Expr::Quotient(numerator, denominator) => {
                let denominator = value(denominator)?;
                value(numerator)?.divide(&denominator)
            }
            Expr::Power(base, exponent) => {
                let base = value(base)?;
                self.power(&base, exponent, fuel)
            }
            Expr::Root(radicand, index) => {
                let radicand = value(radicand)?;
                let index = whole(index).and_then(|index| u32::try_from(index).ok());
                radicand.root(index.filter(|index| *index <= 64).ok_or(Stop::Limit)?, fuel)
            }
            Expr::Function(function, operand) => {
                let operand = self.value(operand, true, fuel)?;
                apply(*function, &operand, fuel)
            }
            Expr::Logarithm(base, operand) => {
                let logarithm = self.value(operand, false, fuel)?.ln(fuel)?;
                let base = match base {
                    Some(base) => self.value(base, false, fuel)?,
                    None => self.variable("\\log")?.absolute(),
                };
                logarithm.divide(&base.ln(fuel)?)
            }
        }
    }

    fn power(&self, base: &Fixed, exponent: &Expr, fuel: &mut Fuel) -> Result<Fixed, Stop> {
        let Some(exponent) = rational(exponent) else {
            let exponent = self.value(exponent, false, fuel)?;
            return base.ln(fuel)?.multiply(&exponent)?.exp(fuel);
        };
        let (whole, index) = (exponent.numer().to_i64(), exponent.denom().to_u32());
        match (whole, index) {
            (Some(whole), Some(index)) if whole.abs() <= MAX_EXPONENT && index <= 64 => {
                if base.is_tiny() && whole <= 0 {
                    return Err(Stop::Undefined);
                }
                let root = if index == 1 {
                    base.clone()
                } else {
                    base.root(index, fuel)?
                };
                root.power(whole, fuel)
            }
            _ => base
                .ln(fuel)?
                .multiply(&Fixed::rational(&exponent)?)?
                .exp(fuel),
        }
    }
}

fn apply(function: Function, operand: &Fixed, fuel: &mut Fuel) -> Result<Fixed, Stop> {
    let one = Fixed::integer(1);
    let trigonometric = |fuel: &mut Fuel| operand.sin_cos(fuel);
    match function {
        Function::Sin => Ok(trigonometric(fuel)?.0),
        Function::Cos => Ok(trigonometric(fuel)?.1),
        Function::Tan => {
            let (sin, cos) = trigonometric(fuel)?;
            sin.divide(&cos)
        }
        Function::Arctan => operand.arctan(fuel),
        Function::Arcsin | Function::Arccos => {
            // arcsin x = arctan(x / sqrt(1 - x^2)); the ends are +-pi/2.
            let rest = one.add(&operand.multiply(operand)?.negated())?;
            let half_pi = Fixed::pi().divide(&Fixed::integer(2))?;
            let arcsin = if rest.is_tiny() {
                if operand.is_negative() {
                    half_pi.negated()
                } else {
                    half_pi.clone()
                }
            } else {
                operand.divide(&rest.root(2, fuel)?)?.arctan(fuel)?
            };
            if function == Function::Arcsin {
                Ok(arcsin)
            } else {
                half_pi.add(&arcsin.negated())
            }
        }
    }
}

/// The exponent, when it is written as a rational number.
fn rational(expr: &Expr) -> Option<BigRational> {
    match expr {
        Expr::Number(number) => Some(number.clone()),
        Expr::Negative(inner) => rational(inner).map(|value| -value),
        Expr::Quotient(a, b) => {
            let (a, b) = (rational(a)?, rational(b)?);
            (!b.is_zero()).then(|| a / b)
        }
        _ => None,
    }
}

fn whole(expr: &Expr) -> Option<i64> {
    rational(expr)
        .filter(|value| value.is_integer() && value.is_positive())
        .and_then(|value| value.to_i64())
}

/// splitmix64's finaliser.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
