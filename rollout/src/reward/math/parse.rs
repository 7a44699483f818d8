//! Tokens to an expression tree: a recursive descent with a limit on its depth.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::Stop;
use super::command::is_value_command;
use super::expr::Expr;
use super::function::{factorial, is_function};
use super::token::{Kind, Token};
use super::units::is_unit_word;
use super::variable::{is_segment, segment_name};

/// Deeper answers are no answers.
const MAX_DEPTH: usize = 64;

/// Parses all of `tokens`. `thousands`: a comma between a digit and three digits is part of the number.
pub(crate) fn parse(tokens: &[Token], thousands: bool) -> Result<Expr, Stop> {
    let mut parser = Parser::new(tokens, thousands);
    let expr = parser.sum()?;
    if parser.position == tokens.len() {
        Ok(expr)
    } else {
        Err(Stop::Syntax)
    }
}

pub(super) struct Parser<'a> {
    pub(super) tokens: &'a [Token],
    pub(super) position: usize,
    depth: usize,
    pub(super) thousands: bool,
    /// Where the last number ended, or the digit behind `^`.
    pub(super) literal_end: Option<usize>,
}

/// One plain number.
pub(super) fn parse_number(tokens: &[Token]) -> Option<BigRational> {
    let mut parser = Parser::new(tokens, true);
    let literal = parser.literal().ok()?;
    (parser.position == tokens.len()).then_some(literal.value)
}

impl<'a> Parser<'a> {
    fn new(tokens: &'a [Token], thousands: bool) -> Self {
        Self {
            tokens,
            position: 0,
            depth: 0,
            thousands,
            literal_end: None,
        }
    }

    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.position)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.position + ahead)
    }

    pub(super) fn advance(&mut self) {
        self.position += 1;
    }

    pub(super) fn take_mark(&mut self, mark: char) -> bool {
        let found = self.peek().is_some_and(|token| token.is_mark(mark));
        self.position += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, mark: char) -> Result<(), Stop> {
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
                .is_some_and(|t| t.is_mark('*') || t.is_command(&["cdot", "times", "ast"]))
                || self.is_scientific_x();
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

    /// The letter of `3.2x10^5`.
    fn is_scientific_x(&self) -> bool {
        let is = |ahead: usize, kind: Kind| self.peek_at(ahead).is_some_and(|t| t.kind == kind);
        self.follows_number()
            && is(0, Kind::Letter('x'))
            && is(1, Kind::Digit(1))
            && is(2, Kind::Digit(0))
            && is(3, Kind::Mark('^'))
    }

    pub(super) fn follows_number(&self) -> bool {
        self.literal_end == Some(self.position)
    }

    pub(super) fn starts_factor(&self) -> bool {
        self.peek().is_some_and(|token| match &token.kind {
            Kind::Digit(_) | Kind::Letter(_) | Kind::Mark('(' | '{' | '√') => true,
            Kind::Word(word) => {
                matches!(word.as_str(), "sqrt" | "pi") || is_function(word) || is_product(token)
            }
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

    pub(super) fn power(&mut self) -> Result<Expr, Stop> {
        let base = self.primary()?;
        self.postfix(base)
    }

    /// Degrees and exponents behind a value.
    pub(super) fn postfix(&mut self, base: Expr) -> Result<Expr, Stop> {
        let is_circle =
            |token: Option<&Token>| token.is_some_and(|t| t.is_command(&["circ", "degree"]));
        if is_circle(self.peek()) {
            self.advance();
            return Ok(Expr::Degrees(Box::new(base)));
        }
        if self.take_mark('%') {
            let hundred = Expr::Number(BigRational::from(BigInt::from(100)));
            return Ok(Expr::Quotient(Box::new(base), Box::new(hundred)));
        }
        if self.take_mark('!') {
            return factorial(&base).map(Expr::Number);
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
        } else if self.peek().is_some_and(|t| t.is_mark('-')) {
            // `x^-2` means one thing only.
            self.advance();
            Expr::Negative(Box::new(self.argument()?))
        } else {
            self.argument()?
        };
        // `2^10` is a slip: TeX would print the 0 on the line.
        self.literal_end = Some(self.position);
        Ok(Expr::Power(Box::new(base), Box::new(exponent)))
    }

    /// What a command takes: a group in braces, or one token.
    pub(super) fn argument(&mut self) -> Result<Expr, Stop> {
        match self.peek().map(|token| &token.kind) {
            Some(Kind::Digit(digit)) => {
                self.advance();
                Ok(Expr::Number(BigRational::from(BigInt::from(*digit))))
            }
            // `\frac AB` is A / B.
            Some(Kind::Letter(letter)) => {
                self.advance();
                Ok(Expr::Variable(self.subscripted(letter.to_string())?))
            }
            Some(Kind::Mark('{') | Kind::Command(_)) => self.primary(),
            Some(Kind::Word(word)) if word == "pi" => self.primary(),
            Some(Kind::Mark('√')) => self.primary(),
            _ => Err(Stop::Syntax),
        }
    }

    pub(super) fn primary(&mut self) -> Result<Expr, Stop> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Stop::Limit);
        }
        let token = self.peek().ok_or(Stop::Syntax)?;
        let value = match &token.kind {
            Kind::Digit(_) | Kind::Mark('.') => self.number()?,
            Kind::Letter(letter) => {
                self.advance();
                let name = self.segment(*letter);
                Expr::Variable(self.subscripted(name)?)
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
                    "sqrt" => Expr::Root(Box::new(self.plain_argument()?), Box::new(two())),
                    "infinity" => Expr::Variable("\\infty".to_owned()),
                    word if is_product(token) => letters(word),
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

    /// What `sqrt` takes in plain text: `(5)`, `{5}`, `13`.
    fn plain_argument(&mut self) -> Result<Expr, Stop> {
        match self.peek().map(|token| &token.kind) {
            Some(Kind::Mark('(')) => self.group('(', ')'),
            Some(Kind::Mark('{')) => self.braces(),
            Some(Kind::Digit(_)) => self.number(),
            _ => Err(Stop::Syntax),
        }
    }

    pub(super) fn group(&mut self, open: char, close: char) -> Result<Expr, Stop> {
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
}

pub(super) fn times(left: Expr, right: Expr) -> Expr {
    match left {
        Expr::Product(mut factors) => {
            factors.push(right);
            Expr::Product(factors)
        }
        left => Expr::Product(vec![left, right]),
    }
}

pub(super) fn two() -> Expr {
    Expr::Number(BigRational::from(BigInt::from(2)))
}

/// Two letters that are a unit elsewhere: `mg \sin\theta`.
fn is_product(token: &Token) -> bool {
    match &token.kind {
        Kind::Word(word) => word.len() == 2 && !token.is_text && is_unit_word(word, false),
        _ => false,
    }
}

/// m times g; but `CM` is a segment.
fn letters(word: &str) -> Expr {
    if is_segment(word) {
        return Expr::Variable(segment_name(word.chars().collect()));
    }
    let letters = word.chars().map(|c| Expr::Variable(c.to_string()));
    Expr::Product(letters.collect())
}
