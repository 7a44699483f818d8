//! What an equation is about: the side that is a name.

use super::layout::bracket;
use super::math::token::{Kind, Token};
use super::math::variable::{GREEK, is_segment};

/// What an equation is about.
pub(super) struct Name {
    pub(super) text: String,
    pub(super) is_compound: bool,
}

/// The name on one side of an equation: `x`, `AB`, `m\angle A`, `f(2)`, `\sin A`, `\frac{AB}{CD}`; not `2x`.
pub(super) fn name_of(tokens: &[Token]) -> Option<Name> {
    const MARKS: [&str; 16] = [
        "angle",
        "overline",
        "triangle",
        "measuredangle",
        "widehat",
        "overset",
        "arc",
        "overarc",
        "vec",
        "hat",
        "bar",
        "square",
        "odot",
        "Delta",
        "overrightarrow",
        "circ",
    ];
    const FUNCTIONS: [&str; 6] = ["sin", "cos", "tan", "cot", "sec", "csc"];
    // `not x = 12`, `x y = 12`: a statement, no name.
    let is_denial = |t: &Token| t.is_word(&["not", "no", "isn", "never", "except"]);
    // `f^{-1}(x)`
    if let [f, hat, open, minus, one, close, rest @ ..] = tokens
        && let Kind::Letter(letter) = f.kind
        && hat.is_mark('^')
        && open.is_mark('{')
        && minus.is_mark('-')
        && one.kind == Kind::Digit(1)
        && close.is_mark('}')
        && rest.first().is_some_and(|t| t.is_mark('('))
    {
        let argument = name_of(rest)?;
        return Some(Name {
            text: format!("{letter}^-1{}", argument.text),
            is_compound: false,
        });
    }
    // Behind `_` letters are one word: `x_{max}`.
    let subscript = tokens.iter().position(|token| token.is_mark('_'));
    let unknowns = tokens
        .get(..subscript.unwrap_or(tokens.len()))
        .unwrap_or_default();
    let num_unknowns = unknowns
        .windows(2)
        .filter(|pair| match pair {
            [
                Token {
                    kind: Kind::Letter(a),
                    is_text: false,
                    ..
                },
                Token {
                    kind: Kind::Letter(b),
                    is_text: false,
                    ..
                },
            ] => a.is_ascii_lowercase() && b.is_ascii_lowercase(),
            _ => false,
        })
        .count();
    if num_unknowns > 0 || tokens.iter().any(is_denial) {
        return None;
    }
    let mut text = String::new();
    let (mut is_after_mark, mut is_compound, mut depth) = (false, false, 0_i32);
    for (position, token) in tokens.iter().enumerate() {
        let next_is_angle = tokens
            .get(position + 1)
            .is_some_and(|t| t.is_command(&["angle"]));
        depth += bracket(token);
        match &token.kind {
            Kind::Letter('m') if next_is_angle => {}
            Kind::Letter(letter) => text.push(*letter),
            Kind::Word(word)
                if token.is_text || FUNCTIONS.contains(&word.as_str()) || is_segment(word) =>
            {
                text.push_str(word);
            }
            Kind::Digit(digit) if is_after_mark || depth > 0 && text.ends_with('(') => {
                text.push_str(&digit.to_string());
            }
            Kind::Mark(mark @ ('\'' | '_' | '(' | ')' | '{' | '}' | ','))
                if position > 0 || *mark == '(' =>
            {
                text.push(*mark);
            }
            // `|AB|` is a length, `|x|` no name.
            Kind::Mark('|')
                if !tokens
                    .iter()
                    .any(|t| matches!(t.kind, Kind::Letter('a'..='z'))) =>
            {
                text.push('|');
            }
            Kind::Mark(mark @ ('/' | ':')) if position > 0 && depth == 0 => {
                text.push(*mark);
                is_compound = true;
            }
            Kind::Command(name) if matches!(name.as_str(), "frac" | "dfrac" | "tfrac") => {
                text.push_str(name);
                is_compound = true;
            }
            Kind::Command(name)
                if MARKS.contains(&name.as_str())
                    || FUNCTIONS.contains(&name.as_str())
                    || GREEK.contains(&name.as_str()) =>
            {
                text.push_str(name);
            }
            _ => return None,
        }
        is_after_mark = token.is_command(&["angle"])
            || token.is_mark('_')
            || (is_after_mark && (token.is_mark('{') || matches!(token.kind, Kind::Digit(_))));
    }
    // Segments and areas have quotients with names of their own, unknowns have not: `x / y = 4` may be the question.
    let is_segment =
        |token: &Token| !matches!(token.kind, Kind::Letter(c) if c.is_ascii_lowercase());
    let text = in_order(text);
    let is_name = !text.is_empty() && (!is_compound || tokens.iter().all(is_segment));
    is_name.then_some(Name { text, is_compound })
}

/// `BA` is `AB`, `\angle CBA` is `\angle ABC`.
fn in_order(text: String) -> String {
    let letters = text.strip_prefix("angle").unwrap_or(&text);
    let is_segment = letters.len() == 2 && letters == text;
    let is_named = (is_segment || letters.len() == 3 && letters != text)
        && letters.bytes().all(|letter| letter.is_ascii_uppercase());
    let reversed: String = letters.chars().rev().collect();
    if is_named && reversed.as_str() < letters {
        text.replace(letters, &reversed)
    } else {
        text
    }
}
