//! Answers in words.

use super::math::token::WORDS;
use super::math::units::is_unit_word;
use super::wording::is_number;

/// Words rather than a formula. `words` is in lower case.
pub(super) fn is_text(words: &str) -> bool {
    const SHORT: [&str; 5] = ["yes", "no", "true", "false", "none"];
    let is_plain = words
        .chars()
        .all(|c| c.is_alphabetic() || matches!(c, ' ' | '-' | '\'' | ','));
    let is_math = |word: &str| WORDS.contains(&word) || word == "units";
    let is_word =
        |word: &str| SHORT.contains(&word) || (word.chars().count() > 2 && !is_math(word));
    is_plain && words.split([' ', '-', ',']).any(is_word)
}

/// The same words, articles and hyphens apart.
pub(super) fn same_phrase(prediction: &str, gold: &str) -> bool {
    let plain = |text: &str| {
        let mut words: Vec<String> = text
            .split(char::is_whitespace)
            .flat_map(split_hyphens)
            .map(|word| {
                word.trim_matches(['"', '\'', '`', '.', '!', ';', ':'])
                    .trim_end_matches(',')
                    .to_owned()
            })
            .filter(|word| !word.is_empty())
            .collect();
        // `A B C` is `ABC`.
        if words.len() > 2 && words.iter().all(|word| word.chars().count() == 1) {
            words = vec![words.concat()];
        }
        if words.len() > 1 && matches!(words.first().map(String::as_str), Some("a" | "an" | "the"))
        {
            words.remove(0);
        }
        words
    };
    let (said, asked) = (plain(prediction), plain(gold));
    if asked.is_empty() || said == asked {
        return !asked.is_empty();
    }
    // `blue and red` is `red and blue`. With commas alone the order may be what was asked for: `yes, no`.
    let has_order = !gold.contains(" and ") || asked.iter().any(|word| is_verdict(word));
    let sorted = |text: &str| {
        let mut items: Vec<Vec<String>> = items(text).into_iter().map(plain).collect();
        if !has_order {
            items.sort_unstable();
        }
        items
    };
    let (items, asked_items) = (sorted(prediction), sorted(gold));
    let is_list = asked_items.len() > 1 && !asked_items.iter().any(Vec::is_empty);
    is_list && items == asked_items
        || matches!(asked.as_slice(), [only] if is_explained(prediction, only))
}

/// What stands between commas, semicolons and "and".
fn items(text: &str) -> Vec<&str> {
    let parts = text.split([',', ';']).flat_map(|part| part.split(" and "));
    let parts = parts.map(|part| part.trim().trim_start_matches("and ").trim());
    parts.collect()
}

/// `Yes, they are similar` for `Yes`: nothing in it takes the first word back.
fn is_explained(prediction: &str, gold: &str) -> bool {
    let mut words = prediction
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty());
    let denies = |word: &str| {
        matches!(
            word,
            "not"
                | "wrong"
                | "incorrect"
                | "hardly"
                | "cannot"
                | "never"
                | "neither"
                | "nor"
                | "impossible"
        ) || word.ends_with("n't")
    };
    let takes_back = |word: &str| {
        is_verdict(word)
            || matches!(
                word,
                "or" | "but" | "maybe" | "perhaps" | "unless" | "if" | "except"
            )
            || gold != "no" && gold != "false" && denies(word)
    };
    is_verdict(gold) && words.next() == Some(gold) && !words.any(takes_back)
}

fn is_verdict(word: &str) -> bool {
    matches!(word, "yes" | "no" | "true" | "false")
}

/// `right-angled` is two words, `-xyz` is not `xyz`.
fn split_hyphens(word: &str) -> Vec<&str> {
    let parts: Vec<&str> = word.split('-').collect();
    let is_hyphen = parts.windows(2).all(|pair| {
        let [left, right] = pair else { return true };
        left.ends_with(char::is_alphabetic) && right.starts_with(char::is_alphabetic)
    });
    if is_hyphen { parts } else { vec![word] }
}

/// Letters other than those of commands.
pub(super) fn has_letters(text: &str) -> bool {
    text.split('\\')
        .enumerate()
        .any(|(position, part)| match position {
            0 => part.contains(char::is_alphabetic),
            _ => part
                .trim_start_matches(char::is_alphabetic)
                .contains(char::is_alphabetic),
        })
}

/// Whether its last word counts things.
pub(super) fn is_plural(answer: &str) -> bool {
    let word = answer.trim_end_matches(['}', ' ']).to_ascii_lowercase();
    let is_other = ["ss", "ths", "us", "ones", "twos", "tens", "ices"]
        .iter()
        .any(|end| word.ends_with(end));
    let is_irregular = ["people", "children", "women"]
        .iter()
        .any(|end| word.ends_with(end));
    word.ends_with('s') && !is_other || is_irregular
}

/// `5 apples`, `5 \text{ apples}`: the value, and a noun that is no unit, in the singular and lower case.
pub(super) fn split_noun(answer: &str) -> (&str, Option<String>) {
    // Words that change the number before them.
    const SCALES: [&str; 18] = [
        "dozen", "hundred", "thousand", "million", "billion", "trillion", "percent", "half",
        "halve", "third", "quarter", "pair", "squared", "cubed", "root", "infinity", "time",
        "score",
    ];
    let whole = (answer, None);
    let inner = answer.trim_end();
    let (inner, is_wrapped) = match inner.strip_suffix('}') {
        Some(rest) => (rest, true),
        None => (inner, false),
    };
    let start = inner
        .trim_end_matches(|c: char| c.is_ascii_alphabetic())
        .len();
    let (before, raw_noun) = inner.split_at(start);
    let value = if is_wrapped {
        match before
            .trim_end()
            .strip_suffix("\\text{")
            .or_else(|| before.trim_end().strip_suffix("\\mathrm{"))
        {
            Some(value) => value,
            None => return whole,
        }
    } else if before.ends_with(' ') {
        before
    } else {
        return whole;
    };
    let value = value.trim_end();
    let noun = raw_noun.to_ascii_lowercase();
    let singular = noun.strip_suffix('s').unwrap_or(&noun).to_owned();
    let is_value = value.ends_with(|c: char| c.is_ascii_digit() || c == '}');
    // `3 xyz` is a product.
    let is_word = is_wrapped || noun.len() >= 4 && noun.contains(['a', 'e', 'i', 'o', 'u']);
    let is_plain = is_word
        && singular.len() >= 3
        && !is_unit_word(raw_noun, true)
        && !SCALES.contains(&singular.as_str())
        && !is_number(&noun);
    if is_value && is_plain && !has_letters(value) {
        (value, Some(singular))
    } else {
        whole
    }
}
