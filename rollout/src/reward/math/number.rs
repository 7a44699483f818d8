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
        let literal = self.literal()?;
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
            && let Some(period) = self.period()
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
