//! Real numbers of 384 bits behind the point, on whole numbers alone: the same digits on every machine.

use std::sync::OnceLock;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One as _, Signed as _, ToPrimitive as _, Zero as _};

use super::{Fuel, Stop};

/// Bits behind the point.
const BITS: usize = 384;
/// Bits of the largest value, those behind the point included.
const MAX_BITS: u64 = 1024;
/// What is smaller than `2^-SMALL` cannot be told from 0: not divided by, not compared.
const SMALL: usize = 128;
/// Values that agree to this many bits of their size are equal.
const EQUAL_BITS: usize = 200;

/// `self.0 / 2^384`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fixed(BigInt);

impl Fixed {
    pub(crate) fn integer(value: i64) -> Self {
        Self(BigInt::from(value) << BITS)
    }

    pub(crate) fn rational(value: &BigRational) -> Result<Self, Stop> {
        Self((value.numer() << BITS) / value.denom()).checked()
    }

    fn checked(self) -> Result<Self, Stop> {
        if self.0.bits() > MAX_BITS {
            Err(Stop::Limit)
        } else {
            Ok(self)
        }
    }

    pub(crate) fn pi() -> &'static Self {
        static PI: OnceLock<Fixed> = OnceLock::new();
        // Machin: 16 arctan(1/5) - 4 arctan(1/239)
        PI.get_or_init(|| Self(arctan_inverse(5) * 16 - arctan_inverse(239) * 4))
    }

    pub(crate) fn e() -> &'static Self {
        static E: OnceLock<Fixed> = OnceLock::new();
        E.get_or_init(|| {
            let (mut term, mut sum) = (Self::integer(1).0, BigInt::zero());
            for n in 1..200_i64 {
                sum += &term;
                term /= n;
            }
            Self(sum)
        })
    }

    fn ln_2() -> &'static Self {
        static LN_2: OnceLock<Fixed> = OnceLock::new();
        LN_2.get_or_init(|| Self(artanh(&(Self::integer(1).0 / 3)) * 2))
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.0.is_negative()
    }

    /// Too near to 0 to be told from it.
    pub(crate) fn is_tiny(&self) -> bool {
        usize::try_from(self.0.bits()).is_ok_and(|bits| bits <= BITS - SMALL)
    }

    pub(crate) fn negated(&self) -> Self {
        Self(-&self.0)
    }

    pub(crate) fn absolute(&self) -> Self {
        Self(self.0.abs())
    }

    pub(crate) fn add(&self, other: &Self) -> Result<Self, Stop> {
        Self(&self.0 + &other.0).checked()
    }

    pub(crate) fn multiply(&self, other: &Self) -> Result<Self, Stop> {
        Self((&self.0 * &other.0) >> BITS).checked()
    }

    pub(crate) fn divide(&self, other: &Self) -> Result<Self, Stop> {
        if other.is_tiny() {
            return Err(Stop::Undefined);
        }
        Self((&self.0 << BITS) / &other.0).checked()
    }

    /// Whole powers.
    pub(crate) fn power(&self, exponent: i64, fuel: &mut Fuel) -> Result<Self, Stop> {
        let mut square = if exponent < 0 {
            Self::integer(1).divide(self)?
        } else {
            self.clone()
        };
        let mut result = Self::integer(1);
        let mut rest = exponent.unsigned_abs();
        while rest > 0 {
            fuel.burn(8)?;
            if rest & 1 == 1 {
                result = result.multiply(&square)?;
            }
            rest >>= 1;
            if rest > 0 {
                square = square.multiply(&square)?;
            }
        }
        Ok(result)
    }

    /// The real n-th root.
    pub(crate) fn root(&self, index: u32, fuel: &mut Fuel) -> Result<Self, Stop> {
        fuel.burn(64 * index as usize)?;
        if index == 0 || (self.is_negative() && index.is_multiple_of(2)) {
            return Err(Stop::Undefined);
        }
        let shift = BITS * (index as usize - 1);
        let root = (self.0.abs() << shift).nth_root(index);
        Ok(Self(if self.is_negative() { -root } else { root }))
    }

    pub(crate) fn exp(&self, fuel: &mut Fuel) -> Result<Self, Stop> {
        fuel.burn(256)?;
        // x = k ln 2 + r; exp(r) = exp(r / 256)^256.
        let k = nearest(&self.0, &Self::ln_2().0);
        let rest = &self.0 - &k * &Self::ln_2().0;
        let k = k.to_i64().ok_or(Stop::Limit)?;
        let small: BigInt = rest >> 8;
        let one = Self::integer(1).0;
        let (mut term, mut sum) = (one.clone(), one);
        for n in 1..200_i64 {
            term = ((term * &small) >> BITS) / n;
            if term.magnitude().is_one() || term.is_zero() {
                break;
            }
            sum += &term;
        }
        for _ in 0..8 {
            sum = (&sum * &sum) >> BITS;
        }
        match k {
            0..=640 => Self(sum << usize::try_from(k).map_err(|_| Stop::Limit)?).checked(),
            -640..0 => Ok(Self(sum >> usize::try_from(-k).map_err(|_| Stop::Limit)?)),
            _ => Err(Stop::Limit),
        }
    }

    pub(crate) fn ln(&self, fuel: &mut Fuel) -> Result<Self, Stop> {
        fuel.burn(400)?;
        if self.is_negative() || self.is_tiny() {
            return Err(Stop::Undefined);
        }
        // x = m * 2^k with m in [1, 2)
        let k = i64::try_from(self.0.bits()).map_err(|_| Stop::Limit)? - 1 - 384;
        let m: BigInt = if k >= 0 { &self.0 >> k } else { &self.0 << -k };
        let one = Self::integer(1).0;
        let ratio = ((&m - &one) << BITS) / (m + one);
        Ok(Self(artanh(&ratio) * 2 + &Self::ln_2().0 * k))
    }

    /// Sine and cosine of radians.
    pub(crate) fn sin_cos(&self, fuel: &mut Fuel) -> Result<(Self, Self), Stop> {
        fuel.burn(400)?;
        let half_pi: BigInt = &Self::pi().0 >> 1;
        let quarter = nearest(&self.0, &half_pi);
        let rest = &self.0 - &quarter * &half_pi;
        let square = (&rest * &rest) >> BITS;
        let series = |first: BigInt, start: i64| {
            let (mut term, mut sum) = (first.clone(), first);
            for n in 0..100_i64 {
                let below = (start + 2 * n) * (start + 2 * n + 1);
                term = -((term * &square) >> BITS) / below;
                if term.is_zero() {
                    break;
                }
                sum += &term;
            }
            Self(sum)
        };
        let (sin, cos) = (series(rest, 2), series(Self::integer(1).0, 1));
        let quadrant = ((quarter % 4_i32) + 4_i32) % 4_i32;
        Ok(match quadrant.to_i64() {
            Some(0) => (sin, cos),
            Some(1) => (cos, sin.negated()),
            Some(2) => (sin.negated(), cos.negated()),
            _ => (cos.negated(), sin),
        })
    }

    /// arctan in radians.
    pub(crate) fn arctan(&self, fuel: &mut Fuel) -> Result<Self, Stop> {
        fuel.burn(1024)?;
        // arctan x = 2 arctan(x / (1 + sqrt(1 + x^2))), six times.
        let one = Self::integer(1);
        let mut x = self.clone();
        for _ in 0..6 {
            let root = one.add(&x.multiply(&x)?)?.root(2, fuel)?;
            x = x.divide(&one.add(&root)?)?;
        }
        let square = (&x.0 * &x.0) >> BITS;
        let (mut power, mut sum) = (x.0.clone(), x.0);
        for n in 1..200_i64 {
            power = -((power * &square) >> BITS);
            if power.magnitude().is_one() || power.is_zero() {
                break;
            }
            sum += &power / (2 * n + 1);
        }
        Self(sum << 6).checked()
    }

    /// Whether both are the same number, as far as their digits reach. Not what is too small to have digits.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let size = self.0.magnitude().max(other.0.magnitude()).clone();
        let difference = (&self.0 - &other.0).magnitude().clone();
        !(self.is_tiny() && other.is_tiny()) && difference << EQUAL_BITS <= size
    }

    /// Whether it differs from `other` by at most a millionth of the larger one.
    pub(crate) fn is_near(&self, other: &Self) -> bool {
        let difference = (&self.0 - &other.0).abs();
        !other.is_tiny() && difference * 1_000_000 <= self.0.abs().max(other.0.abs())
    }
}

/// `value / unit`, rounded.
fn nearest(value: &BigInt, unit: &BigInt) -> BigInt {
    let doubled: BigInt = (value << 1) + unit;
    let below: BigInt = unit << 1;
    num_integer_floor(&doubled, &below)
}

fn num_integer_floor(value: &BigInt, unit: &BigInt) -> BigInt {
    let quotient = value / unit;
    if value.is_negative() && !(value % unit).is_zero() {
        quotient - 1
    } else {
        quotient
    }
}

/// arctan(1/n)
fn arctan_inverse(n: i64) -> BigInt {
    let mut power = Fixed::integer(1).0 / n;
    let mut sum = BigInt::zero();
    for k in 0..400_i64 {
        if power.is_zero() {
            break;
        }
        let term = &power / (2 * k + 1);
        sum = if k % 2 == 0 { sum + term } else { sum - term };
        power /= n * n;
    }
    sum
}

/// Of a fixed-point number up to 1/3.
fn artanh(x: &BigInt) -> BigInt {
    let square: BigInt = (x * x) >> BITS;
    let (mut power, mut sum) = (x.clone(), x.clone());
    for n in 1..200_i64 {
        power = (power * &square) >> BITS;
        if power.is_zero() {
            break;
        }
        sum += &power / (2 * n + 1);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_f64(value: &Fixed) -> f64 {
        let scaled: BigInt = &value.0 >> (BITS - 60);
        scaled.to_f64().unwrap() / 2f64.powi(60)
    }

    #[test]
    fn functions_against_f64() {
        let fuel = &mut Fuel::new();
        for (top, bottom) in [(1, 3), (7, 2), (-5, 4), (22, 1), (-17, 6), (1, 1000)] {
            let x = Fixed::rational(&BigRational::new(top.into(), bottom.into())).unwrap();
            let f = f64::from(top) / f64::from(bottom);
            let is_near = |got: &Fixed, expected: f64| {
                let got = to_f64(got);
                assert!(
                    (got - expected).abs() <= 1e-13 * expected.abs().max(1.0),
                    "{got} {expected} of {f}"
                );
            };
            let (sin, cos) = x.sin_cos(fuel).unwrap();
            is_near(&sin, f.sin());
            is_near(&cos, f.cos());
            is_near(&x.arctan(fuel).unwrap(), f.atan());
            is_near(&x.root(3, fuel).unwrap(), f.cbrt());
            if f < 10.0 {
                is_near(&x.exp(fuel).unwrap(), f.exp());
            }
            if f > 0.0 {
                is_near(&x.ln(fuel).unwrap(), f.ln());
                is_near(&x.root(2, fuel).unwrap(), f.sqrt());
            }
        }
        is_near_pi();
    }

    fn is_near_pi() {
        assert!((to_f64(Fixed::pi()) - std::f64::consts::PI).abs() < 1e-15);
    }

    /// Identities hold to far more digits than f64 has.
    #[test]
    fn identities() {
        let fuel = &mut Fuel::new();
        let x = Fixed::rational(&BigRational::new(7.into(), 5.into())).unwrap();
        assert!(x.exp(fuel).unwrap().ln(fuel).unwrap().agrees(&x));
        let (sin, cos) = x.sin_cos(fuel).unwrap();
        assert!(sin.divide(&cos).unwrap().arctan(fuel).unwrap().agrees(&x));
        let one = sin
            .multiply(&sin)
            .unwrap()
            .add(&cos.multiply(&cos).unwrap())
            .unwrap();
        assert!(one.agrees(&Fixed::integer(1)));
        assert!(!x.agrees(&x.add(&Fixed(BigInt::one() << (BITS - 190))).unwrap()));
        assert_eq!(x.divide(&Fixed::integer(0)), Err(Stop::Undefined));
    }
}
