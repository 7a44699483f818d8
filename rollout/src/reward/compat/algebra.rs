//! sympy's part: both sides as Python would read them, equal when their difference is 0.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::super::math::Fuel;
use super::super::math::evaluate::evaluate;
use super::super::math::expr::Expr;
use super::super::math::numeric::{has_variables, same_function};

const MAX_DEPTH: usize = 48;
const MAX_DIGITS: usize = 60;

/// `are_equal_under_sympy`
pub(super) fn are_equal(gold: &str, given: &str) -> bool {
    let both = format!("({gold})-({given})");
    if !may_be_evaluated(&both) {
        return false;
    }
    let mut fuel = Fuel::new();
    let (Some(gold), Some(given)) = (Parser::parse(gold), Parser::parse(given)) else {
        return false;
    };
    let values =
        evaluate(&gold, &mut fuel).and_then(|gold| Ok((gold, evaluate(&given, &mut fuel)?)));
    let Ok((a, b)) = values else {
        return false;
    };
    match a.equals(&b, &mut fuel) {
        // It opens nested roots.
        Ok(false)
            if (a.is_opaque() || b.is_opaque())
                && !has_variables(&gold)
                && !has_variables(&given) =>
        {
            same_function(&given, &gold, &mut fuel).unwrap_or(false)
        }
        is_equal => is_equal.unwrap_or(false),
    }
}

/// `should_allow_eval`: at most two letters, and short powers.
fn may_be_evaluated(text: &str) -> bool {
    let mut letters: Vec<char> = text
        .replace("sqrt", "")
        .replace("frac", "")
        .chars()
        .filter(|c| c.is_alphabetic())
        .collect();
    letters.sort_unstable();
    letters.dedup();
    if letters.len() > 2 || text.contains("^{") || text.contains("^(") {
        return false;
    }
    // `\^[0-9]+\^` and `\^[0-9][0-9]+`
    text.split('^').skip(1).all(|after| {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        digits < 2
    }) && !has_tower(text)
}

/// `x^2^3`
fn has_tower(text: &str) -> bool {
    let parts: Vec<&str> = text.split('^').collect();
    let inner = parts.len().saturating_sub(1);
    parts
        .iter()
        .take(inner)
        .skip(1)
        .any(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Python's expressions, with sympy's implicit multiplication. Whatever else there is ends the reading.
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
    /// Decimals so far: sympy's floats, whose roots are not exact.
    num_floats: usize,
    /// Bytes of a name whose letters are multiplied one by one.
    rest_of_name: usize,
}

impl<'a> Parser<'a> {
    fn parse(text: &'a str) -> Option<Expr> {
        let mut parser = Self {
            rest: text,
            depth: 0,
            num_floats: 0,
            rest_of_name: 0,
        };
        let expr = parser.sum()?;
        parser.peek().is_none().then_some(expr)
    }

    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, mark: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn sum(&mut self) -> Option<Expr> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut terms = vec![self.product()?];
        loop {
            if self.take("+") {
                terms.push(self.product()?);
            } else if self.take("-") {
                terms.push(Expr::Negative(Box::new(self.product()?)));
            } else {
                break;
            }
        }
        self.depth -= 1;
        Some(Expr::Sum(terms))
    }

    fn product(&mut self) -> Option<Expr> {
        let mut value = self.signed()?;
        loop {
            if self.rest.starts_with("**") || self.rest.starts_with("//") {
                return None;
            }
            if self.take("*") {
                value = Expr::Product(vec![value, self.signed()?]);
            } else if self.take("/") {
                value = Expr::Quotient(Box::new(value), Box::new(self.signed()?));
            } else if self
                .peek()
                .is_some_and(|c| c == '(' || c == '.' || c == '_' || c.is_alphanumeric())
            {
                value = Expr::Product(vec![value, self.power()?]);
            } else {
                return Some(value);
            }
        }
    }

    fn signed(&mut self) -> Option<Expr> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let value = if self.take("-") {
            Expr::Negative(Box::new(self.signed()?))
        } else if self.take("+") {
            self.signed()?
        } else {
            self.power()?
        };
        self.depth -= 1;
        Some(value)
    }

    fn power(&mut self) -> Option<Expr> {
        let base = self.primary()?;
        if self.take("^") || self.take("**") {
            let exponent = self.signed()?;
            // sympy's floats are never exactly a root.
            if matches!(&exponent, Expr::Number(number) if !number.is_integer()) {
                return None;
            }
            return Some(Expr::Power(Box::new(base), Box::new(exponent)));
        }
        Some(base)
    }

    fn primary(&mut self) -> Option<Expr> {
        let value = match self.peek()? {
            '(' => self.parenthesis()?,
            _ if self.rest_of_name > 0 => self.letter()?,
            c if c.is_ascii_digit() || c == '.' => self.number()?,
            c if c.is_alphabetic() || c == '_' => self.name()?,
            _ => return None,
        };
        // Factorials are left out.
        (!self.rest.starts_with('!')).then_some(value)
    }

    fn parenthesis(&mut self) -> Option<Expr> {
        if !self.take("(") {
            return None;
        }
        let inner = self.sum()?;
        self.take(")").then_some(inner)
    }

    fn digits(&mut self) -> &'a str {
        let length = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(length);
        self.rest = rest;
        digits
    }

    fn number(&mut self) -> Option<Expr> {
        let whole = self.digits();
        let decimals = match self.rest.strip_prefix('.') {
            Some(rest) => {
                self.rest = rest;
                Some(self.digits())
            }
            None => None,
        };
        let fraction = decimals.unwrap_or_default();
        self.num_floats += usize::from(decimals.is_some());
        let num_digits = whole.len() + fraction.len();
        // `012` is no number in Python.
        let is_octal = decimals.is_none()
            && whole.len() > 1
            && whole.starts_with('0')
            && whole.bytes().any(|byte| byte != b'0');
        if num_digits == 0 || num_digits > MAX_DIGITS || is_octal {
            return None;
        }
        let digits: BigInt = format!("{whole}{fraction}").parse().ok()?;
        let ten = BigInt::from(10);
        let mut value = BigRational::new(digits, num_traits::pow(ten.clone(), fraction.len()));
        if let Some((exponent, is_negative)) = self.exponent()? {
            let power = BigRational::from(num_traits::pow(ten, exponent));
            value = if is_negative {
                value / power
            } else {
                value * power
            };
        }
        Some(Expr::Number(value))
    }

    /// `e5`, `e-9` behind a number.
    fn exponent(&mut self) -> Option<Option<(usize, bool)>> {
        let Some(rest) = self.rest.strip_prefix('e') else {
            return Some(None);
        };
        let is_negative = rest.starts_with('-');
        let digits = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return Some(None);
        }
        let exponent: usize = digits.get(..length)?.parse().ok()?;
        if exponent > MAX_DIGITS {
            return None;
        }
        self.rest = digits.get(length..)?;
        Some(Some((exponent, is_negative)))
    }

    /// `pi`, `sqrt(`, `ln(`, or letters that are multiplied: of `ba^2` only the a is squared.
    fn name(&mut self) -> Option<Expr> {
        if self.rest_of_name > 0 {
            return self.letter();
        }
        let length = self
            .rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(length);
        if name.contains('_') || matches!(name, "mu" | "nu" | "xi") {
            self.rest = rest;
            return Some(Expr::Variable(name.to_owned()));
        }
        match name {
            "pi" => {
                self.rest = rest;
                Some(Expr::Pi)
            }
            "sqrt" => {
                self.rest = rest;
                let two = Expr::Number(BigRational::from(BigInt::from(2)));
                let num_floats = self.num_floats;
                let radicand = self.parenthesis()?;
                (num_floats == self.num_floats)
                    .then(|| Expr::Root(Box::new(radicand), Box::new(two)))
            }
            "ln" => {
                self.rest = rest;
                let e = Expr::Variable("\\e".to_owned());
                let operand = self.parenthesis()?;
                Some(Expr::Logarithm(Some(Box::new(e)), Box::new(operand)))
            }
            "if" | "is" | "in" | "or" | "as" | "re" | "im" | "li" | "oo" | "ff" | "rf" => None,
            _ => {
                self.rest_of_name = length;
                self.letter()
            }
        }
    }

    /// The next letter, or the digits, of a name.
    fn letter(&mut self) -> Option<Expr> {
        let name = self.rest.get(..self.rest_of_name)?;
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        let length = if digits > 0 {
            digits
        } else {
            name.chars().next()?.len_utf8()
        };
        if digits > MAX_DIGITS {
            return None;
        }
        let (part, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.rest_of_name -= length;
        Some(if digits > 0 {
            Expr::Number(BigRational::from(part.parse::<BigInt>().ok()?))
        } else {
            Expr::Variable(part.to_owned())
        })
    }
}
