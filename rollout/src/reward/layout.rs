//! Where the items of a list, the cells of a matrix and the inside of brackets are.

use super::answer::Joint;
use super::math::Stop;
use super::math::token::{Kind, Token};

/// Items of a list, cells of a matrix.
pub(super) const MAX_ITEMS: usize = 64;

/// At commas, semicolons, "and", "or", `\cup` outside of brackets; with `thousands`, a comma inside `1,234` is none. And which
/// of them they were.
pub(super) fn split_list(tokens: &[Token], thousands: bool) -> (Vec<&[Token]>, Joint) {
    let mut items = Vec::new();
    let (mut has_comma, mut has_and, mut has_or, mut has_union) = (false, false, false, false);
    let (mut start, mut depth) = (0, 0_i32);
    for (position, token) in tokens.iter().enumerate() {
        depth += bracket(token);
        let is_comma = token.is_mark(',') && !(thousands && is_thousands(tokens, position));
        let is_comma = is_comma || token.is_mark(';');
        let (is_and, is_or) = (token.is_word(&["and"]), token.is_word(&["or"]));
        let is_union = token.is_command(&["cup"]);
        if depth == 0 && (is_comma || is_and || is_or || is_union) {
            has_comma |= is_comma;
            has_and |= is_and;
            has_or |= is_or;
            has_union |= is_union;
            items.push(tokens.get(start..position).unwrap_or_default());
            start = position + 1;
        }
    }
    items.push(tokens.get(start..).unwrap_or_default());
    // `3, and 5`
    let is_listed = items.len() > 1;
    items.retain(|item| !(is_listed && item.is_empty()));
    let joint = match (has_and, has_or, has_union) {
        (false, false, false) => Joint::Comma,
        (true, false, false) => Joint::And,
        (false, true, false) => Joint::Or,
        (false, false, true) if !has_comma => Joint::Union,
        _ => Joint::Mixed,
    };
    (items, joint)
}

/// Without the brackets around `\begin{array}...\end{array}`.
pub(super) fn unwrapped_matrix(tokens: &[Token]) -> &[Token] {
    match tokens {
        [open, begin, .., close]
            if (open.is_mark('[') || open.is_mark('('))
                && begin.is_command(&["begin"])
                && (close.is_mark(']') || close.is_mark(')')) =>
        {
            tokens.get(1..tokens.len() - 1).unwrap_or_default()
        }
        tokens => tokens,
    }
}

/// The rows and cells between `\begin{pmatrix}` and `\end{pmatrix}`.
pub(super) fn matrix_rows(tokens: &[Token]) -> Result<Option<Vec<Vec<&[Token]>>>, Stop> {
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
    const NAMES: [&str; 6] = [
        "pmatrix",
        "bmatrix",
        "Bmatrix",
        "matrix",
        "smallmatrix",
        "array",
    ];
    if !is_closed || !NAMES.contains(&name.as_str()) || end < name_length {
        return Err(Stop::Syntax);
    }
    let mut body = rest.get(name_length..end).unwrap_or_default();
    if name == "array" {
        // `{cc}`
        let columns = body
            .iter()
            .position(|t| t.is_mark('}'))
            .ok_or(Stop::Syntax)?;
        body = body.get(columns + 1..).unwrap_or_default();
    }
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

pub(super) fn mark(token: &Token) -> char {
    match token.kind {
        Kind::Mark(mark) => mark,
        _ => ' ',
    }
}

pub(super) fn bracket(token: &Token) -> i32 {
    match &token.kind {
        Kind::Mark('(' | '[' | '{') => 1,
        Kind::Mark(')' | ']' | '}') => -1,
        Kind::Command(name) if name == "{" => 1,
        Kind::Command(name) if name == "}" => -1,
        _ => 0,
    }
}

/// Whether the brackets around `inner` belong to each other.
pub(super) fn is_balanced(inner: &[Token]) -> bool {
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
    // `0,123` is two numbers.
    let head = tokens.get(..position).unwrap_or_default();
    let start = head
        .iter()
        .rposition(|t| !matches!(t.kind, Kind::Digit(_)))
        .map_or(0, |other| other + 1);
    let follows_comma = start > 0 && head.get(start - 1).is_some_and(|t| t.is_mark(','));
    let is_zero = head.get(start).is_some_and(|t| t.kind == Kind::Digit(0));
    let before = before && (follows_comma || !is_zero);
    let is_tight = tokens.get(position).is_some_and(|t| !t.is_spaced);
    before && is_tight && (1..=3).all(|ahead| is_digit(position + ahead)) && !is_digit(position + 4)
}
