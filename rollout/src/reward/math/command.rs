//! What `\frac`, `\sqrt`, `\angle` and their like stand for.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::Stop;
use super::expr::Expr;
use super::function::{binomial, is_function};
use super::parse::{Parser, two};
use super::token::Kind;
use super::variable::GREEK;

impl Parser<'_> {
    pub(super) fn command(&mut self, name: &str) -> Result<Expr, Stop> {
        match name {
            "pi" => Ok(Expr::Pi),
            "frac" | "dfrac" | "tfrac" | "cfrac" => {
                let numerator = self.argument()?;
                let denominator = self.argument()?;
                Ok(Expr::Quotient(Box::new(numerator), Box::new(denominator)))
            }
            "sqrt" => {
                let index = if self.peek().is_some_and(|t| t.is_mark('[')) {
                    self.group('[', ']')?
                } else {
                    two()
                };
                // `\sqrt(5)` is written by people who don't write TeX.
                let radicand = if self.peek().is_some_and(|t| t.is_mark('(')) {
                    self.group('(', ')')?
                } else {
                    self.argument()?
                };
                Ok(Expr::Root(Box::new(radicand), Box::new(index)))
            }
            "cbrt" => {
                let radicand = if self
                    .peek()
                    .is_some_and(|t| matches!(t.kind, Kind::Digit(_)))
                {
                    self.number()?
                } else {
                    self.primary()?
                };
                let three = Expr::Number(BigRational::from(BigInt::from(3)));
                Ok(Expr::Root(Box::new(radicand), Box::new(three)))
            }
            "binom" | "dbinom" | "tbinom" => {
                let (n, k) = (self.argument()?, self.argument()?);
                binomial(&n, &k).map(Expr::Number)
            }
            "angle" => self.angle(),
            // A segment; `\overline{z}` is no z.
            "overline" => match self.argument()? {
                Expr::Variable(name) if is_points(&name) => Ok(Expr::Variable(name)),
                _ => Err(Stop::Syntax),
            },
            "emptyset" | "varnothing" => Ok(Expr::Variable("\\emptyset".to_owned())),
            name if GREEK.contains(&name) || name == "infty" => {
                let name = format!("\\{name}");
                Ok(Expr::Variable(self.subscripted(name)?))
            }
            name => self.function(name),
        }
    }
}

/// `AB`
fn is_points(name: &str) -> bool {
    name.len() > 1 && name.chars().all(|c| c.is_ascii_uppercase())
}

pub(super) fn is_value_command(name: &str) -> bool {
    const VALUES: [&str; 15] = [
        "pi",
        "frac",
        "dfrac",
        "tfrac",
        "cfrac",
        "sqrt",
        "cbrt",
        "binom",
        "dbinom",
        "tbinom",
        "angle",
        "overline",
        "infty",
        "emptyset",
        "varnothing",
    ];
    VALUES.contains(&name) || is_function(name) || GREEK.contains(&name)
}
