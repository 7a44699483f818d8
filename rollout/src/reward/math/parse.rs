//! Tokens to an expression tree: a recursive descent with a limit on its depth.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One as _, Zero as _};

use super::Stop;
use super::token::{Kind, Token};

/// Deeper answers are no answers.
const MAX_DEPTH: usize = 64;
/// Digits of one number.
const MAX_DIGITS: usize = 60;
/// Of `1.5e10`.
const MAX_EXPONENT: u32 = 60;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Number(BigRational),
    Pi,
    /// A letter, a Greek command, a named angle.
    Variable(String),
    Degrees(Box<Expr>),
    Negative(Box<Expr>),
    Sum(Vec<Expr>),
    Product(Vec<Expr>),
    Quotient(Box<Expr>, Box<Expr>),
    Power(Box<Expr>, Box<Expr>),
    /// The n-th root.
    Root(Box<Expr>, Box<Expr>),
    /// Function, argument.
    Function(Function, Box<Expr>),
    /// Base (`None` where it is left to the reader), argument.
    Logarithm(Option<Box<Expr>>, Box<Expr>),
    Absolute(Box<Expr>),
}

/// Functions of an angle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Sin,
    Cos,
    Tan,
}

/// Parses all of `tokens`. `thousands`: a comma between a digit and three digits is part of the number.
pub(crate) fn parse(tokens: &[Token], thousands: bool) -> Result<Expr, Stop> {
    let mut parser = Parser {
        tokens,
        position: 0,
        depth: 0,
        thousands,
    };
    let expr = parser.sum()?;
    if parser.position == tokens.len() {
        Ok(expr)
    } else {
        Err(Stop::Syntax)
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    position: usize,
    depth: usize,
    thousands: bool,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.position)
    }

    fn peek_at(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.position + ahead)
    }

    fn advance(&mut self) {
        self.position += 1;
    }

    fn take_mark(&mut self, mark: char) -> bool {
        let found = self.peek().is_some_and(|token| token.is_mark(mark));
        self.position += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char) -> Result<(), Stop> {
        if self.take_mark(mark) {
            Ok(())
        } else {
            Err(Stop::Syntax)
        }
    }

    fn sum(&mut self) -> Result<Expr, Stop> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Stop::Limit);
        }
        let mut terms = vec![self.product()?];
        loop {
            if self.take_mark('+') {
                terms.push(self.product()?);
            } else if self.take_mark('-') {
                terms.push(Expr::Negative(Box::new(self.product()?)));
            } else {
                break;
            }
        }
        self.depth -= 1;
        Ok(match terms.pop() {
            Some(term) if terms.is_empty() => term,
            Some(term) => {
                terms.push(term);
                Expr::Sum(terms)
            }
            None => return Err(Stop::Syntax),
        })
    }

    /// Factors in a row, with `\cdot`, `/` or nothing between.
    fn product(&mut self) -> Result<Expr, Stop> {
        let mut value = self.signed()?;
        loop {
            let is_times = self
                .peek()
                .is_some_and(|t| t.is_mark('*') || t.is_command(&["cdot", "times", "ast"]));
            let is_over = self
                .peek()
                .is_some_and(|t| t.is_mark('/') || t.is_command(&["div"]));
            if is_times || is_over {
                self.advance();
                let factor = self.signed()?;
                value = if is_over {
                    Expr::Quotient(Box::new(value), Box::new(factor))
                } else {
                    times(value, factor)
                };
            } else if self.starts_factor() {
                // `1 2` and `2^10` are slips, not products.
                if matches!(self.peek().map(|t| &t.kind), Some(Kind::Digit(_)))
                    && self.follows_number()
                {
                    return Err(Stop::Syntax);
                }
                let factor = self.power()?;
                value = times(value, factor);
            } else {
                return Ok(value);
            }
        }
    }

    fn follows_number(&self) -> bool {
        let before = self
            .position
            .checked_sub(1)
            .and_then(|position| self.tokens.get(position));
        before.is_some_and(|token| matches!(token.kind, Kind::Digit(_) | Kind::Mark('.')))
    }

    fn starts_factor(&self) -> bool {
        self.peek().is_some_and(|token| match &token.kind {
            Kind::Digit(_) | Kind::Letter(_) | Kind::Mark('(' | '{' | '√') => true,
            Kind::Word(word) => matches!(
                word.as_str(),
                "sqrt" | "pi" | "sin" | "cos" | "tan" | "log" | "ln"
            ),
            Kind::Command(name) => is_value_command(name),
            Kind::Mark(_) | Kind::Row => false,
        })
    }

    fn signed(&mut self) -> Result<Expr, Stop> {
        let mut is_negative = false;
        // One sign, or two as in `3 - -2`.
        for _ in 0..2 {
            if self.take_mark('-') {
                is_negative = !is_negative;
            } else if !self.take_mark('+') {
                break;
            }
        }
        let value = self.power()?;
        Ok(if is_negative {
            Expr::Negative(Box::new(value))
        } else {
            value
        })
    }

    fn power(&mut self) -> Result<Expr, Stop> {
        let base = self.primary()?;
        self.postfix(base)
    }

    /// Degrees and exponents behind a value.
    fn postfix(&mut self, base: Expr) -> Result<Expr, Stop> {
        let is_circle =
            |token: Option<&Token>| token.is_some_and(|t| t.is_command(&["circ", "degree"]));
        if is_circle(self.peek()) {
            self.advance();
            return Ok(Expr::Degrees(Box::new(base)));
        }
        if !self.take_mark('^') {
            return Ok(base);
        }
        if is_circle(self.peek()) {
            self.advance();
            return Ok(Expr::Degrees(Box::new(base)));
        }
        let is_brace = |token: Option<&Token>, mark| token.is_some_and(|t| t.is_mark(mark));
        if is_brace(self.peek(), '{')
            && is_circle(self.peek_at(1))
            && is_brace(self.peek_at(2), '}')
        {
            self.position += 3;
            return Ok(Expr::Degrees(Box::new(base)));
        }
        let exponent = if self.take_mark('(') {
            let exponent = self.sum()?;
            self.expect(')')?;
            exponent
        } else {
            self.argument()?
        };
        Ok(Expr::Power(Box::new(base), Box::new(exponent)))
    }

    /// What a command takes: a group in braces, or one token.
    fn argument(&mut self) -> Result<Expr, Stop> {
        match self.peek().map(|token| &token.kind) {
            Some(Kind::Digit(digit)) => {
                self.advance();
                Ok(Expr::Number(BigRational::from(BigInt::from(*digit))))
            }
            Some(Kind::Mark('{') | Kind::Letter(_) | Kind::Command(_)) => self.primary(),
            Some(Kind::Word(word)) if word == "pi" => self.primary(),
            _ => Err(Stop::Syntax),
        }
    }

    fn primary(&mut self) -> Result<Expr, Stop> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Stop::Limit);
        }
        let token = self.peek().ok_or(Stop::Syntax)?;
        let value = match &token.kind {
            Kind::Digit(_) | Kind::Mark('.') => self.number()?,
            Kind::Letter(letter) => {
                self.advance();
                Expr::Variable(letter.to_string())
            }
            Kind::Mark('(') => self.group('(', ')')?,
            Kind::Mark('{') => self.braces()?,
            Kind::Mark('|') => Expr::Absolute(Box::new(self.group('|', '|')?)),
            Kind::Mark('√') => {
                self.advance();
                let radicand = self.primary()?;
                Expr::Root(Box::new(radicand), Box::new(two()))
            }
            Kind::Word(word) => {
                self.advance();
                match word.as_str() {
                    "pi" => Expr::Pi,
                    "sqrt" => Expr::Root(Box::new(self.group('(', ')')?), Box::new(two())),
                    name => self.function(name)?,
                }
            }
            Kind::Command(name) => {
                self.advance();
                self.command(name)?
            }
            Kind::Mark(_) | Kind::Row => return Err(Stop::Syntax),
        };
        self.depth -= 1;
        Ok(value)
    }

    fn group(&mut self, open: char, close: char) -> Result<Expr, Stop> {
        self.expect(open)?;
        let value = self.sum()?;
        self.expect(close)?;
        Ok(value)
    }

    /// `{a}` or `{a \over b}`
    fn braces(&mut self) -> Result<Expr, Stop> {
        self.expect('{')?;
        let value = self.sum()?;
        if self.peek().is_some_and(|token| token.is_command(&["over"])) {
            self.advance();
            let denominator = self.sum()?;
            self.expect('}')?;
            return Ok(Expr::Quotient(Box::new(value), Box::new(denominator)));
        }
        self.expect('}')?;
        Ok(value)
    }

    fn command(&mut self, name: &str) -> Result<Expr, Stop> {
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
            "angle" => self.angle(),
            name if GREEK.contains(&name) || name == "infty" => {
                Ok(Expr::Variable(format!("\\{name}")))
            }
            name => self.function(name),
        }
    }

    /// `\angle A`, `\angle ABC`, `\angle 1`
    fn angle(&mut self) -> Result<Expr, Stop> {
        let mut name = String::from("\\angle");
        while let Some(Kind::Letter(letter)) = self.peek().map(|token| &token.kind) {
            name.push(*letter);
            self.advance();
        }
        if name.len() == 6 {
            let Some(Kind::Digit(digit)) = self.peek().map(|token| &token.kind) else {
                return Err(Stop::Syntax);
            };
            name.push(char::from(b'0' + digit));
            self.advance();
        }
        Ok(Expr::Variable(name))
    }

    fn function(&mut self, name: &str) -> Result<Expr, Stop> {
        let function = match name {
            "sin" => Function::Sin,
            "cos" => Function::Cos,
            "tan" => Function::Tan,
            "log" | "ln" => {
                let base = if self.take_mark('_') {
                    Some(Box::new(self.argument()?))
                } else {
                    None
                };
                let base = if name == "ln" {
                    Some(Box::new(Expr::Variable("e".to_owned())))
                } else {
                    base
                };
                return Ok(Expr::Logarithm(base, Box::new(self.operand()?)));
            }
            _ => return Err(Stop::Syntax),
        };
        let exponent = if self.take_mark('^') {
            Some(self.argument()?)
        } else {
            None
        };
        let value = Expr::Function(function, Box::new(self.operand()?));
        Ok(match exponent {
            Some(exponent) => Expr::Power(Box::new(value), Box::new(exponent)),
            None => value,
        })
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
        const NAMES: [&str; 5] = ["sin", "cos", "tan", "log", "ln"];
        self.peek()
            .is_some_and(|token| token.is_command(&NAMES) || token.is_word(&NAMES))
    }

    /// A whole number, a decimal, `1,234`, `3.2e5`, or a mixed number `2\frac{1}{3}`, `2 1/3`.
    fn number(&mut self) -> Result<Expr, Stop> {
        let literal = self.literal()?;
        if !literal.is_integer {
            return Ok(Expr::Number(literal.value));
        }
        let fraction = if self
            .peek()
            .is_some_and(|t| t.is_command(&["frac", "dfrac", "tfrac"]))
        {
            let start = self.position;
            self.advance();
            let parts = (self.argument()?, self.argument()?);
            match parts {
                (Expr::Number(numerator), Expr::Number(denominator))
                    if is_proper(&numerator, &denominator) =>
                {
                    Some(numerator / denominator)
                }
                _ => {
                    self.position = start;
                    None
                }
            }
        } else {
            self.plain_fraction()?
        };
        Ok(Expr::Number(match fraction {
            Some(fraction) => literal.value + fraction,
            None => literal.value,
        }))
    }

    /// ` 1/3` behind a whole number.
    fn plain_fraction(&mut self) -> Result<Option<BigRational>, Stop> {
        let is_spaced_digit = self
            .peek()
            .is_some_and(|t| t.is_spaced && matches!(t.kind, Kind::Digit(_)));
        if !is_spaced_digit {
            return Ok(None);
        }
        let numerator = self.literal()?;
        self.expect('/')?;
        let denominator = self.literal()?;
        let is_whole = numerator.is_integer && denominator.is_integer;
        if is_whole && is_proper(&numerator.value, &denominator.value) {
            Ok(Some(numerator.value / denominator.value))
        } else {
            Err(Stop::Syntax)
        }
    }

    fn literal(&mut self) -> Result<Literal, Stop> {
        let mut digits = BigInt::zero();
        let mut num_digits = 0_usize;
        let mut decimals: Option<u32> = None;
        loop {
            let is_first = num_digits == 0 && decimals.is_none();
            match self.peek() {
                Some(Token {
                    kind: Kind::Digit(digit),
                    is_spaced,
                    ..
                }) if is_first || !is_spaced => {
                    digits = digits * 10 + digit;
                    num_digits += 1;
                    decimals = decimals.map(|count| count + 1);
                    self.advance();
                }
                Some(token)
                    if token.is_mark('.')
                        && decimals.is_none()
                        && (is_first || !token.is_spaced) =>
                {
                    decimals = Some(0);
                    self.advance();
                }
                Some(token)
                    if token.is_mark(',') && self.is_thousands_comma(num_digits, decimals) =>
                {
                    self.advance()
                }
                _ => break,
            }
            if num_digits > MAX_DIGITS {
                return Err(Stop::Limit);
            }
        }
        if num_digits == 0 {
            return Err(Stop::Syntax);
        }
        let ten = BigInt::from(10);
        let mut value = BigRational::new(
            digits,
            num_traits::pow(ten.clone(), decimals.unwrap_or_default() as usize),
        );
        let mut is_integer = decimals.is_none();
        if let Some((exponent, is_negative)) = self.exponent()? {
            let power = BigRational::from(num_traits::pow(ten, exponent as usize));
            value = if is_negative {
                value / power
            } else {
                value * power
            };
            is_integer = false;
        }
        Ok(Literal { value, is_integer })
    }

    /// A comma that three digits follow, and not four, behind one to three digits or such a group.
    fn is_thousands_comma(&self, num_digits: usize, decimals: Option<u32>) -> bool {
        let is_digit = |ahead: usize| {
            self.peek_at(ahead)
                .is_some_and(|t| matches!(t.kind, Kind::Digit(_)) && !t.is_spaced)
        };
        let is_first_group = num_digits <= 3
            || self
                .tokens
                .get(self.position.saturating_sub(4))
                .is_some_and(|t| t.is_mark(','));
        self.thousands
            && decimals.is_none()
            && num_digits >= 1
            && is_first_group
            && self.peek().is_some_and(|t| !t.is_spaced)
            && is_digit(1)
            && is_digit(2)
            && is_digit(3)
            && !is_digit(4)
    }

    /// `e5`, `e-9`: without a space, and digits behind it; else `e` is a letter.
    fn exponent(&mut self) -> Result<Option<(u32, bool)>, Stop> {
        let is_e = self
            .peek()
            .is_some_and(|t| !t.is_spaced && matches!(t.kind, Kind::Letter('e' | 'E')));
        if !is_e {
            return Ok(None);
        }
        let sign = self.peek_at(1).filter(|t| t.is_mark('-') || t.is_mark('+'));
        let first = if sign.is_some() { 2 } else { 1 };
        let mut exponent = 0_u32;
        let mut ahead = first;
        while let Some(Token {
            kind: Kind::Digit(digit),
            is_spaced: false,
            ..
        }) = self.peek_at(ahead)
        {
            exponent = exponent * 10 + u32::from(*digit);
            ahead += 1;
            if exponent > MAX_EXPONENT {
                return Err(Stop::Limit);
            }
        }
        if ahead == first {
            return Ok(None);
        }
        self.position += ahead;
        Ok(Some((exponent, sign.is_some_and(|t| t.is_mark('-')))))
    }
}

struct Literal {
    value: BigRational,
    is_integer: bool,
}

/// The fraction of a mixed number: 1/3, not 4/3 and not 1/0.
fn is_proper(numerator: &BigRational, denominator: &BigRational) -> bool {
    numerator.is_integer()
        && denominator.is_integer()
        && !numerator.is_zero()
        && numerator < denominator
}

fn times(left: Expr, right: Expr) -> Expr {
    match left {
        Expr::Product(mut factors) => {
            factors.push(right);
            Expr::Product(factors)
        }
        left => Expr::Product(vec![left, right]),
    }
}

fn two() -> Expr {
    Expr::Number(BigRational::one() + BigRational::one())
}

fn is_value_command(name: &str) -> bool {
    const VALUES: [&str; 13] = [
        "pi", "frac", "dfrac", "tfrac", "cfrac", "sqrt", "sin", "cos", "tan", "log", "ln", "angle",
        "infty",
    ];
    VALUES.contains(&name) || GREEK.contains(&name)
}

pub(crate) const GREEK: [&str; 16] = [
    "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "phi", "varphi",
    "omega", "sigma", "rho", "tau", "psi", "eta",
];
