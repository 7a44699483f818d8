//! Exact values: sums of `q * 2^a * 3^b * ... * pi^k * x^n * ...` over such sums.
//!
//! Roots of primes with exponents in [0, 1) are linearly independent over the rationals and pi is transcendental, so two sums
//! of constants are equal exactly when they have the same terms. What we have no rule for (`\tan 35^\circ`, `\sqrt{x+1}`) is an
//! atom named by its own canonical text: at worst two equal values look different.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::{BigRational, Rational64};
use num_traits::{One as _, Zero as _};

use super::{Fuel, Stop};

const MAX_TERMS: usize = 256;
const MAX_BITS: u64 = 2048;
pub(super) const MAX_EXPONENT: i64 = 1000;

/// What cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Atom {
    Prime(u64),
    Pi,
    Variable(String),
    Opaque(String),
}

/// A product of atoms with exponents; of primes in (0, 1), of others not 0.
pub(super) type Monomial = BTreeMap<Atom, Rational64>;

/// A sum of monomials with coefficients, none of them 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Sum(pub(super) BTreeMap<Monomial, BigRational>);

impl Sum {
    pub(super) fn constant(value: BigRational) -> Self {
        Self::term(Monomial::new(), value)
    }

    pub(super) fn term(monomial: Monomial, coefficient: BigRational) -> Self {
        let mut sum = Self::default();
        if !coefficient.is_zero() {
            sum.0.insert(monomial, coefficient);
        }
        sum
    }

    pub(super) fn is_one(&self) -> bool {
        self.single()
            .is_some_and(|(monomial, coefficient)| monomial.is_empty() && coefficient.is_one())
    }

    /// The only term.
    pub(super) fn single(&self) -> Option<(&Monomial, &BigRational)> {
        if self.0.len() == 1 {
            self.0.first_key_value()
        } else {
            None
        }
    }

    pub(super) fn add(&self, other: &Self, fuel: &mut Fuel) -> Result<Self, Stop> {
        fuel.burn(1 + 4 * self.0.len())?;
        let mut sum = self.clone();
        for (monomial, coefficient) in &other.0 {
            fuel.burn(16 + work(coefficient, coefficient))?;
            sum.add_term(monomial.clone(), coefficient)?;
        }
        Ok(sum)
    }

    fn add_term(&mut self, monomial: Monomial, coefficient: &BigRational) -> Result<(), Stop> {
        let sum = self
            .0
            .remove(&monomial)
            .map_or_else(|| coefficient.clone(), |before| plus(&before, coefficient));
        check_size(&sum)?;
        if !sum.is_zero() {
            self.0.insert(monomial, sum);
        }
        if self.0.len() > MAX_TERMS {
            Err(Stop::Limit)
        } else {
            Ok(())
        }
    }

    pub(super) fn multiply(&self, other: &Self, fuel: &mut Fuel) -> Result<Self, Stop> {
        let mut product = Self::default();
        for (left, p) in &self.0 {
            for (right, q) in &other.0 {
                fuel.burn(16 + 8 * (left.len() + right.len()) + work(p, q))?;
                let (monomial, factor) = multiply_monomials(left, right)?;
                let coefficient = times(&times(p, q), &factor);
                check_size(&coefficient)?;
                product.add_term(monomial, &coefficient)?;
            }
        }
        Ok(product)
    }
}

/// Steps to add or multiply two fractions: to reduce the result is quadratic in their length.
fn work(p: &BigRational, q: &BigRational) -> usize {
    let bits: u64 = [p.numer(), p.denom(), q.numer(), q.denom()]
        .iter()
        .map(|part| part.bits())
        .sum();
    let steps = if p.is_integer() && q.is_integer() {
        bits >> 6
    } else {
        (bits * bits) >> 10
    };
    usize::try_from(steps).unwrap_or(usize::MAX)
}

/// Without the search for a common factor where there is nothing to reduce.
fn times(p: &BigRational, q: &BigRational) -> BigRational {
    if q.is_one() {
        p.clone()
    } else if p.is_integer() && q.is_integer() {
        BigRational::from(p.numer() * q.numer())
    } else {
        p * q
    }
}

fn plus(p: &BigRational, q: &BigRational) -> BigRational {
    if p.is_integer() && q.is_integer() {
        BigRational::from(p.numer() + q.numer())
    } else {
        p + q
    }
}

/// The product of two monomials and the rational that whole powers of primes leave over.
fn multiply_monomials(left: &Monomial, right: &Monomial) -> Result<(Monomial, BigRational), Stop> {
    let mut product = left.clone();
    let mut factor = BigRational::one();
    for (atom, exponent) in right {
        let total = product.remove(atom).unwrap_or_default() + exponent;
        insert(&mut product, atom.clone(), total, &mut factor)?;
    }
    Ok((product, factor))
}

/// Puts `atom ^ exponent` into a monomial that lacks the atom.
pub(super) fn insert(
    monomial: &mut Monomial,
    atom: Atom,
    exponent: Rational64,
    factor: &mut BigRational,
) -> Result<(), Stop> {
    if exponent.numer().abs() > MAX_EXPONENT || *exponent.denom() > MAX_EXPONENT {
        return Err(Stop::Limit);
    }
    let exponent = match &atom {
        Atom::Prime(prime) => {
            let whole = exponent.floor().to_integer();
            let power = i32::try_from(whole).map_err(|_| Stop::Limit)?;
            *factor *= BigRational::from(BigInt::from(*prime)).pow(power);
            check_size(factor)?;
            exponent - whole
        }
        _ => exponent,
    };
    if !exponent.is_zero() {
        monomial.insert(atom, exponent);
    }
    Ok(())
}

fn check_size(value: &BigRational) -> Result<(), Stop> {
    if value.numer().bits() > MAX_BITS || value.denom().bits() > MAX_BITS {
        Err(Stop::Limit)
    } else {
        Ok(())
    }
}
