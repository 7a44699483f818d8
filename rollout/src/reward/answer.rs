//! What kind of answer it is: a quantity, an equation, a list, an interval, ...

use num_rational::BigRational;

use super::math::canonical::Value;
use super::math::expr::Expr;
use super::math::suffix::Suffix;
use super::math::token::{Kind, Token};
use super::math::{Fuel, Stop};

/// An answer, read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Quantity(Quantity),
    /// `x = 4`: the name, what it is, and both as an equation when both are expressions.
    Named {
        name: String,
        /// `\frac{AB}{CD}`: of several names.
        is_compound: bool,
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
    List {
        items: Vec<Self>,
        joint: Joint,
        is_set: bool,
    },
    /// `3:4:5`
    Ratio(Vec<Value>),
    Matrix(Vec<Vec<Self>>),
    /// `\sqrt{2} \approx 1.41`: the same number in several forms.
    Forms(Vec<Self>),
}

/// What stands between the items of a list. Numbers may be listed in any way; of inequalities, intervals and points it says
/// which of them hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joint {
    /// `,`, `;`, or nothing that was written
    Comma,
    /// `and`, also behind commas
    And,
    /// `or`, also behind commas
    Or,
    /// `\cup`
    Union,
    /// Several of them.
    Mixed,
}

/// A value with what stands behind it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantity {
    /// As it was written; `None` for a value that was computed.
    pub(super) expr: Option<Expr>,
    /// The canonical form; why there is none otherwise.
    pub(super) value: Result<Value, Stop>,
    pub(super) suffix: Option<Suffix>,
    /// Digits behind the point of a plain decimal.
    pub(super) decimals: Option<u32>,
    /// Written as a decimal of at least 6 significant digits.
    pub(super) is_long_decimal: bool,
}

impl Quantity {
    pub(super) fn times(&self, factor: &BigRational, fuel: &mut Fuel) -> Result<Self, Stop> {
        if num_traits::One::is_one(factor) {
            return Ok(self.clone());
        }
        let value = match &self.value {
            Ok(value) => Ok(value.multiply(&Value::rational(factor.clone()), fuel)?),
            Err(stop) => Err(*stop),
        };
        let expr = self
            .expr
            .clone()
            .map(|expr| Expr::Product(vec![Expr::Number(factor.clone()), expr]));
        Ok(Self {
            expr,
            value,
            ..self.clone()
        })
    }
}

/// `difference SIGN 0`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Relation {
    pub(super) difference: Value,
    /// As they were written.
    pub(super) sides: Box<[Expr; 2]>,
    pub(super) sign: Sign,
    /// One side is a variable, the other has none: `x > 3`, not the question's `2x > 6`.
    pub(super) solution: Option<Solution>,
}

/// What a variable is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Solution {
    pub(super) name: String,
    /// With the variable on the left.
    pub(super) sign: Sign,
    pub(super) bound: Quantity,
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
    /// An equation or inequality.
    pub(super) fn as_relation(&self) -> Option<&Relation> {
        match self {
            Self::Relation(relation) => Some(relation),
            Self::Named { equation, .. } => equation.as_ref(),
            _ => None,
        }
    }
}
