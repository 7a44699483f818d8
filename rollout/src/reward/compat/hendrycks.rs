//! `math_normalize.normalize_answer` of the MATH data set's authors. Where the Python raises, the answer stays as it was.

use super::normalize::unwrap_text;

pub(super) fn normalize_answer(answer: &str) -> String {
    let answer = answer.trim();
    let answer = unwrap_text(answer).map_or(answer, str::trim);
    strip_string(answer).unwrap_or_else(|| answer.to_owned())
}

/// `_strip_string`; `None` is an exception.
fn strip_string(answer: &str) -> Option<String> {
    let mut text = answer
        .replace('\n', "")
        .replace("\\!", "")
        .replace("\\\\", "\\")
        .replace("tfrac", "frac")
        .replace("dfrac", "frac")
        .replace("\\left", "")
        .replace("\\right", "")
        .replace("^{\\circ}", "")
        .replace("^\\circ", "")
        .replace("\\$", "");
    // A unit on the right.
    if let Some((value, unit)) = text.split_once("\\text{ ") {
        if unit.contains("\\text{ ") {
            return None;
        }
        text = value.to_owned();
    }
    text = text
        .replace("\\%", "")
        .replace('%', "")
        .replace(" .", " 0.")
        .replace("{.", "{0.");
    if text.is_empty() {
        return Some(text);
    }
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    if let Some((name, value)) = text.split_once('=')
        && !value.contains('=')
        && name.chars().count() <= 2
    {
        text = value.to_owned();
    }
    text = fix_sqrt(&text)?.replace(' ', "");
    text = fix_fractions(&text)?;
    if text == "0.5" {
        text = "\\frac{1}{2}".to_owned();
    }
    Some(fix_slash(&text).unwrap_or(text))
}

/// `\sqrt3` -> `\sqrt{3}`
fn fix_sqrt(text: &str) -> Option<String> {
    let mut parts = text.split("\\sqrt");
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let first = part.chars().next()?;
        out.push_str("\\sqrt");
        if first == '{' {
            out.push_str(part);
        } else {
            out.extend(['{', first, '}']);
            out.push_str(part.get(first.len_utf8()..)?);
        }
    }
    Some(out)
}

/// `\frac12`, `\frac1{72}` -> `\frac{1}{2}`, `\frac{1}{72}`
fn fix_fractions(text: &str) -> Option<String> {
    let mut parts = text.split("\\frac");
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let mut chars = part.chars();
        let a = chars.next()?;
        out.push_str("\\frac");
        if a == '{' {
            out.push_str(part);
            continue;
        }
        let Some(b) = chars.next() else {
            return Some(text.to_owned());
        };
        out.extend(['{', a, '}']);
        if b == '{' {
            out.push(b);
        } else {
            out.extend(['{', b, '}']);
        }
        out.push_str(chars.as_str());
    }
    Some(out)
}

/// `3/7` -> `\frac{3}{7}`, for integers as Python prints them.
fn fix_slash(text: &str) -> Option<String> {
    let (a, b) = text.split_once('/')?;
    let is_integer = |text: &str| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        text == "0"
            || (!digits.is_empty()
                && !digits.starts_with('0')
                && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    (is_integer(a) && is_integer(b)).then(|| format!("\\frac{{{a}}}{{{b}}}"))
}
