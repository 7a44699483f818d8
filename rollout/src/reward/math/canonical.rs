//! A sum over a sum: the canonical form of a value, with its arithmetic.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::{BigRational, Rational64};
use num_traits::{One as _, Signed as _, Zero as _};

use super::sum::{Atom, MAX_EXPONENT, Monomial, Sum, insert};
use super::{Fuel, Stop};

/// A fraction whose denominator is 1 or has several terms, and is not 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    numerator: Sum,
    denominator: Sum,
}

impl Value {
    pub(crate) fn rational(value: BigRational) -> Self {
        Self {
            numerator: Sum::constant(value),
            denominator: Sum::constant(BigRational::one()),
        }
    }

    pub(crate) fn integer(value: i64) -> Self {
        Self::rational(BigRational::from(BigInt::from(value)))
    }

    pub(crate) fn atom(atom: Atom) -> Self {
        let monomial = Monomial::from([(atom, Rational64::one())]);
        Self {
            numerator: Sum::term(monomial, BigRational::one()),
            denominator: Sum::constant(BigRational::one()),
        }
    }

    /// `prime ^ exponent`
    pub(crate) fn prime_power(prime: u64, exponent: Rational64) -> Result<Self, Stop> {
        let (mut monomial, mut factor) = (Monomial::new(), BigRational::one());
        insert(&mut monomial, Atom::Prime(prime), exponent, &mut factor)?;
        Ok(Self {
            numerator: Sum::term(monomial, factor),
            denominator: Sum::constant(BigRational::one()),
        })
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.numerator.0.is_empty()
    }

    /// The value, when it is rational.
    pub(crate) fn as_rational(&self) -> Option<BigRational> {
        if self.is_zero() {
            return Some(BigRational::zero());
        }
        let (monomial, coefficient) = self.numerator.single()?;
        (self.denominator.is_one() && monomial.is_empty()).then(|| coefficient.clone())
    }

    /// r, when the value is r * pi.
    pub(crate) fn as_multiple_of_pi(&self) -> Option<BigRational> {
        if self.is_zero() {
            return Some(BigRational::zero());
        }
        let (monomial, coefficient) = self.numerator.single()?;
        let is_pi =
            monomial.len() == 1 && monomial.get(&Atom::Pi).is_some_and(num_traits::One::is_one);
        (self.denominator.is_one() && is_pi).then(|| coefficient.clone())
    }

    /// Coefficient and atoms, when the value is one term.
    pub(crate) fn as_term(&self) -> Option<(&BTreeMap<Atom, Rational64>, &BigRational)> {
        if self.denominator.is_one() {
            self.numerator.single()
        } else {
            None
        }
    }

    pub(crate) fn negated(&self) -> Self {
        let terms = self
            .numerator
            .0
            .iter()
            .map(|(monomial, q)| (monomial.clone(), -q.clone()))
            .collect();
        Self {
            numerator: Sum(terms),
            denominator: self.denominator.clone(),
        }
    }

    pub(crate) fn add(&self, other: &Self, fuel: &mut Fuel) -> Result<Self, Stop> {
        if self.denominator == other.denominator {
            let numerator = self.numerator.add(&other.numerator, fuel)?;
            return Self::new(numerator, self.denominator.clone(), fuel);
        }
        let left = self.numerator.multiply(&other.denominator, fuel)?;
        let right = other.numerator.multiply(&self.denominator, fuel)?;
        Self::new(
            left.add(&right, fuel)?,
            self.denominator.multiply(&other.denominator, fuel)?,
            fuel,
        )
    }

    pub(crate) fn multiply(&self, other: &Self, fuel: &mut Fuel) -> Result<Self, Stop> {
        let numerator = self.numerator.multiply(&other.numerator, fuel)?;
        if self.denominator.is_one() && other.denominator.is_one() {
            let denominator = Sum::constant(BigRational::one());
            return Ok(Self {
                numerator,
                denominator,
            });
        }
        Self::new(
            numerator,
            self.denominator.multiply(&other.denominator, fuel)?,
            fuel,
        )
    }

    pub(crate) fn divide(&self, other: &Self, fuel: &mut Fuel) -> Result<Self, Stop> {
        let numerator = self.numerator.multiply(&other.denominator, fuel)?;
        Self::new(
            numerator,
            self.denominator.multiply(&other.numerator, fuel)?,
            fuel,
        )
    }

    /// Whole powers; 0^0 and 1/0 are undefined.
    pub(crate) fn power(&self, exponent: i64, fuel: &mut Fuel) -> Result<Self, Stop> {
        if exponent.abs() > MAX_EXPONENT {
            return Err(Stop::Limit);
        }
        if self.is_zero() && exponent <= 0 {
            return Err(Stop::Undefined);
        }
        let mut result = Self::integer(1);
        let mut square = if exponent < 0 {
            Self::integer(1).divide(self, fuel)?
        } else {
            self.clone()
        };
        let mut rest = exponent.unsigned_abs();
        while rest > 0 {
            if rest & 1 == 1 {
                result = result.multiply(&square, fuel)?;
            }
            rest >>= 1;
            if rest > 0 {
                square = square.multiply(&square, fuel)?;
            }
        }
        Ok(result)
    }

    /// A denominator of one term moves into the numerator.
    fn new(numerator: Sum, denominator: Sum, fuel: &mut Fuel) -> Result<Self, Stop> {
        if denominator.0.is_empty() {
            return Err(Stop::Undefined);
        }
        let term = denominator.single().filter(|_| !denominator.is_one());
        let Some((monomial, coefficient)) = term else {
            return Ok(Self {
                numerator,
                denominator,
            });
        };
        let (mut inverse, mut factor) = (Monomial::new(), coefficient.recip());
        for (atom, exponent) in monomial {
            insert(&mut inverse, atom.clone(), -exponent, &mut factor)?;
        }
        let numerator = numerator.multiply(&Sum::term(inverse, factor), fuel)?;
        Ok(Self {
            numerator,
            denominator: Sum::constant(BigRational::one()),
        })
    }

    /// Exact equality.
    pub(crate) fn equals(&self, other: &Self, fuel: &mut Fuel) -> Result<bool, Stop> {
        let left = self.numerator.multiply(&other.denominator, fuel)?;
        let right = other.numerator.multiply(&self.denominator, fuel)?;
        Ok(left == right)
    }

    /// Whether a rational differs from a rational `other` by at most 1e-6 of the larger one; `None` for other values.
    pub(crate) fn is_near(&self, other: &Self) -> Option<bool> {
        let (a, b) = (self.as_rational()?, other.as_rational()?);
        let million = BigRational::from(BigInt::from(1_000_000));
        let size = a.abs().max(b.abs());
        Some(!b.is_zero() && (a - b).abs() * million <= size)
    }

    /// Whether it holds what has no rule, so that "different" may be said of equal values.
    pub(crate) fn is_opaque(&self) -> bool {
        let sums = [&self.numerator, &self.denominator];
        sums.iter().any(|sum| {
            sum.0
                .keys()
                .any(|monomial| monomial.keys().any(|atom| matches!(atom, Atom::Opaque(_))))
        })
    }

    /// Whether nothing in it stands for another number: surds and powers of pi.
    pub(crate) fn is_constant(&self) -> bool {
        let is_known = |atom: &Atom| matches!(atom, Atom::Prime(_) | Atom::Pi);
        let sums = [&self.numerator, &self.denominator];
        sums.iter()
            .all(|sum| sum.0.keys().all(|monomial| monomial.keys().all(is_known)))
    }

    /// k, when `self` is k times `other` and k is rational.
    pub(crate) fn ratio_to(
        &self,
        other: &Self,
        fuel: &mut Fuel,
    ) -> Result<Option<BigRational>, Stop> {
        let left = self.numerator.multiply(&other.denominator, fuel)?;
        let right = other.numerator.multiply(&self.denominator, fuel)?;
        let (Some((m, p)), Some((n, q))) = (left.0.first_key_value(), right.0.first_key_value())
        else {
            return Ok((left == right).then(BigRational::one));
        };
        if m != n {
            return Ok(None);
        }
        let ratio = p / q;
        Ok((left == right.multiply(&Sum::constant(ratio.clone()), fuel)?).then_some(ratio))
    }

    /// A text that equal values share as far as we can tell; the name of an opaque atom.
    pub(crate) fn name(&self, fuel: &mut Fuel) -> Result<String, Stop> {
        let name = format!("{:?}/{:?}", self.numerator.0, self.denominator.0);
        fuel.burn(name.len() / 8)?;
        if name.len() > 4096 {
            Err(Stop::Limit)
        } else {
            Ok(name)
        }
    }

    /// The sign of a constant of one term.
    pub(crate) fn sign(&self) -> Option<bool> {
        let (monomial, coefficient) = self.as_term()?;
        let is_positive = monomial
            .keys()
            .all(|atom| matches!(atom, Atom::Prime(_) | Atom::Pi));
        is_positive.then(|| coefficient.is_positive())
    }
}
