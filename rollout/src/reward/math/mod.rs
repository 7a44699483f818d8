//! LaTeX as models and data sets write it, to exact values.
//!
//! # Layout
//! - `text`: characters folded, spacing commands gone, wrappers opened
//! - `token`, `expr`, `parse`, `number`: an expression tree, with limits on its bytes, tokens and depth
//! - `sum`, `canonical`: `sum of q * p1^e1 * ... * pi^k * x^n ...` over a denominator, exact; two values are equal when their cross products are
//! - `evaluate`: tree to canonical form, paid for in fuel
//! - `factor`: prime factors, for surds
//! - `units`: cm, square feet, degrees

pub(super) mod canonical;
pub(super) mod evaluate;
pub(super) mod expr;
pub(super) mod factor;
pub(super) mod number;
pub(super) mod parse;
pub(super) mod sum;
pub(super) mod text;
pub(super) mod token;
pub(super) mod units;

/// Why an answer has no value: it is then equal to nothing but its own text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Not an expression of ours.
    Syntax,
    /// Beyond a limit of size or work.
    Limit,
    /// Division by zero, 0^0.
    Undefined,
}

/// What a comparison may cost: steps of some 100 ns.
#[derive(Debug)]
pub(super) struct Fuel(u32);

impl Fuel {
    pub(super) fn new() -> Self {
        Self(100_000)
    }

    pub(super) fn burn(&mut self, steps: usize) -> Result<(), Stop> {
        let steps = u32::try_from(steps).map_err(|_| Stop::Limit)?;
        self.0 = self.0.checked_sub(steps).ok_or(Stop::Limit)?;
        Ok(())
    }
}
