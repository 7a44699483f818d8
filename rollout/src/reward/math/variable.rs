//! Names: variables, segments, angles.

use super::Stop;
use super::expr::Expr;
use super::parse::Parser;
use super::token::{Kind, Token};

/// Letters of Greek that stand for variables.
pub(crate) const GREEK: [&str; 16] = [
    "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "phi", "varphi",
    "omega", "sigma", "rho", "tau", "psi", "eta",
];

/// `AB` and `BA` are one.
pub(super) fn segment_name(mut letters: Vec<char>) -> String {
    letters.sort_unstable();
    letters.into_iter().collect()
}

/// `CM` is one where no number stands before it.
pub(crate) fn is_segment(word: &str) -> bool {
    word.len() == 2 && word.chars().all(|c| c.is_ascii_uppercase())
}

impl Parser<'_> {
    /// `AB` is the length of a segment, and `BA` the same one; not A times B.
    pub(super) fn segment(&mut self, first: char) -> String {
        let mut letters = vec![first];
        while first.is_ascii_uppercase()
            && let Some(Token {
                kind: Kind::Letter(letter @ 'A'..='Z'),
                is_spaced: false,
                ..
            }) = self.peek()
        {
            letters.push(*letter);
            self.advance();
        }
        segment_name(letters)
    }

    /// `x_1`, `x_{12}`, `x_A`
    pub(super) fn subscripted(&mut self, mut name: String) -> Result<String, Stop> {
        if !self.take_mark('_') {
            return Ok(name);
        }
        let is_group = self.take_mark('{');
        let start = name.len();
        while let Some(token) = self.peek() {
            match &token.kind {
                Kind::Digit(digit) => name.push(char::from(b'0' + digit)),
                Kind::Letter(letter) => name.push(*letter),
                Kind::Word(word) => name.push_str(word),
                _ => break,
            }
            self.advance();
            if !is_group {
                break;
            }
        }
        if name.len() == start {
            return Err(Stop::Syntax);
        }
        name.insert(start, '_');
        if is_group {
            self.expect('}')?;
        }
        Ok(name)
    }

    /// `\angle A`, `\angle ABC`, `\angle 1`
    pub(super) fn angle(&mut self) -> Result<Expr, Stop> {
        let mut letters = Vec::new();
        while let Some(Kind::Letter(letter)) = self.peek().map(|token| &token.kind) {
            letters.push(*letter);
            self.advance();
        }
        // `\angle CBA` is `\angle ABC`.
        if let [first, _, last] = letters.as_slice()
            && last < first
        {
            letters.reverse();
        }
        let mut name = String::from("\\angle");
        name.extend(letters);
        if name.len() == 6 {
            let Some(Kind::Digit(digit)) = self.peek().map(|token| &token.kind) else {
                return Err(Stop::Syntax);
            };
            name.push(char::from(b'0' + digit));
            self.advance();
        }
        Ok(Expr::Variable(name))
    }
}
