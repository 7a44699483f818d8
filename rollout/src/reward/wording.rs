//! What people put into words: "The area is 24", "twenty-five percent", "three fourths", "5 out of 8".

use super::math::text::{WRAPPERS, words};

/// The answer without its introduction, its number in digits.
pub(super) fn plain(answer: &str) -> String {
    let answer = without_introduction(answer);
    match words(&answer).as_str() {
        "all real numbers" | "all reals" | "the set of all real numbers" => {
            return "\\mathbb{R}".to_owned();
        }
        "no solution" | "no solutions" | "no real solution" | "no real solutions" | "empty set"
        | "the empty set" => return "\\emptyset".to_owned(),
        "dne" => return "does not exist".to_owned(),
        _ => {}
    }
    let answer = match answer.strip_prefix("both ") {
        Some(pair) if pair.contains(" and ") => pair,
        _ => &answer,
    };
    let (sign, answer) = match without_sign(answer) {
        Some(value) => ("-", value),
        None => ("", answer),
    };
    let digits = in_digits(&words(answer)).unwrap_or_else(|| answer.replace(" out of ", "/"));
    // `negative feedback` is no number.
    if sign.is_empty() || digits.starts_with(|c: char| c.is_ascii_digit() || c == '\\') {
        format!("{sign}{digits}")
    } else {
        format!("negative {digits}")
    }
}

/// Behind "negative" or "minus".
fn without_sign(answer: &str) -> Option<&str> {
    let signs = ["negative ", "minus "];
    let sign = signs.iter().find(|sign| {
        let head = answer.get(..sign.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(sign))
    })?;
    answer.get(sign.len()..).map(str::trim_start)
}

/// Behind `The answer is`, `Area:`, `\text{The final result is } `.
fn without_introduction(answer: &str) -> String {
    const BEFORE: [&str; 4] = ["the ", "final ", "correct ", "total "];
    const NOUNS: [&str; 18] = [
        "answer",
        "result",
        "value",
        "solution",
        "area",
        "perimeter",
        "volume",
        "length",
        "width",
        "height",
        "radius",
        "diameter",
        "distance",
        "probability",
        "total",
        "sum",
        "number",
        "measure",
    ];
    const VERBS: [&str; 6] = [" is equal to ", " is", " are", " equals ", ":", " ="];
    let (wrapper, inner) = wrapped(answer);
    let lower = inner.to_ascii_lowercase();
    let mut rest = lower.as_str();
    for word in BEFORE {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let rest = NOUNS.iter().find_map(|noun| rest.strip_prefix(noun));
    let rest = rest.and_then(|rest| VERBS.iter().find_map(|verb| rest.strip_prefix(verb)));
    // `The answer isosceles`; `area = 12, perimeter = 14` is of two things.
    let is_other = |rest: &str| {
        rest.starts_with(char::is_alphabetic) || NOUNS.iter().any(|noun| rest.contains(noun))
    };
    let rest = rest.filter(|rest| !is_other(rest));
    let Some(rest) = rest else {
        return answer.to_owned();
    };
    let behind = inner.get(inner.len() - rest.len()..).unwrap_or_default();
    match behind.trim_start().strip_prefix('}') {
        Some(behind) if !wrapper.is_empty() => behind.trim_start().to_owned(),
        _ => format!("{wrapper}{}", behind.trim_start()),
    }
}

/// `\text{` and what stands behind it.
fn wrapped(answer: &str) -> (&str, &str) {
    let is_wrapper = |wrapper: &&&str| {
        let behind = answer
            .strip_prefix('\\')
            .and_then(|rest| rest.strip_prefix(**wrapper));
        behind.is_some_and(|behind| behind.starts_with('{'))
    };
    match WRAPPERS.iter().find(is_wrapper) {
        Some(wrapper) => {
            let (wrapper, inner) = answer.split_at(wrapper.len() + 2);
            (wrapper, inner.trim_start())
        }
        None => ("", answer),
    }
}

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];
const ORDINALS: [&str; 13] = [
    "", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth",
    "tenth", "eleventh", "twelfth",
];

/// A number in words that begins the answer, as digits; a noun or a unit may follow it.
fn in_digits(text: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphabetic() || matches!(c, ' ' | '-');
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) || !text.chars().all(is_plain) {
        return None;
    }
    let words: Vec<&str> = text
        .split([' ', '-'])
        .filter(|word| !word.is_empty())
        .collect();
    let (number, length) = cardinal(&words);
    let behind = words.get(length..)?;
    if length == 0 {
        // `third`, `half`, `a third`
        return match behind {
            ["half"] => Some("1/2".to_owned()),
            [only] => index(&ORDINALS, only).map(ordinal),
            ["a" | "an", part] => denominator(part).map(|part| format!("1/{part}")),
            _ => None,
        };
    }
    match behind {
        [] => Some(number.to_string()),
        [part] if denominator(part).is_some() => Some(format!("{number}/{}", denominator(part)?)),
        // `twenty-first`
        [last]
            if *last != "second"
                && number % 10 == 0
                && index(&ORDINALS, last).is_some_and(|n| n < 10) =>
        {
            Some(ordinal(number + index(&ORDINALS, last)?))
        }
        // `two and a half`
        ["and", "a", part] => denominator(part).map(|part| format!("{number} 1/{part}")),
        [noun] if !is_counting(noun) => Some(format!("{number} {noun}")),
        [power @ ("square" | "cubic"), unit] => Some(format!("{number} {power} {unit}")),
        // `two or three`, `two parallel lines`
        _ => None,
    }
}

/// `five`, `fives`, `sixes`, `twenties`: five fives are no 5.
pub(super) fn is_number(word: &str) -> bool {
    let is_one = |word: &str| index(&SMALL, word).or(index(&TENS, word)).is_some();
    let singular = word.strip_suffix('s').unwrap_or(word);
    let plurals = [Some(word), Some(singular), singular.strip_suffix('e')];
    let tens = singular.strip_suffix("ie").map(|stem| format!("{stem}y"));
    plurals.into_iter().flatten().any(is_one) || tens.as_deref().is_some_and(is_one)
}

fn index(names: &[&str], word: &str) -> Option<u64> {
    let at = names
        .iter()
        .position(|name| !name.is_empty() && *name == word)?;
    u64::try_from(at).ok()
}

fn ordinal(number: u64) -> String {
    let ending = match (number / 10 % 10, number % 10) {
        (1, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// 4 of `fourths`.
fn denominator(word: &str) -> Option<u64> {
    match word.strip_suffix('s').unwrap_or(word) {
        "half" | "halve" => Some(2),
        "quarter" => Some(4),
        part => index(&ORDINALS, part).filter(|part| *part > 2),
    }
}

/// Words that would make it another number.
fn is_counting(word: &str) -> bool {
    let connects = matches!(
        word,
        "and"
            | "or"
            | "to"
            | "a"
            | "point"
            | "over"
            | "not"
            | "hundred"
            | "thousand"
            | "million"
            | "billion"
            | "dozen"
    );
    connects
        || index(&SMALL, word).is_some()
        || index(&TENS, word).is_some()
        || denominator(word).is_some()
}

/// The number that `words` begin with, and of how many words it is made.
fn cardinal(words: &[&str]) -> (u64, usize) {
    let (mut total, mut group, mut least_scale) = (0_u64, 0_u64, u64::MAX);
    let mut length = 0;
    for (at, word) in words.iter().enumerate() {
        let is_free = group % 100 == 0;
        let is_behind_tens = group % 10 == 0 && group % 100 >= 20;
        let scale = match *word {
            "thousand" => Some(1000),
            "million" => Some(1_000_000),
            "billion" => Some(1_000_000_000),
            _ => None,
        };
        if let Some(small) = index(&SMALL, word)
            && (is_free && (small > 0 || at == 0) || is_behind_tens && (1..10).contains(&small))
        {
            group += small;
        } else if let Some(tens) = index(&TENS, word).filter(|_| is_free) {
            group += tens * 10;
        } else if *word == "hundred" && (1..10).contains(&group) {
            group *= 100;
        } else if let Some(scale) = scale.filter(|scale| group > 0 && *scale < least_scale) {
            total += group * scale;
            (group, least_scale) = (0, scale);
        } else if *word == "and" && at > 0 && is_free && at + 1 < words.len() {
            // `two hundred and five`
            if cardinal(words.get(at + 1..at + 2).unwrap_or_default()).1 == 0 || group + total == 0
            {
                break;
            }
            continue;
        } else {
            break;
        }
        length = at + 1;
    }
    (total + group, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_numbers() {
        for (words, digits) in [
            ("twenty-five percent", "25 percent"),
            ("five hundred", "500"),
            ("two hundred and five", "205"),
            ("one million two thousand", "1002000"),
            ("three fourths", "3/4"),
            ("one half", "1/2"),
            ("half", "1/2"),
            ("A quarter", "1/4"),
            ("two and a half", "2 1/2"),
            ("negative twelve", "-12"),
            ("Minus 3.5", "-3.5"),
            ("negative \\frac{1}{2}", "-\\frac{1}{2}"),
            ("third", "3rd"),
            ("twenty-first", "21st"),
            ("one second", "1 second"),
            ("Zero", "0"),
            ("5 out of 8", "5/8"),
            ("The answer is 24", "24"),
            ("\\text{The area is } 24", "24"),
            ("\\text{Answer: 24 cm}", "\\text{24 cm}"),
            ("All real numbers", "\\mathbb{R}"),
        ] {
            assert_eq!(plain(words), digits, "{words}");
        }
        for same in [
            "two or three",
            "negative feedback",
            "minus",
            "a second",
            "no one",
            "one two",
            "twenty thirty",
            "hundred",
            "one and one",
            "two parallel lines",
            "area = 12, perimeter = 14",
            "The answer isosceles",
            "The wrong answer is 24",
            "x = 4",
        ] {
            assert_eq!(plain(same), same, "{same}");
        }
    }
}
