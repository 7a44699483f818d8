//! Tokens to an answer: lists, brackets and relations taken apart, quantities evaluated.

use super::answer::{Answer, Quantity, Relation, Sign};
use super::math::canonical::Value;
use super::math::evaluate::evaluate;
use super::math::parse::{GREEK, parse};
use super::math::token::{Kind, Token};
use super::math::units::split_suffix;
use super::math::{Fuel, Stop};

/// Items of a list, cells of a matrix.
const MAX_ITEMS: usize = 64;
/// Lists of tuples are deep enough.
const MAX_DEPTH: usize = 4;

/// Reads with one setting and one tank of fuel.
pub(super) struct Reader<'a> {
    pub(super) thousands: bool,
    pub(super) fuel: &'a mut Fuel,
}

impl Reader<'_> {
    pub(super) fn answer(&mut self, tokens: &[Token], depth: usize) -> Result<Answer, Stop> {
        self.fuel.burn(tokens.len())?;
        if depth > MAX_DEPTH {
            return Err(Stop::Limit);
        }
        let tokens = match tokens {
            [first, rest @ ..] if first.is_command(&["approx"]) => rest,
            [open, inner @ .., close]
                if open.is_mark('{') && close.is_mark('}') && is_balanced(inner) =>
            {
                // `{3 \over 7}` needs its braces.
                if inner.iter().any(|token| token.is_command(&["over"])) {
                    tokens
                } else {
                    inner
                }
            }
            tokens => tokens,
        };
        if let Some(rows) = matrix_rows(tokens)? {
            return self.matrix(&rows, depth);
        }
        let items = self.split_list(tokens);
        if items.len() > 1 {
            return self.list(&items, depth);
        }
        match tokens {
            [open, inner @ .., close]
                if open.is_command(&["{"]) && close.is_command(&["}"]) && is_balanced(inner) =>
            {
                let items = self.split_list(inner);
                return self.list(&items, depth);
            }
            [open, inner @ .., close]
                if (open.is_mark('(') || open.is_mark('['))
                    && (close.is_mark(')') || close.is_mark(']'))
                    && is_balanced(inner) =>
            {
                let items = self.split_list(inner);
                if items.len() > 1 {
                    let items = items
                        .into_iter()
                        .map(|item| self.answer(item, depth + 1))
                        .collect::<Result<_, _>>()?;
                    return Ok(Answer::Group {
                        open: mark(open),
                        close: mark(close),
                        items,
                    });
                }
            }
            _ => {}
        }
        if let Some(position) = tokens.iter().position(|token| Sign::of(token).is_some()) {
            return self.relation(tokens, position, depth);
        }
        if let Some(position) = tokens.iter().position(|t| t.is_command(&["pm", "mp"])) {
            return self.plus_minus(tokens, position, depth);
        }
        self.quantity(tokens).map(Answer::Quantity)
    }

    /// At commas, semicolons, "and", "or" outside of brackets; a comma inside `1,234` is none.
    fn split_list<'t>(&self, tokens: &'t [Token]) -> Vec<&'t [Token]> {
        let mut items = Vec::new();
        let (mut start, mut depth) = (0, 0_i32);
        for (position, token) in tokens.iter().enumerate() {
            depth += bracket(token);
            let is_comma =
                token.is_mark(',') && !(self.thousands && is_thousands(tokens, position));
            let is_word = token.is_word(&["and", "or"]) || token.is_mark(';');
            if depth == 0 && (is_comma || is_word) {
                items.push(tokens.get(start..position).unwrap_or_default());
                start = position + 1;
            }
        }
        items.push(tokens.get(start..).unwrap_or_default());
        // `3, and 5`
        let is_listed = items.len() > 1;
        items.retain(|item| !(is_listed && item.is_empty()));
        items
    }

    fn list(&mut self, items: &[&[Token]], depth: usize) -> Result<Answer, Stop> {
        if items.len() > MAX_ITEMS {
            return Err(Stop::Limit);
        }
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            match self.answer(item, depth + 1)? {
                Answer::List(inner) => list.extend(inner),
                // `x=3` in a list is 3.
                Answer::Named { content, .. } => list.push(*content),
                answer => list.push(answer),
            }
        }
        if list.len() > MAX_ITEMS {
            Err(Stop::Limit)
        } else {
            Ok(Answer::List(list))
        }
    }

    fn matrix(&mut self, rows: &[Vec<&[Token]>], depth: usize) -> Result<Answer, Stop> {
        let mut matrix = Vec::new();
        for row in rows {
            matrix.push(
                row.iter()
                    .map(|cell| self.answer(cell, depth + 1))
                    .collect::<Result<Vec<_>, _>>()?,
            );
        }
        Ok(Answer::Matrix(matrix))
    }

    fn relation(
        &mut self,
        tokens: &[Token],
        position: usize,
        depth: usize,
    ) -> Result<Answer, Stop> {
        let (left, rest) = tokens.split_at(position);
        let Some((token, right)) = rest.split_first() else {
            return Err(Stop::Syntax);
        };
        let sign = Sign::of(token).ok_or(Stop::Syntax)?;
        if right.iter().any(|token| Sign::of(token).is_some()) {
            return Err(Stop::Syntax);
        }
        let difference = |this: &mut Self| -> Result<Value, Stop> {
            let (left, right) = (this.quantity(left)?.value, this.quantity(right)?.value);
            left.add(&right.negated(), this.fuel)
        };
        if sign != Sign::Equal {
            return Ok(Answer::Relation(Relation {
                difference: difference(self)?,
                sign,
            }));
        }
        for (name, content) in [(left, right), (right, left)] {
            if let Some(name) = name_of(name) {
                let content = Box::new(self.answer(content, depth + 1)?);
                let equation = difference(self)
                    .ok()
                    .map(|difference| Relation { difference, sign });
                return Ok(Answer::Named {
                    name,
                    content,
                    equation,
                });
            }
        }
        Ok(Answer::Relation(Relation {
            difference: difference(self)?,
            sign,
        }))
    }

    /// `2 \pm \sqrt{3}` is two numbers.
    fn plus_minus(
        &mut self,
        tokens: &[Token],
        position: usize,
        depth: usize,
    ) -> Result<Answer, Stop> {
        let mut answers = Vec::new();
        for sign in ['+', '-'] {
            let mut signed = tokens.to_vec();
            for token in signed.iter_mut().skip(position) {
                if token.is_command(&["pm"]) {
                    token.kind = Kind::Mark(sign);
                } else if token.is_command(&["mp"]) {
                    token.kind = Kind::Mark(if sign == '+' { '-' } else { '+' });
                }
            }
            answers.push(self.answer(&signed, depth + 1)?);
        }
        Ok(Answer::List(answers))
    }

    fn quantity(&mut self, tokens: &[Token]) -> Result<Quantity, Stop> {
        let (tokens, suffix) = split_suffix(tokens);
        if let Some(position) = tokens
            .iter()
            .position(|t| t.is_mark(':') || t.is_command(&["colon"]))
        {
            let (left, right) = tokens.split_at(position);
            let right = right
                .split_first()
                .map(|(_, right)| right)
                .unwrap_or_default();
            let (left, right) = (self.value(left)?, self.value(right)?);
            return Ok(Quantity {
                value: left.divide(&right, self.fuel)?,
                suffix,
                is_long_decimal: false,
            });
        }
        Ok(Quantity {
            value: self.value(tokens)?,
            suffix,
            is_long_decimal: is_long_decimal(tokens),
        })
    }

    fn value(&mut self, tokens: &[Token]) -> Result<Value, Stop> {
        evaluate(&parse(tokens, self.thousands)?, self.fuel)
    }
}

/// The rows and cells between `\begin{pmatrix}` and `\end{pmatrix}`.
fn matrix_rows(tokens: &[Token]) -> Result<Option<Vec<Vec<&[Token]>>>, Stop> {
    let rest = match tokens {
        [begin, rest @ ..] if begin.is_command(&["begin"]) => rest,
        _ => return Ok(None),
    };
    let name_length = rest
        .iter()
        .position(|t| t.is_mark('}'))
        .ok_or(Stop::Syntax)?
        + 1;
    let name: String = rest.iter().take(name_length).filter_map(letter).collect();
    let end = rest
        .len()
        .checked_sub(name_length + 1)
        .ok_or(Stop::Syntax)?;
    let is_closed = rest.get(end).is_some_and(|t| t.is_command(&["end"]));
    if !is_closed || !matches!(name.as_str(), "pmatrix" | "bmatrix" | "matrix") || end < name_length
    {
        return Err(Stop::Syntax);
    }
    let body = rest.get(name_length..end).unwrap_or_default();
    let rows: Vec<Vec<&[Token]>> = body
        .split(|token| token.kind == Kind::Row)
        .filter(|row| !row.is_empty())
        .map(|row| row.split(|token| token.is_mark('&')).collect())
        .collect();
    if rows.iter().map(Vec::len).sum::<usize>() > MAX_ITEMS {
        Err(Stop::Limit)
    } else {
        Ok(Some(rows))
    }
}

fn letter(token: &Token) -> Option<char> {
    match token.kind {
        Kind::Letter(letter) => Some(letter),
        _ => None,
    }
}

fn mark(token: &Token) -> char {
    match token.kind {
        Kind::Mark(mark) => mark,
        _ => ' ',
    }
}

fn bracket(token: &Token) -> i32 {
    match &token.kind {
        Kind::Mark('(' | '[' | '{') => 1,
        Kind::Mark(')' | ']' | '}') => -1,
        Kind::Command(name) if name == "{" => 1,
        Kind::Command(name) if name == "}" => -1,
        _ => 0,
    }
}

/// Whether the brackets around `inner` belong to each other.
fn is_balanced(inner: &[Token]) -> bool {
    let mut depth = 0;
    inner.iter().all(|token| {
        depth += bracket(token);
        depth >= 0
    }) && depth == 0
}

/// Whether the comma at `position` stands between digits, three of them behind it.
fn is_thousands(tokens: &[Token], position: usize) -> bool {
    let is_digit = |at: usize| {
        tokens
            .get(at)
            .is_some_and(|t| matches!(t.kind, Kind::Digit(_)) && !t.is_spaced)
    };
    let before = position
        .checked_sub(1)
        .and_then(|at| tokens.get(at))
        .is_some_and(|t| matches!(t.kind, Kind::Digit(_)));
    let is_tight = tokens.get(position).is_some_and(|t| !t.is_spaced);
    before && is_tight && (1..=3).all(|ahead| is_digit(position + ahead)) && !is_digit(position + 4)
}

/// The name on one side of an equation: `x`, `AB`, `m\angle A`, `f(x)`; not `2x`.
fn name_of(tokens: &[Token]) -> Option<String> {
    let mut name = String::new();
    let mut is_after_angle = false;
    for (position, token) in tokens.iter().enumerate() {
        let next_is_angle = tokens
            .get(position + 1)
            .is_some_and(|t| t.is_command(&["angle"]));
        match &token.kind {
            Kind::Letter('m') if next_is_angle => {}
            Kind::Letter(letter) => name.push(*letter),
            Kind::Word(word) if token.is_text => name.push_str(word),
            Kind::Digit(digit) if is_after_angle => name.push_str(&digit.to_string()),
            Kind::Mark(mark @ ('\'' | '_' | '(' | ')' | '{' | '}')) if position > 0 => {
                name.push(*mark);
            }
            Kind::Command(command)
                if matches!(
                    command.as_str(),
                    "angle" | "overline" | "triangle" | "measuredangle"
                ) =>
            {
                name.push_str(command);
            }
            Kind::Command(command) if GREEK.contains(&command.as_str()) => name.push_str(command),
            _ => return None,
        }
        is_after_angle = is_after_angle || token.is_command(&["angle"]) || token.is_mark('_');
    }
    (!name.is_empty()).then_some(name)
}

/// One decimal number of at least six significant digits.
fn is_long_decimal(tokens: &[Token]) -> bool {
    let number = match tokens {
        [sign, number @ ..] if sign.is_mark('-') => number,
        number => number,
    };
    let mut digits = number.iter().filter_map(|token| match token.kind {
        Kind::Digit(digit) => Some(digit),
        _ => None,
    });
    let is_plain = number
        .iter()
        .all(|token| matches!(token.kind, Kind::Digit(_) | Kind::Mark('.')));
    let significant = digits.by_ref().skip_while(|digit| *digit == 0).count();
    is_plain && number.iter().any(|token| token.is_mark('.')) && significant >= 6
}
