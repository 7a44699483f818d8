//! Numbers as people write them: `17.5`, `1,234`, `3.2e5`, `2\frac{1}{3}`, `2 1/3`.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Zero as _;

use super::Stop;
use super::expr::Expr;
use super::parse::Parser;
use super::token::{Kind, Token};

/// Digits of one number.
const MAX_DIGITS: usize = 60;
/// Of `1.5e10`.
const MAX_EXPONENT: u32 = 60;

impl Parser<'_> {
    /// A whole number, a decimal, `1,234`, `3.2e5`, or a mixed number `2\frac{1}{3}`, `2 1/3`.
    pub(super) fn number(&mut self) -> Result<Expr, Stop> {
        let start = self.position;
        let literal = self.literal()?;
        if self.peek().is_some_and(|token| token.is_mark('_')) {
            return self.based(start);
        }
        self.ordinal();
        if !literal.is_integer {
            return Ok(Expr::Number(literal.value));
        }
        let fraction = if self
            .peek()
            .is_some_and(|t| t.is_command(&["frac", "dfrac", "tfrac"]))
        {
            self.mixed_fraction()
        } else {
            self.plain_fraction()?
        };
        Ok(Expr::Number(match fraction {
            Some(fraction) => literal.value + fraction,
            None => literal.value,
        }))
    }

    /// `\frac{1}{3}` behind a whole number; anything but digits in it is a product, and left where it stands. Only
    /// digits are looked at: trying whole expressions here would read nested ones twice at each level.
    fn mixed_fraction(&mut self) -> Option<BigRational> {
        let start = self.position;
        self.advance();
        let parts = self.whole_argument().zip(self.whole_argument());
        match parts {
            Some((numerator, denominator)) if is_proper(&numerator, &denominator) => {
                self.literal_end = Some(self.position);
                Some(numerator / denominator)
            }
            _ => {
                self.position = start;
                None
            }
        }
    }

    /// `{12}` or a single digit.
    fn whole_argument(&mut self) -> Option<BigRational> {
        let is_braced = self.peek()?.is_mark('{');
        if is_braced {
            self.advance();
        }
        let mut value = BigInt::zero();
        let mut num_digits = 0_usize;
        while let Some(Kind::Digit(digit)) = self.peek().map(|token| &token.kind) {
            value = value * 10 + *digit;
            num_digits += 1;
            self.advance();
            if !is_braced || num_digits > MAX_DIGITS {
                break;
            }
        }
        if is_braced {
            if !self.peek()?.is_mark('}') {
                return None;
            }
            self.advance();
        }
        (num_digits > 0).then(|| BigRational::from(value))
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

    /// `2516_8`: digits in a base are a name, since the number in another base is no answer to the question.
    fn based(&mut self, start: usize) -> Result<Expr, Stop> {
        let digits = self.tokens.get(start..self.position).unwrap_or_default();
        let mut name = String::new();
        for token in digits {
            match token.kind {
                Kind::Digit(digit) => name.push(char::from(b'0' + digit)),
                _ => return Err(Stop::Syntax),
            }
        }
        self.subscripted(name).map(Expr::Variable)
    }

    /// The end of `3rd`, `3^{rd}`.
    fn ordinal(&mut self) {
        const ENDINGS: [&str; 4] = ["st", "nd", "rd", "th"];
        let is_ending = |ahead: usize| self.peek_at(ahead).is_some_and(|t| t.is_word(&ENDINGS));
        let is_mark = |ahead: usize, mark| self.peek_at(ahead).is_some_and(|t| t.is_mark(mark));
        if is_ending(0) {
            self.position += 1;
        } else if is_mark(0, '^') && is_mark(1, '{') && is_ending(2) && is_mark(3, '}') {
            self.position += 4;
        }
    }

    /// `12.5 thousand`
    fn scale(&mut self) -> Option<BigInt> {
        let Some(Kind::Word(word)) = self.peek().map(|token| &token.kind) else {
            return None;
        };
        let scale: u32 = match word.as_str() {
            "dozen" => 12,
            "hundred" => 100,
            "thousand" => 1000,
            "million" => 1_000_000,
            "billion" => 1_000_000_000,
            _ => return None,
        };
        self.advance();
        Some(BigInt::from(scale))
    }

    pub(super) fn literal(&mut self) -> Result<Literal, Stop> {
        let mut digits = BigInt::zero();
        let mut num_digits = 0_usize;
        let mut decimals: Option<u32> = None;
        let start = self.position;
        loop {
            let is_first = num_digits == 0 && decimals.is_none();
            match self.peek() {
                Some(Token {
                    kind: Kind::Digit(digit),
                    is_spaced,
                    ..
                }) if is_first || !is_spaced || self.is_spaced_group(start, decimals) => {
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
                    self.advance();
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
        if let Some(decimals) = decimals
            && let Some(period) = self.period().or_else(|| self.repetition(start))
        {
            // 0.1\overline{6} = 0.1 + 6 / (10 * 9)
            let scale = num_traits::pow(ten.clone(), decimals as usize);
            value += period / BigRational::from(scale);
        }
        if let Some((exponent, is_negative)) = self.exponent()? {
            let power = BigRational::from(num_traits::pow(ten, exponent as usize));
            value = if is_negative {
                value / power
            } else {
                value * power
            };
            is_integer = false;
        }
        while let Some(scale) = self.scale() {
            value *= BigRational::from(scale);
            is_integer = false;
        }
        self.literal_end = Some(self.position);
        Ok(Literal { value, is_integer })
    }

    /// `\overline{63}` behind decimals: 63/99.
    fn period(&mut self) -> Option<BigRational> {
        if !self
            .peek()
            .is_some_and(|t| t.is_command(&["overline", "bar", "dot"]))
        {
            return None;
        }
        let start = self.position;
        self.advance();
        let before = self.position;
        let period = self.whole_argument();
        let num_tokens = self.position - before;
        let is_braced = self.tokens.get(before).is_some_and(|t| t.is_mark('{'));
        let num_digits = if is_braced {
            num_tokens.saturating_sub(2)
        } else {
            num_tokens
        };
        match period {
            Some(period) if num_digits > 0 => {
                let nines = num_traits::pow(BigInt::from(10), num_digits) - 1;
                Some(period / BigRational::from(nines))
            }
            _ => {
                self.position = start;
                None
            }
        }
    }

    /// `0.1666...`: what the digits before an ellipsis repeat, once it stands there twice and has shown three digits.
    fn repetition(&mut self, start: usize) -> Option<BigRational> {
        let is_point = |ahead: usize| self.peek_at(ahead).is_some_and(|t| t.is_mark('.'));
        let is_dots = self.peek()?.is_command(&["ldots", "dots", "cdots"]);
        let num_dots = match (is_dots, is_point(0) && is_point(1) && is_point(2)) {
            (true, _) => 1,
            (_, true) => 3,
            _ => return None,
        };
        let number = self.tokens.get(start..self.position)?;
        let point = number.iter().position(|token| token.is_mark('.'))?;
        let decimals: Vec<u8> = number
            .iter()
            .skip(point + 1)
            .filter_map(|token| match token.kind {
                Kind::Digit(digit) => Some(digit),
                _ => None,
            })
            .collect();
        let repeats = |length: &usize| {
            let shown = (2 * length).max(3);
            decimals.len() >= shown
                && (1..=shown - length).all(|i| {
                    decimals.get(decimals.len() - i) == decimals.get(decimals.len() - i - length)
                })
        };
        let length = (1..=6).find(repeats)?;
        let period = decimals.iter().skip(decimals.len() - length);
        let period = period.fold(BigInt::zero(), |period, digit| period * 10 + *digit);
        self.position += num_dots;
        let nines = num_traits::pow(BigInt::from(10), length) - 1;
        Some(BigRational::new(period, nines))
    }

    /// `1 234`: three digits behind a space, behind one to three or such a group, and no fraction behind them.
    fn is_spaced_group(&self, start: usize, decimals: Option<u32>) -> bool {
        let is_digit = |at: usize, is_first: bool| {
            let token = self.tokens.get(at);
            token.is_some_and(|t| matches!(t.kind, Kind::Digit(_)) && t.is_spaced == is_first)
        };
        let at = self.position;
        let head = self.tokens.get(start..at).unwrap_or_default();
        let since_space = head.iter().rev().take_while(|t| !t.is_spaced).count();
        let is_grouped = match head.len() {
            0 => false,
            1..=3 => head.iter().all(|t| matches!(t.kind, Kind::Digit(_))),
            _ => since_space == 2,
        };
        let is_fraction = self.tokens.get(at + 3).is_some_and(|t| t.is_mark('/'));
        let is_zero = head.first().is_some_and(|t| t.kind == Kind::Digit(0));
        let is_group = is_digit(at, true) && is_digit(at + 1, false) && is_digit(at + 2, false);
        let ends = !is_digit(at + 3, false);
        self.thousands
            && decimals.is_none()
            && is_grouped
            && !is_zero
            && is_group
            && ends
            && !is_fraction
    }

    /// A comma that three digits follow, and not four, behind one to three digits or such a group.
    fn is_thousands_comma(&self, num_digits: usize, decimals: Option<u32>) -> bool {
        let is_digit = |ahead: usize| {
            self.peek_at(ahead)
                .is_some_and(|t| matches!(t.kind, Kind::Digit(_)) && !t.is_spaced)
        };
        // `0,123` is no number.
        let starts_with_zero = self
            .position
            .checked_sub(num_digits)
            .and_then(|start| self.tokens.get(start))
            .is_some_and(|t| t.kind == Kind::Digit(0));
        let is_first_group = num_digits <= 3 && !starts_with_zero
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

pub(super) struct Literal {
    pub(super) value: BigRational,
    is_integer: bool,
}

/// The fraction of a mixed number: 1/3, not 4/3 and not 1/0.
fn is_proper(numerator: &BigRational, denominator: &BigRational) -> bool {
    numerator.is_integer()
        && denominator.is_integer()
        && !numerator.is_zero()
        && numerator < denominator
}
