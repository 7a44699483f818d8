//! Sets that are described: `\{x \mid x > 3\}`, `\mathbb{R}`.

use super::answer::Answer;
use super::layout::bracket;
use super::math::Stop;
use super::math::token::{Kind, Token};
use super::name::name_of;
use super::read::Reader;
use super::region::region;

/// The variable and the condition between the braces of `\{x \in \mathbb{R} \mid x > 3\}`.
pub(super) fn builder(inner: &[Token]) -> Option<(String, &[Token])> {
    let mut depth = 0_i32;
    let bar = inner.iter().position(|token| {
        depth += bracket(token);
        depth == 0 && (token.is_mark('|') || token.is_mark(':'))
    })?;
    let (head, condition) = inner.split_at(bar);
    let mut parts = head.splitn(2, |token| token.is_command(&["in"]));
    let name = name_of(parts.next()?)?;
    let is_real = parts.next().is_none_or(is_real_line);
    is_real.then(|| (name.text, condition.get(1..).unwrap_or_default()))
}

/// `\mathbb{R}`
pub(super) fn is_real_line(tokens: &[Token]) -> bool {
    let is_r = |token: &Token| token.kind == Kind::Letter('R');
    match tokens {
        [font, open, r, close] => {
            font.is_command(&["mathbb"]) && open.is_mark('{') && is_r(r) && close.is_mark('}')
        }
        [font, r] => font.is_command(&["mathbb"]) && is_r(r),
        [only] => only.is_command(&["R", "Reals", "reals"]),
        _ => false,
    }
}

impl Reader<'_> {
    /// `(-\infty, \infty)`
    pub(super) fn real_line(&mut self) -> Result<Answer, Stop> {
        let infinity = Token {
            kind: Kind::Command("infty".to_owned()),
            is_spaced: false,
            is_text: false,
        };
        let minus = Token {
            kind: Kind::Mark('-'),
            ..infinity.clone()
        };
        let low = self.quantity(&[minus, infinity.clone()])?;
        let high = self.quantity(&[infinity])?;
        Ok(Answer::Group {
            open: '(',
            close: ')',
            items: vec![Answer::Quantity(low), Answer::Quantity(high)],
        })
    }

    /// The condition, which must be about the set's variable.
    pub(super) fn built(
        &mut self,
        name: String,
        condition: &[Token],
        depth: usize,
    ) -> Result<Answer, Stop> {
        let condition = self.answer(condition, depth + 1)?;
        match region(&condition, self.fuel)? {
            Some(region) if region.variable.as_ref() == Some(&name) => Ok(condition),
            _ => Err(Stop::Syntax),
        }
    }
}
