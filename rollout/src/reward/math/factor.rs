//! Prime factors of small numbers, by trial division.

use num_bigint::{BigInt, Sign};
use num_traits::ToPrimitive as _;

use super::{Fuel, Stop};

/// Divisors tried: a number below its square is factored for certain.
const MAX_DIVISOR: u64 = 20_000;

/// Primes of a positive number with their exponents, in order. Larger numbers than the trial can decide are a limit.
pub(crate) fn factor(number: &BigInt, fuel: &mut Fuel) -> Result<Vec<(u64, u32)>, Stop> {
    if number.sign() != Sign::Plus {
        return Err(Stop::Undefined);
    }
    let mut rest = number.to_u64().ok_or(Stop::Limit)?;
    let mut factors = Vec::new();
    let mut divisor = 2_u64;
    while divisor <= MAX_DIVISOR && divisor * divisor <= rest {
        let mut exponent = 0;
        while rest.is_multiple_of(divisor) {
            rest /= divisor;
            exponent += 1;
        }
        if exponent > 0 {
            factors.push((divisor, exponent));
        }
        divisor += if divisor == 2 { 1 } else { 2 };
    }
    fuel.burn(usize::try_from(divisor / 64).map_err(|_| Stop::Limit)? + 1)?;
    if rest >= MAX_DIVISOR * MAX_DIVISOR {
        return Err(Stop::Limit);
    }
    if rest > 1 {
        factors.push((rest, 1));
    }
    Ok(factors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large() {
        let factors = |n: u64| factor(&BigInt::from(n), &mut Fuel::new());
        assert_eq!(factors(1), Ok(vec![]));
        assert_eq!(factors(360), Ok(vec![(2, 3), (3, 2), (5, 1)]));
        assert_eq!(factors(19_997), Ok(vec![(19_997, 1)]));
        assert_eq!(factors(19_997 * 2), Ok(vec![(2, 1), (19_997, 1)]));
        assert_eq!(factors(u64::MAX - 58), Err(Stop::Limit));
        assert_eq!(
            factor(&BigInt::from(0), &mut Fuel::new()),
            Err(Stop::Undefined)
        );
    }
}
