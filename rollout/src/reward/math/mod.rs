//! LaTeX as models and data sets write it, to exact values.
//!
//! # Layout
//! - `text`: characters folded, spacing commands gone, wrappers opened
//! - `token`, `expr`, `parse`, `command`, `function`, `number`: an expression tree, with limits on its bytes, tokens and depth
//! - `sum`, `canonical`: `sum of q * p1^e1 * ... * pi^k * x^n ...` over a denominator, exact; two values are equal when their cross products are
//! - `evaluate`: tree to canonical form, paid for in fuel
//! - `fixed`, `numeric`: what has no canonical form, to 384 bits at random points
//! - `factor`: prime factors, for surds
//! - `units`: cm, feet, newtons by name; `suffix`: those, degrees and percent signs behind a number

pub(super) mod canonical;
mod command;
pub(super) mod evaluate;
pub(super) mod expr;
pub(super) mod factor;
pub(super) mod fixed;
mod function;
pub(super) mod number;
pub(super) mod numeric;
pub(super) mod parse;
pub(super) mod suffix;
pub(super) mod sum;
pub(super) mod text;
pub(super) mod token;
pub(super) mod units;
pub(super) mod variable;

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

/// What a comparison may cost, in steps of some 100 ns, and the salt of its random points.
#[derive(Debug)]
pub(super) struct Fuel {
    steps: u32,
    salt: u64,
}

/// Enough for any honest answer; some 10 ms.
pub(super) const FUEL: u32 = 100_000;

impl Fuel {
    pub(super) fn new() -> Self {
        Self::salted(0)
    }

    pub(super) fn salted(salt: u64) -> Self {
        Self { steps: FUEL, salt }
    }

    pub(super) fn salt(&self) -> u64 {
        self.salt
    }

    pub(super) fn burnt(&self) -> u32 {
        FUEL - self.steps
    }

    pub(super) fn burn(&mut self, steps: usize) -> Result<(), Stop> {
        let steps = u32::try_from(steps).map_err(|_| Stop::Limit)?;
        match self.steps.checked_sub(steps) {
            Some(rest) => {
                self.steps = rest;
                Ok(())
            }
            None => {
                self.steps = 0;
                Err(Stop::Limit)
            }
        }
    }
}
