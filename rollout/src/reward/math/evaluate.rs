//! Expression tree to canonical value.

use num_bigint::BigInt;
use num_rational::{BigRational, Rational64};
use num_traits::{One as _, Signed as _, ToPrimitive as _, Zero as _};

use super::canonical::Value;
use super::expr::{Expr, Function};
use super::factor::factor;
use super::sum::Atom;
use super::{Fuel, Stop};

/// Degrees of roots.
const MAX_ROOT: i64 = 12;

/// The value of `expr`. A degree sign means pi/180 inside sin, cos and tan, and nothing elsewhere: 30 degrees is 30.
pub(crate) fn evaluate(expr: &Expr, fuel: &mut Fuel) -> Result<Value, Stop> {
    value(expr, false, fuel)
}

fn value(expr: &Expr, is_angle: bool, fuel: &mut Fuel) -> Result<Value, Stop> {
    fuel.burn(1)?;
    match expr {
        Expr::Number(number) => Ok(Value::rational(number.clone())),
        Expr::Pi => Ok(Value::atom(Atom::Pi)),
        Expr::Variable(name) => Ok(Value::atom(Atom::Variable(name.clone()))),
        Expr::Degrees(angle) => {
            let angle = value(angle, is_angle, fuel)?;
            if !is_angle {
                return Ok(angle);
            }
            let degree = Value::atom(Atom::Pi).divide(&Value::integer(180), fuel)?;
            angle.multiply(&degree, fuel)
        }
        Expr::Negative(inner) => Ok(value(inner, is_angle, fuel)?.negated()),
        Expr::Sum(terms) => {
            let mut sum = Value::integer(0);
            for term in terms {
                sum = sum.add(&value(term, is_angle, fuel)?, fuel)?;
            }
            Ok(sum)
        }
        Expr::Product(factors) => {
            let mut product = Value::integer(1);
            for factor in factors {
                product = product.multiply(&value(factor, is_angle, fuel)?, fuel)?;
            }
            Ok(product)
        }
        Expr::Quotient(numerator, denominator) => {
            let numerator = value(numerator, is_angle, fuel)?;
            numerator.divide(&value(denominator, is_angle, fuel)?, fuel)
        }
        Expr::Power(base, exponent) => {
            let base = value(base, is_angle, fuel)?;
            let exponent = value(exponent, false, fuel)?;
            power(&base, &exponent, fuel)
        }
        Expr::Root(radicand, index) => {
            let radicand = value(radicand, is_angle, fuel)?;
            let index = value(index, false, fuel)?
                .as_rational()
                .filter(BigRational::is_integer);
            let index = index.and_then(|index| index.to_i64()).ok_or(Stop::Syntax)?;
            root(&radicand, index, fuel)
        }
        Expr::Function(function, operand) => {
            trigonometric(*function, &value(operand, true, fuel)?, fuel)
        }
        Expr::Logarithm(base, operand) => {
            let operand = value(operand, false, fuel)?;
            let base = base
                .as_ref()
                .map(|base| value(base, false, fuel))
                .transpose()?;
            logarithm(base.as_ref(), &operand, fuel)
        }
        Expr::Absolute(inner) => {
            let inner = value(inner, is_angle, fuel)?;
            match inner.sign() {
                Some(true) => Ok(inner),
                Some(false) => Ok(inner.negated()),
                None if inner.is_zero() => Ok(inner),
                None => opaque("abs", &inner, fuel),
            }
        }
    }
}

fn opaque(name: &str, operand: &Value, fuel: &mut Fuel) -> Result<Value, Stop> {
    Ok(Value::atom(Atom::Opaque(format!(
        "{name}({})",
        operand.name(fuel)?
    ))))
}

fn power(base: &Value, exponent: &Value, fuel: &mut Fuel) -> Result<Value, Stop> {
    let Some(exponent) = exponent.as_rational() else {
        let name = format!("power({})", exponent.name(fuel)?);
        return opaque(&name, base, fuel);
    };
    let whole = exponent.numer().to_i64().ok_or(Stop::Limit)?;
    let index = exponent.denom().to_i64().ok_or(Stop::Limit)?;
    if index == 1 {
        return base.power(whole, fuel);
    }
    root(base, index, fuel)?.power(whole, fuel)
}

/// The n-th root. Positive rationals become prime powers; of other terms the positive part is drawn out.
fn root(radicand: &Value, index: i64, fuel: &mut Fuel) -> Result<Value, Stop> {
    if !(2..=MAX_ROOT).contains(&index) {
        return Err(Stop::Limit);
    }
    if radicand.is_zero() {
        return Ok(Value::integer(0));
    }
    let Some((atoms, coefficient)) = radicand.as_term() else {
        return opaque(&format!("root{index}"), radicand, fuel);
    };
    if coefficient.is_negative() {
        // No real number when the index is even.
        return if index % 2 == 1 {
            Ok(root(&radicand.negated(), index, fuel)?.negated())
        } else {
            Err(Stop::Undefined)
        };
    }
    let mut result = rational_root(coefficient, index, fuel)?;
    let mut rest = Value::integer(1);
    for (atom, exponent) in atoms {
        let part = match atom {
            Atom::Prime(prime) => {
                result = result.multiply(&Value::prime_power(*prime, exponent / index)?, fuel)?;
                continue;
            }
            Atom::Pi if (exponent / index).is_integer() => {
                let whole = (exponent / index).to_integer();
                result = result.multiply(&Value::atom(Atom::Pi).power(whole, fuel)?, fuel)?;
                continue;
            }
            other if exponent.is_integer() => {
                Value::atom(other.clone()).power(exponent.to_integer(), fuel)?
            }
            _ => return Err(Stop::Syntax),
        };
        rest = rest.multiply(&part, fuel)?;
    }
    if rest.as_rational().is_none() {
        result = result.multiply(&opaque(&format!("root{index}"), &rest, fuel)?, fuel)?;
    }
    Ok(result)
}

fn rational_root(number: &BigRational, index: i64, fuel: &mut Fuel) -> Result<Value, Stop> {
    let mut result = Value::integer(1);
    for (part, sign) in [(number.numer(), 1), (number.denom(), -1)] {
        for (prime, exponent) in factor(part, fuel)? {
            let exponent = Rational64::new(sign * i64::from(exponent), index);
            result = result.multiply(&Value::prime_power(prime, exponent)?, fuel)?;
        }
    }
    Ok(result)
}

fn trigonometric(function: Function, angle: &Value, fuel: &mut Fuel) -> Result<Value, Stop> {
    // In twelfths of pi: 2 = 30 degrees, 3 = 45 degrees.
    let twelfths = angle
        .as_multiple_of_pi()
        .map(|r| r * BigInt::from(12))
        .filter(BigRational::is_integer);
    let twelfths = twelfths
        .and_then(|twelfths| (twelfths.to_integer() % 24_i32).to_i64())
        .map(|k| k.rem_euclid(24));
    let known = match (twelfths, function) {
        (_, Function::Arcsin | Function::Arccos | Function::Arctan) => {
            inverse(function, angle, fuel)?
        }
        (None, _) => None,
        (Some(k), Function::Sin) => sine(k, fuel)?,
        (Some(k), Function::Cos) => sine(k + 6, fuel)?,
        (Some(k), Function::Tan) => tangent(k, fuel)?,
    };
    match known {
        Some(known) => Ok(known),
        None => opaque(&format!("{function:?}"), angle, fuel),
    }
}

/// tan(k * pi / 12), where sine and cosine are known.
fn tangent(k: i64, fuel: &mut Fuel) -> Result<Option<Value>, Stop> {
    match (sine(k, fuel)?, sine(k + 6, fuel)?) {
        (Some(sin), Some(cos)) => sin.divide(&cos, fuel).map(Some),
        _ => Ok(None),
    }
}

/// The angle of such a sine, cosine or tangent.
fn inverse(function: Function, operand: &Value, fuel: &mut Fuel) -> Result<Option<Value>, Stop> {
    let angles = match function {
        Function::Arccos => 0..=12,
        Function::Arctan => -5..=5,
        _ => -6..=6,
    };
    for k in angles {
        let known = match function {
            Function::Arccos => sine(k + 6, fuel)?,
            Function::Arctan => tangent(k, fuel)?,
            _ => sine(k, fuel)?,
        };
        if let Some(known) = known
            && known.equals(operand, fuel)?
        {
            let twelfths = BigRational::new(BigInt::from(k), BigInt::from(12));
            let pi = Value::atom(Atom::Pi);
            return pi.multiply(&Value::rational(twelfths), fuel).map(Some);
        }
    }
    Ok(None)
}

/// sin(k * pi / 12) for the angles in every table.
fn sine(k: i64, fuel: &mut Fuel) -> Result<Option<Value>, Stop> {
    let k = k.rem_euclid(24);
    let (k, is_negative) = if k >= 12 { (k - 12, true) } else { (k, false) };
    let square_of_double = match k {
        0 => 0,
        2 | 10 => 1,
        3 | 9 => 2,
        4 | 8 => 3,
        6 => 4,
        _ => return Ok(None),
    };
    let half = BigRational::new(BigInt::one(), BigInt::from(2));
    let value =
        root(&Value::integer(square_of_double), 2, fuel)?.multiply(&Value::rational(half), fuel)?;
    Ok(Some(if is_negative { value.negated() } else { value }))
}

/// `\log_2 8` is 3; others are atoms.
fn logarithm(base: Option<&Value>, operand: &Value, fuel: &mut Fuel) -> Result<Value, Stop> {
    let rational = |value: &Value| value.as_rational().filter(BigRational::is_positive);
    let exact = match (base.and_then(rational), rational(operand)) {
        (_, Some(operand)) if operand.is_one() => Some(BigRational::zero()),
        (Some(base), Some(operand)) => exact_logarithm(&base, &operand, fuel)?,
        _ => None,
    };
    match (exact, base) {
        (Some(exact), _) => Ok(Value::rational(exact)),
        (None, Some(base)) => {
            let name = format!("log({})", base.name(fuel)?);
            opaque(&name, operand, fuel)
        }
        (None, None) => opaque("log", operand, fuel),
    }
}

fn exact_logarithm(
    base: &BigRational,
    operand: &BigRational,
    fuel: &mut Fuel,
) -> Result<Option<BigRational>, Stop> {
    let mut exponents = |number: &BigRational| -> Result<Vec<(u64, i64)>, Stop> {
        let mut all: Vec<(u64, i64)> = factor(number.numer(), fuel)?
            .into_iter()
            .map(|(p, e)| (p, i64::from(e)))
            .collect();
        all.extend(
            factor(number.denom(), fuel)?
                .into_iter()
                .map(|(p, e)| (p, -i64::from(e))),
        );
        all.sort_unstable();
        Ok(all)
    };
    let (base, operand) = (exponents(base)?, exponents(operand)?);
    let Some(((_, b), (_, o))) = base.first().zip(operand.first()) else {
        return Ok(None);
    };
    let is_power = base.len() == operand.len()
        && base
            .iter()
            .zip(&operand)
            .all(|((p, e), (q, f))| p == q && e * o == f * b);
    Ok(is_power.then(|| BigRational::new(BigInt::from(*o), BigInt::from(*b))))
}
