//! What kind of answer it is: a quantity, an equation, a list, an interval, ...

use super::math::canonical::Value;
use super::math::sum::Atom;
use super::math::token::{Kind, Token};
use super::math::units::Suffix;
use super::math::{Fuel, Stop};
use super::read::Reader;

/// An answer, read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Quantity(Quantity),
    /// `x = 4`: the name, what it is, and both as an equation when both are expressions.
    Named {
        name: String,
        content: Box<Self>,
        equation: Option<Relation>,
    },
    Relation(Relation),
    /// `(3, -2)`, `[0, 1)`: brackets and order count.
    Group {
        open: char,
        close: char,
        items: Vec<Self>,
    },
    /// `3, 5`, `\{1, 2\}`, `\pm 3`: neither order nor braces count.
    List(Vec<Self>),
    Matrix(Vec<Vec<Self>>),
}

/// A value with what stands behind it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantity {
    pub(super) value: Value,
    pub(super) suffix: Option<Suffix>,
    /// Written as a decimal of at least 6 significant digits.
    pub(super) is_long_decimal: bool,
}

/// `difference SIGN 0`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Relation {
    pub(super) difference: Value,
    pub(super) sign: Sign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Sign {
    /// Of the negated sides.
    pub(super) fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
            same => same,
        }
    }

    pub(super) fn of(token: &Token) -> Option<Self> {
        match &token.kind {
            Kind::Mark('=') => Some(Self::Equal),
            Kind::Mark('<') => Some(Self::Less),
            Kind::Mark('>') => Some(Self::Greater),
            Kind::Command(name) => match name.as_str() {
                "approx" | "simeq" => Some(Self::Equal),
                "ne" | "neq" => Some(Self::NotEqual),
                "lt" => Some(Self::Less),
                "gt" => Some(Self::Greater),
                "le" | "leq" | "leqslant" => Some(Self::LessEqual),
                "ge" | "geq" | "geqslant" => Some(Self::GreaterEqual),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Answer {
    pub(super) fn read(tokens: &[Token], thousands: bool, fuel: &mut Fuel) -> Result<Self, Stop> {
        Reader { thousands, fuel }.answer(tokens, 0)
    }

    /// An equation or inequality.
    pub(super) fn as_relation(&self) -> Option<&Relation> {
        match self {
            Self::Relation(relation) => Some(relation),
            Self::Named { equation, .. } => equation.as_ref(),
            _ => None,
        }
    }
}

impl Relation {
    /// `x > 3` is `(3, \infty)`: for one variable to the first power.
    pub(super) fn interval(&self, fuel: &mut Fuel) -> Result<Option<Answer>, Stop> {
        let Some((variable, slope)) = self.difference.linear_in_one_variable() else {
            return Ok(None);
        };
        let zero = self
            .difference
            .divide(&Value::rational(slope.clone()), fuel)?;
        let bound = Value::atom(variable).add(&zero.negated(), fuel)?;
        let sign = if num_traits::Signed::is_negative(&slope) {
            self.sign.flipped()
        } else {
            self.sign
        };
        let infinity = || Value::atom(Atom::Variable("\\infty".to_owned()));
        let item = |value: Value| {
            Answer::Quantity(Quantity {
                value,
                suffix: None,
                is_long_decimal: false,
            })
        };
        Ok(match sign {
            Sign::Greater => Some(('(', item(bound), item(infinity()), ')')),
            Sign::GreaterEqual => Some(('[', item(bound), item(infinity()), ')')),
            Sign::Less => Some(('(', item(infinity().negated()), item(bound), ')')),
            Sign::LessEqual => Some(('(', item(infinity().negated()), item(bound), ']')),
            Sign::Equal | Sign::NotEqual => None,
        }
        .map(|(open, low, high, close)| Answer::Group {
            open,
            close,
            items: vec![low, high],
        }))
    }
}
