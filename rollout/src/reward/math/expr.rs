//! What was written, before it is worth anything.

use num_rational::BigRational;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Number(BigRational),
    Pi,
    /// A letter, a Greek command, a named angle.
    Variable(String),
    Degrees(Box<Self>),
    Negative(Box<Self>),
    Sum(Vec<Self>),
    Product(Vec<Self>),
    Quotient(Box<Self>, Box<Self>),
    Power(Box<Self>, Box<Self>),
    /// The n-th root.
    Root(Box<Self>, Box<Self>),
    /// Function, argument.
    Function(Function, Box<Self>),
    /// Base (`None` where it is left to the reader), argument.
    Logarithm(Option<Box<Self>>, Box<Self>),
    Absolute(Box<Self>),
}

/// Functions of an angle, and those that give one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Sin,
    Cos,
    Tan,
    Arcsin,
    Arccos,
    Arctan,
}
