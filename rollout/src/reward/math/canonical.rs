//! Exact values: sums of `q * 2^a * 3^b * ... * pi^k * x^n * ...` over such sums.
//!
//! Roots of primes with exponents in [0, 1) are linearly independent over the rationals and pi is transcendental, so two sums
//! of constants are equal exactly when they have the same terms. What we have no rule for (`\tan 35^\circ`, `\sqrt{x+1}`) is an
//! atom named by its own canonical text: at worst two equal values look different.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::{BigRational, Rational64};
use num_traits::{One as _, Signed as _, ToPrimitive as _, Zero as _};

use super::{Fuel, Stop};

const MAX_TERMS: usize = 256;
const MAX_BITS: u64 = 4096;
const MAX_EXPONENT: i64 = 1000;

/// What cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Atom {
    Prime(u64),
    Pi,
    Variable(String),
    Opaque(String),
}

/// A product of atoms with exponents; of primes in (0, 1), of others not 0.
type Monomial = BTreeMap<Atom, Rational64>;

/// A sum of monomials with coefficients, none of them 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Sum(BTreeMap<Monomial, BigRational>);

/// A fraction whose denominator is 1 or has several terms, and is not 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    numerator: Sum,
    denominator: Sum,
}

impl Sum {
    fn constant(value: BigRational) -> Self {
        Self::term(Monomial::new(), value)
    }

    fn term(monomial: Monomial, coefficient: BigRational) -> Self {
        let mut sum = Self::default();
        if !coefficient.is_zero() {
            sum.0.insert(monomial, coefficient);
        }
        sum
    }

    fn is_one(&self) -> bool {
        self.single()
            .is_some_and(|(monomial, coefficient)| monomial.is_empty() && coefficient.is_one())
    }

    /// The only term.
    fn single(&self) -> Option<(&Monomial, &BigRational)> {
        if self.0.len() == 1 {
            self.0.first_key_value()
        } else {
            None
        }
    }

    fn add(&self, other: &Self, fuel: &mut Fuel) -> Result<Self, Stop> {
        fuel.burn(1 + other.0.len())?;
        let mut sum = self.clone();
        for (monomial, coefficient) in &other.0 {
            sum.add_term(monomial.clone(), coefficient)?;
        }
        Ok(sum)
    }

    fn add_term(&mut self, monomial: Monomial, coefficient: &BigRational) -> Result<(), Stop> {
        let total = self
            .0
            .remove(&monomial)
            .map_or_else(|| coefficient.clone(), |before| before + coefficient);
        check_size(&total)?;
        if !total.is_zero() {
            self.0.insert(monomial, total);
        }
        if self.0.len() > MAX_TERMS {
            Err(Stop::Limit)
        } else {
            Ok(())
        }
    }

    fn multiply(&self, other: &Self, fuel: &mut Fuel) -> Result<Self, Stop> {
        let mut product = Self::default();
        for (left, p) in &self.0 {
            for (right, q) in &other.0 {
                fuel.burn(2 + left.len() + right.len())?;
                let (monomial, factor) = multiply_monomials(left, right)?;
                let coefficient = p * q * factor;
                check_size(&coefficient)?;
                product.add_term(monomial, &coefficient)?;
            }
        }
        Ok(product)
    }

    /// Approximate value and the sum of its terms' sizes; constants only.
    fn approximate(&self) -> Option<(f64, f64)> {
        let (mut value, mut size) = (0.0, 0.0);
        for (monomial, coefficient) in &self.0 {
            let mut term = coefficient.to_f64()?;
            for (atom, exponent) in monomial {
                let base = match atom {
                    Atom::Prime(prime) => prime.to_f64()?,
                    Atom::Pi => std::f64::consts::PI,
                    Atom::Variable(_) | Atom::Opaque(_) => return None,
                };
                term *= base.powf(exponent.to_f64()?);
            }
            value += term;
            size += term.abs();
        }
        Some((value, size))
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
fn insert(
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
        let Some((monomial, coefficient)) = denominator.single() else {
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

    /// Whether `self` differs from a constant `other` by at most 1e-6 of it.
    pub(crate) fn is_near(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.as_rational(), other.as_rational()) {
            let million = BigRational::from(BigInt::from(1_000_000));
            return !b.is_zero() && (a - &b).abs() * million <= b.abs();
        }
        let approximate = |value: &Self| {
            let (top, size) = value.numerator.approximate()?;
            let (bottom, bottom_size) = value.denominator.approximate()?;
            // Where terms cancel, f64 says nothing.
            let is_sound = top.abs() > 1e-6 * size && bottom.abs() > 1e-6 * bottom_size;
            is_sound.then(|| top / bottom)
        };
        match (approximate(self), approximate(other)) {
            (Some(a), Some(b)) => a.is_finite() && b.is_finite() && (a - b).abs() <= 1e-6 * b.abs(),
            _ => false,
        }
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

    /// The variable x and the rational a, when the value is a * x + constants.
    pub(crate) fn linear_in_one_variable(&self) -> Option<(Atom, BigRational)> {
        let mut found = None;
        for (monomial, coefficient) in &self.numerator.0 {
            if monomial
                .keys()
                .all(|atom| matches!(atom, Atom::Prime(_) | Atom::Pi))
            {
                continue;
            }
            let (atom, exponent) = monomial.first_key_value()?;
            let is_linear =
                monomial.len() == 1 && exponent.is_one() && matches!(atom, Atom::Variable(_));
            if found.is_some() || !is_linear {
                return None;
            }
            found = Some((atom.clone(), coefficient.clone()));
        }
        found.filter(|_| self.denominator.is_one())
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
