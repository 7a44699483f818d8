//! Two quantities: are they the same, does one round the other.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Zero as _;

use super::answer::Quantity;
use super::math::expr::Expr;
use super::math::numeric::{hides_words, is_near, same_function};
use super::math::suffix::Suffix;
use super::math::{Fuel, Stop};

/// Values, with their units when both have one.
pub(super) fn same_quantity(p: &Quantity, g: &Quantity, fuel: &mut Fuel) -> Result<bool, Stop> {
    if let (Some(a), Some(b)) = (&p.expr, &g.expr)
        && hides_words(a, std::slice::from_ref(b))
    {
        return Ok(false);
    }
    let hundredth = BigRational::new(BigInt::from(1), BigInt::from(100));
    match (&p.suffix, &g.suffix) {
        (Some(Suffix::Unit(a)), Some(Suffix::Unit(b))) => {
            if a.dimension != b.dimension {
                return Ok(false);
            }
            let (p, g) = (p.times(&a.scale, fuel)?, g.times(&b.scale, fuel)?);
            same_value(&p, &g, fuel)
        }
        (Some(Suffix::Units(power)), Some(Suffix::Unit(unit)))
        | (Some(Suffix::Unit(unit)), Some(Suffix::Units(power))) => {
            Ok(unit.fits(*power) && same_value(p, g, fuel)?)
        }
        (Some(Suffix::Radians), Some(Suffix::Unit(_)))
        | (Some(Suffix::Unit(_)), Some(Suffix::Radians)) => {
            Ok(same_angle(p, g) || same_angle(g, p))
        }
        (Some(a), Some(b)) => Ok(a == b && same_value(p, g, fuel)?),
        // 50\% is 50 and 0.5.
        (Some(Suffix::Percent), None) => {
            Ok(same_value(p, g, fuel)? || same_value(&p.times(&hundredth, fuel)?, g, fuel)?)
        }
        (None, Some(Suffix::Percent)) => {
            Ok(same_value(p, g, fuel)? || same_value(p, &g.times(&hundredth, fuel)?, fuel)?)
        }
        _ => Ok(same_value(p, g, fuel)? || same_angle(p, g) || same_angle(g, p)),
    }
}

/// `30^\circ` is `\frac{\pi}{6}`.
fn same_angle(degrees: &Quantity, radians: &Quantity) -> bool {
    let is_degrees = degrees.suffix.as_ref().is_some_and(Suffix::is_degrees);
    let is_radians = matches!(radians.suffix, None | Some(Suffix::Radians));
    if !is_degrees || !is_radians {
        return false;
    }
    let (Ok(degrees), Ok(radians)) = (&degrees.value, &radians.value) else {
        return false;
    };
    let of_pi = radians.as_multiple_of_pi().filter(|part| !part.is_zero());
    let straight = BigRational::from(BigInt::from(180));
    of_pi.is_some() && of_pi.map(|part| part * straight) == degrees.as_rational()
}

/// Exactly, by canonical form where that decides, else by value; a long decimal may be off by a millionth.
fn same_value(p: &Quantity, g: &Quantity, fuel: &mut Fuel) -> Result<bool, Stop> {
    let by_form = match (&p.value, &g.value) {
        (Ok(a), Ok(b)) => match a.equals(b, fuel) {
            Ok(true) => return Ok(true),
            // Sums of surds and powers of pi are the same only when they look the same.
            Ok(false) if !a.is_opaque() && !b.is_opaque() => Some(false),
            Ok(false) | Err(_) => None,
        },
        _ => None,
    };
    let is_decimal = p.is_long_decimal || g.is_long_decimal;
    if by_form == Some(false) && !is_decimal {
        return Ok(false);
    }
    let (Some(a), Some(b)) = (&p.expr, &g.expr) else {
        return Ok(false);
    };
    if is_decimal {
        let by_ratio = match (&p.value, &g.value) {
            (Ok(a), Ok(b)) => a.is_near(b),
            _ => None,
        };
        return by_ratio.map_or_else(|| is_near(a, b, fuel), Ok);
    }
    same_function(a, b, fuel)
}

/// Whether `rounded` is `exact` to the digits that it shows, cut or rounded.
pub(super) fn is_rounding(
    rounded: &Quantity,
    exact: &Quantity,
    fuel: &mut Fuel,
) -> Result<bool, Stop> {
    let Some(decimals) = rounded.decimals else {
        return same_quantity(rounded, exact, fuel);
    };
    let (Some(exact), Some(rounded)) = (&exact.expr, &rounded.expr) else {
        return Ok(false);
    };
    // |exact - rounded| < 10^-decimals, as |x + 1 - 1| against 1: scaled so that a millionth is the last digit, nearly.
    let unit = BigRational::new(
        BigInt::from(1),
        num_traits::pow(BigInt::from(10), decimals as usize),
    );
    let nearly_million = BigRational::from(BigInt::from(999_998));
    let base = Expr::Number(unit * nearly_million);
    let shifted = Expr::Sum(vec![
        base.clone(),
        exact.clone(),
        Expr::Negative(Box::new(rounded.clone())),
    ]);
    is_near(&shifted, &base, fuel)
}
