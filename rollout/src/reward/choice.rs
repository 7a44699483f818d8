//! Multiple choice: one letter, said once.

use super::math::text::words;

/// The letter of a gold answer that is an option: `A`, `(B)`, `C.`
pub(super) fn choice_of(gold: &str) -> Option<char> {
    let plain = words(gold);
    let inner = plain
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap_or(&plain)
        .trim();
    let is_upper = gold
        .chars()
        .rfind(char::is_ascii_alphabetic)
        .is_some_and(|c| c.is_ascii_uppercase());
    let mut letters = inner.chars();
    match (letters.next(), letters.next()) {
        (Some(letter @ 'a'..='h'), None) if is_upper => Some(letter),
        _ => None,
    }
}

/// `A`, `(A)`, `A.`, `Option A`, `A. 12`, `(A) 12 cm`; never a second letter or a hedge.
pub(super) fn matches_choice(prediction: &str, letter: char) -> bool {
    let plain = words(prediction);
    let mut rest = plain.as_str();
    for word in [
        "the ", "correct ", "answer", "option", "choice", " is ", ":",
    ] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    rest = rest.trim_start();
    let is_open = rest.starts_with(['(', '[']);
    rest = rest.strip_prefix(['(', '[']).unwrap_or(rest).trim_start();
    let Some(rest) = rest.strip_prefix(letter) else {
        return false;
    };
    let rest = rest.trim_start();
    let rest = match (is_open, rest.strip_prefix([')', ']'])) {
        (true, None) => return false,
        (_, Some(rest)) => rest,
        (false, None) if rest.is_empty() => return true,
        (false, None) => match rest
            .strip_prefix(['.', ':'])
            .or_else(|| rest.strip_prefix("- "))
        {
            Some(rest) => rest,
            None => return false,
        },
    };
    let is_hedge = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        matches!(
            word,
            "or" | "and"
                | "not"
                | "nor"
                | "but"
                | "maybe"
                | "either"
                | "both"
                | "all"
                | "none"
                | "any"
                | "wrong"
                | "incorrect"
                | "false"
                | "never"
                | "no"
                | "except"
        ) || (word.len() == 1 && word.starts_with(|c: char| ('a'..='h').contains(&c)))
    };
    // `A. ABCD`, `A. 1B` name other options.
    let raw = prediction
        .rsplit(['.', ')', ':'])
        .next()
        .unwrap_or_default();
    let raw = raw.trim();
    let is_option = |c: char| ('A'..='H').contains(&c);
    let names_more = !raw.is_empty()
        && raw.contains(is_option)
        && raw.chars().all(|c| is_option(c) || c.is_ascii_digit())
        && raw.len() > 1;
    !names_more
        && !rest
            .split([
                ' ', ',', ';', '/', '(', ')', '[', ']', '.', ':', '\\', '&', '|', '+', '-', '=',
                '~',
            ])
            .any(is_hedge)
}
