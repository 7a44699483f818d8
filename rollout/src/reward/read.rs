//! Tokens to an answer: lists, brackets and relations taken apart, quantities evaluated.

use super::answer::{Answer, Joint, Quantity, Sign};
use super::layout::{MAX_ITEMS, is_balanced, mark, matrix_rows, split_list, unwrapped_matrix};
use super::math::canonical::Value;
use super::math::evaluate::evaluate;
use super::math::expr::Expr;
use super::math::parse::parse;
use super::math::suffix::{Suffix, compound, split_suffix};
use super::math::token::{Kind, Token};
use super::math::{Fuel, Stop};
use super::set::{builder, is_real_line};

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
        if let Some(rows) = matrix_rows(unwrapped_matrix(tokens))? {
            return self.matrix(&rows, depth);
        }
        if let Some((value, unit)) = compound(tokens) {
            return Ok(Answer::Quantity(Quantity {
                value: Ok(Value::rational(value.clone())),
                expr: Some(Expr::Number(value)),
                suffix: Some(Suffix::Unit(unit)),
                decimals: None,
                is_long_decimal: false,
            }));
        }
        if let Some((label, point)) = labelled(tokens) {
            return Ok(Answer::Named {
                name: label,
                is_compound: false,
                content: Box::new(self.answer(point, depth + 1)?),
                equation: None,
            });
        }
        let (items, joint) = split_list(tokens, self.thousands);
        if items.len() > 1 {
            return self.list(&items, joint, false, depth);
        }
        match tokens {
            [open, inner @ .., close]
                if open.is_command(&["{"]) && close.is_command(&["}"]) && is_balanced(inner) =>
            {
                if let Some((name, condition)) = builder(inner) {
                    return self.built(name, condition, depth);
                }
                if inner.is_empty() {
                    let empty = Kind::Command("emptyset".to_owned());
                    let empty = Token {
                        kind: empty,
                        ..open.clone()
                    };
                    return self.quantity(&[empty]).map(Answer::Quantity);
                }
                let (items, _) = split_list(inner, self.thousands);
                return self.list(&items, Joint::Comma, true, depth);
            }
            [first, inner @ .., last] if is_balanced(inner) => {
                // `(2,100)` is a point.
                let (items, _) = split_list(inner, false);
                if let Some((open, close)) = brackets(first, last)
                    && items.len() > 1
                {
                    let items = items
                        .into_iter()
                        .map(|item| self.answer(item, depth + 1))
                        .collect::<Result<_, _>>()?;
                    return Ok(Answer::Group { open, close, items });
                }
            }
            _ => {}
        }
        if is_real_line(tokens) {
            return self.real_line();
        }
        if let Some(position) = (0..tokens.len()).find(|at| is_member_sign(tokens, *at)) {
            return self.membership(tokens, position, depth);
        }
        if tokens.iter().any(|token| Sign::of(token).is_some()) {
            return self.relation(tokens, depth);
        }
        if let Some(position) = tokens.iter().position(|t| t.is_command(&["pm", "mp"])) {
            return self.plus_minus(tokens, position, depth);
        }
        let parts: Vec<&[Token]> = tokens.split(is_ratio_sign).collect();
        if parts.len() > 2 {
            if parts.len() > MAX_ITEMS {
                return Err(Stop::Limit);
            }
            let values = parts
                .into_iter()
                .map(|part| evaluate(&parse(part, self.thousands)?, self.fuel));
            return Ok(Answer::Ratio(values.collect::<Result<_, _>>()?));
        }
        self.quantity(tokens).map(Answer::Quantity)
    }

    fn list(
        &mut self,
        items: &[&[Token]],
        joint: Joint,
        is_set: bool,
        depth: usize,
    ) -> Result<Answer, Stop> {
        if items.len() > MAX_ITEMS {
            return Err(Stop::Limit);
        }
        let answers = items
            .iter()
            .map(|item| self.answer(item, depth + 1))
            .collect::<Result<Vec<_>, _>>()?;
        let is_a_set = |answer: &Answer| matches!(answer, Answer::List { is_set: true, .. });
        // `\{1\} \cup \{2\}` is a set; beside an interval a set stays what it is.
        let are_sets = joint == Joint::Union && answers.iter().all(is_a_set);
        let mut list = Vec::with_capacity(answers.len());
        for answer in answers {
            match answer {
                Answer::List { items, is_set, .. } if !is_set || are_sets => list.extend(items),
                answer => list.push(answer),
            }
        }
        if list.len() > MAX_ITEMS {
            return Err(Stop::Limit);
        }
        Ok(Answer::List {
            items: list,
            joint,
            is_set: is_set || are_sets,
        })
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

    /// `2 \pm \sqrt{3}` is two numbers.
    fn plus_minus(
        &mut self,
        tokens: &[Token],
        position: usize,
        depth: usize,
    ) -> Result<Answer, Stop> {
        // Two of them are four numbers or two, nobody knows.
        if tokens.iter().filter(|t| t.is_command(&["pm"])).count() > 1 {
            return Err(Stop::Syntax);
        }
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
        Ok(Answer::List {
            items: answers,
            joint: Joint::Comma,
            is_set: false,
        })
    }

    pub(super) fn quantity(&mut self, tokens: &[Token]) -> Result<Quantity, Stop> {
        let (tokens, suffix) = split_suffix(tokens);
        // Infinity is an answer, but no number to reckon with.
        let is_infinity =
            |token: &Token| token.is_command(&["infty"]) || token.is_word(&["infinity"]);
        if tokens.iter().any(is_infinity) {
            match tokens {
                [only] if is_infinity(only) => {}
                [sign, only] if (sign.is_mark('-') || sign.is_mark('+')) && is_infinity(only) => {}
                _ => return Err(Stop::Undefined),
            }
        }
        let mut parts = tokens.splitn(2, is_ratio_sign);
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        let mut expr = parse(first, self.thousands)?;
        if let Some(second) = second {
            let second = parse(second, self.thousands)?;
            // `00:30` is no 0.
            if evaluate(&expr, self.fuel).is_ok_and(|first| first.is_zero()) {
                return Err(Stop::Undefined);
            }
            expr = Expr::Quotient(Box::new(expr), Box::new(second));
        }
        let value = evaluate(&expr, self.fuel);
        if value == Err(Stop::Undefined) {
            return Err(Stop::Undefined);
        }
        Ok(Quantity {
            expr: Some(expr),
            value,
            suffix,
            decimals: decimals(tokens),
            is_long_decimal: is_long_decimal(tokens),
        })
    }
}

/// `3 : 4`, `3 to 4`
pub(super) fn is_ratio_sign(token: &Token) -> bool {
    token.is_mark(':') || token.is_word(&["to"])
}

/// `\in`, or the `in` of `x in (0, 1)`, which is no inch.
fn is_member_sign(tokens: &[Token], at: usize) -> bool {
    let is_name = |token: &Token| matches!(token.kind, Kind::Letter(_));
    let is_open = |token: &Token| token.is_mark('(') || token.is_mark('[');
    match tokens.get(at.saturating_sub(1)..) {
        Some([name, word, open, ..]) if at > 0 && word.is_word(&["in"]) => {
            is_name(name) && is_open(open)
        }
        _ => tokens
            .get(at)
            .is_some_and(|token| token.is_command(&["in"])),
    }
}

/// The brackets of a point or an interval; `]1, 2[` is `(1, 2)`.
fn brackets(first: &Token, last: &Token) -> Option<(char, char)> {
    let open = match mark(first) {
        '[' => '[',
        '(' | ']' => '(',
        _ => return None,
    };
    match mark(last) {
        ']' => Some((open, ']')),
        ')' | '[' => Some((open, ')')),
        _ => None,
    }
}

/// The name and the coordinates of a point: `A(1, 2)`, `B'(1, 2)`.
fn labelled(tokens: &[Token]) -> Option<(String, &[Token])> {
    let open = tokens.iter().position(|token| token.is_mark('('))?;
    let (label, point) = tokens.split_at(open);
    let is_label = match label {
        [letter, primes @ ..] => {
            matches!(letter.kind, Kind::Letter('A'..='Z')) && primes.iter().all(|t| t.is_mark('\''))
        }
        [] => false,
    };
    let inner = point.get(1..point.len() - 1)?;
    let is_point = point.last()?.is_mark(')') && is_balanced(inner);
    let has_coordinates = split_list(inner, false).0.len() > 1;
    (is_label && is_point && has_coordinates).then(|| (label.iter().map(symbol).collect(), point))
}

fn symbol(token: &Token) -> char {
    match token.kind {
        Kind::Letter(letter) => letter,
        _ => mark(token),
    }
}

/// Digits behind the point of a plain number.
fn decimals(tokens: &[Token]) -> Option<u32> {
    let number = match tokens {
        [sign, number @ ..] if sign.is_mark('-') => number,
        number => number,
    };
    let is_plain = number
        .iter()
        .all(|token| matches!(token.kind, Kind::Digit(_) | Kind::Mark('.' | ',')));
    if !is_plain {
        return None;
    }
    let digits = match number.iter().position(|token| token.is_mark('.')) {
        Some(point) => number.len() - point - 1,
        None => 0,
    };
    u32::try_from(digits).ok().filter(|digits| *digits <= 30)
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
