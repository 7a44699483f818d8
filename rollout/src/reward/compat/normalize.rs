//! `_normalize` of mathruler's grader: units and signs dropped, LaTeX to text, lower case.

use num_bigint::BigInt;
use num_traits::FromPrimitive as _;

use super::latex::to_text;

/// Dropped wherever they stand, in this order.
const UNITS: [&str; 16] = [
    "degree",
    "cm",
    "centimeter",
    "meter",
    "mile",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "year",
    "foot",
    "feet",
    "inch",
    "yard",
];

pub(super) fn normalize(expr: &str) -> String {
    let mut text = unwrap_text(expr)
        .unwrap_or(expr)
        .replace("\\%", "%")
        .replace("\\$", "$")
        .replace(['$', '%'], "")
        .replace(" or ", " , ")
        .replace(" and ", " , ")
        .replace("million", "*10^6")
        .replace("billion", "*10^9")
        .replace("trillion", "*10^12");
    for unit in UNITS {
        text = drop_unit(&text, unit);
    }
    text = drop_spaced(&text, "^", "\\circ");
    if let Some(inner) = text.strip_prefix('{') {
        // The Python cuts both ends of `{` as well.
        text = match inner.strip_suffix('}') {
            Some(inner) => inner.to_owned(),
            None => text,
        };
    }
    text = drop_thin_space(&text);
    if let Some(whole) = python_float(&text).filter(|value| is_whole(*value)) {
        text = print_whole(whole);
    }
    if text.contains('\\') {
        text = parse_latex(&text);
    }
    text = tighten_minus(&text);
    text = add_mixed_numbers(&text)
        .replace([' ', '{', '}'], "")
        .to_lowercase();
    let plain = strip_commas(&text);
    if python_float(&plain).is_some_and(is_whole)
        && let Some(value) = python_float(&text.replace(',', ""))
    {
        text = print_whole(value.trunc());
    }
    text
}

/// `\text{...}` around all of it.
pub(super) fn unwrap_text(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("\\text{")?.strip_suffix('}')?;
    (!inner.is_empty() && !inner.contains('\n')).then_some(inner)
}

fn parse_latex(text: &str) -> String {
    let text = text
        .replace("\\tfrac", "\\frac")
        .replace("\\dfrac", "\\frac")
        .replace("\\frac", " \\frac");
    to_text(&text)
        .replace('√', "sqrt")
        .replace('π', "pi")
        .replace('∞', "inf")
        .replace('∪', "U")
        .replace(['·', '×'], "*")
        .trim()
        .to_owned()
}

/// Python's `float`, digits of other scripts included.
pub(super) fn python_float(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.len() > 400 {
        return None;
    }
    let mut plain = String::with_capacity(text.len());
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // Between digits only.
            '_' if before.is_ascii_digit() && chars.peek().is_some_and(char::is_ascii_digit) => {}
            '\u{ff10}'..='\u{ff19}' => {
                plain.push(char::from_u32(u32::from(c) - 0xff10 + 0x30)?);
            }
            c if c.is_ascii() && c != '_' => plain.push(c),
            _ => return None,
        }
        before = c;
    }
    plain.parse().ok()
}

/// `_is_int`
pub(super) fn is_whole(value: f64) -> bool {
    value.is_finite() && (value - value.round()).abs() <= 1e-7
}

/// An integral float as Python prints its `int`.
fn print_whole(value: f64) -> String {
    BigInt::from_f64(value.round())
        .unwrap_or_default()
        .to_string()
}

/// `{unit}(es)?(s)? *(\^[0-9]+)?`
fn drop_unit(text: &str, unit: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(unit) {
        out.push_str(before);
        let after = after.strip_prefix("es").unwrap_or(after);
        let after = after
            .strip_prefix('s')
            .unwrap_or(after)
            .trim_start_matches(' ');
        rest = after
            .strip_prefix('^')
            .filter(|power| power.starts_with(|c: char| c.is_ascii_digit()))
            .map_or(after, |power| {
                power.trim_start_matches(|c: char| c.is_ascii_digit())
            });
    }
    out.push_str(rest);
    out
}

/// `first *second`
fn drop_spaced(text: &str, first: &str, second: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(first) {
        out.push_str(before);
        match after.trim_start_matches(' ').strip_prefix(second) {
            Some(behind) => rest = behind,
            None => {
                out.push_str(first);
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// `,\! *`
fn drop_thin_space(text: &str) -> String {
    let mut parts = text.split(",\\!");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(part.trim_start_matches(' '));
    }
    out
}

/// `- *` -> `-`
fn tighten_minus(text: &str) -> String {
    let mut parts = text.split('-');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push('-');
        out.push_str(part.trim_start_matches(' '));
    }
    out
}

/// `7 3/4` -> `7+3/4`
fn add_mixed_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, after) = rest.split_at(position + 1);
        out.push_str(before);
        let behind = after.trim_start_matches(' ');
        let is_spaced = behind.len() < after.len();
        let mut chars = behind.chars();
        match chars.next() {
            Some(digit) if is_spaced && digit.is_ascii_digit() => {
                out.extend(['+', digit]);
                rest = chars.as_str();
            }
            _ => rest = after,
        }
    }
    out.push_str(rest);
    out
}

/// Commas before groups of three digits, pass by pass as the original's regex takes them.
pub(super) fn strip_commas(text: &str) -> String {
    let mut text = text.to_owned();
    loop {
        let chars: Vec<char> = text.chars().collect();
        let digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
        let mut next = String::with_capacity(text.len());
        let mut at = 0;
        while let Some(c) = chars.get(at) {
            let is_group = digit(at)
                && chars.get(at + 1) == Some(&',')
                && (2..5).all(|ahead| digit(at + ahead))
                && !digit(at + 5);
            next.push(*c);
            if is_group {
                // The match ends behind the character after the group.
                next.extend(chars.iter().skip(at + 2).take(4));
                at += 6;
            } else {
                at += 1;
            }
        }
        if next == text {
            return text;
        }
        text = next;
    }
}
