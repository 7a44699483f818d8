//! `\sin`, `\log`, `n!` and what they are applied to.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::ToPrimitive as _;

use super::Stop;
use super::expr::{Expr, Function};
use super::parse::{Parser, times};
use super::token::Kind;

impl Parser<'_> {
    pub(super) fn function(&mut self, name: &str) -> Result<Expr, Stop> {
        let (mut function, is_reciprocal) = match name {
            "sin" => (Function::Sin, false),
            "cos" => (Function::Cos, false),
            "tan" => (Function::Tan, false),
            "csc" => (Function::Sin, true),
            "sec" => (Function::Cos, true),
            "cot" => (Function::Tan, true),
            "arcsin" => (Function::Arcsin, false),
            "arccos" => (Function::Arccos, false),
            "arctan" => (Function::Arctan, false),
            "exp" => {
                let e = Expr::Variable("e".to_owned());
                return Ok(Expr::Power(Box::new(e), Box::new(self.operand()?)));
            }
            "log" | "ln" | "lg" => return self.logarithm(name),
            _ => return Err(Stop::Syntax),
        };
        let mut exponent = if self.take_mark('^') {
            Some(if self.take_mark('-') {
                Expr::Negative(Box::new(self.argument()?))
            } else {
                self.argument()?
            })
        } else {
            None
        };
        // `\sin^{-1}` is the inverse function.
        if exponent.as_ref().is_some_and(is_minus_one) && !is_reciprocal {
            function = match function {
                Function::Sin => Function::Arcsin,
                Function::Cos => Function::Arccos,
                Function::Tan => Function::Arctan,
                _ => return Err(Stop::Syntax),
            };
            exponent = None;
        }
        let mut value = Expr::Function(function, Box::new(self.operand()?));
        if is_reciprocal {
            let one = Expr::Number(BigRational::from(BigInt::from(1)));
            value = Expr::Quotient(Box::new(one), Box::new(value));
        }
        Ok(match exponent {
            Some(exponent) => Expr::Power(Box::new(value), Box::new(exponent)),
            None => value,
        })
    }

    fn logarithm(&mut self, name: &str) -> Result<Expr, Stop> {
        let ten = || Expr::Number(BigRational::from(BigInt::from(10)));
        let base = match name {
            "ln" => Some(Expr::Variable("e".to_owned())),
            "lg" => Some(ten()),
            _ if self.take_mark('_') => Some(self.argument()?),
            _ => None,
        };
        let base = base.map(Box::new);
        Ok(Expr::Logarithm(base, Box::new(self.operand()?)))
    }

    /// What a function is applied to: `(...)`, or factors up to the next sign or function.
    fn operand(&mut self) -> Result<Expr, Stop> {
        if self.peek().is_some_and(|token| token.is_mark('(')) {
            let value = self.primary()?;
            return self.postfix(value);
        }
        let mut value = self.power()?;
        while self.starts_factor()
            && !self.starts_function()
            && !self.peek().is_some_and(|t| t.is_mark('('))
        {
            if matches!(self.peek().map(|t| &t.kind), Some(Kind::Digit(_))) && self.follows_number()
            {
                return Err(Stop::Syntax);
            }
            let factor = self.power()?;
            value = times(value, factor);
        }
        Ok(value)
    }

    fn starts_function(&self) -> bool {
        self.peek()
            .is_some_and(|token| token.is_command(&FUNCTIONS) || token.is_word(&FUNCTIONS))
    }
}

const FUNCTIONS: [&str; 13] = [
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "log", "ln", "lg",
    "exp",
];

pub(super) fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

/// A small whole number.
fn small(expr: &Expr, max: u32) -> Result<u32, Stop> {
    match expr {
        Expr::Number(number) if number.is_integer() => number
            .to_integer()
            .to_u32()
            .filter(|n| *n <= max)
            .ok_or(Stop::Limit),
        _ => Err(Stop::Syntax),
    }
}

pub(super) fn factorial(expr: &Expr) -> Result<BigRational, Stop> {
    let n = small(expr, 300)?;
    let product = (1..=n).fold(BigInt::from(1), |product, k| product * k);
    Ok(BigRational::from(product))
}

pub(super) fn binomial(n: &Expr, k: &Expr) -> Result<BigRational, Stop> {
    let (n, k) = (small(n, 1000)?, small(k, 1000)?);
    if k > n {
        return Ok(BigRational::from(BigInt::from(0)));
    }
    let value = (0..k.min(n - k)).fold(BigInt::from(1), |value, i| value * (n - i) / (i + 1));
    Ok(BigRational::from(value))
}

fn is_minus_one(expr: &Expr) -> bool {
    matches!(expr, Expr::Negative(inner) if small(inner, 1) == Ok(1))
}
