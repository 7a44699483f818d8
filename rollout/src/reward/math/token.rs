//! Tokens of a normalised answer. Digits stay apart, as in TeX: `\sqrt13` is `\sqrt{1}3`.

use super::Stop;
use super::text::WRAPPERS;
use super::units::is_unit_word;

/// More tokens are no answer.
const MAX_TOKENS: usize = 512;

/// The smallest piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Digit(u8),
    /// A variable, or a letter of a name.
    Letter(char),
    /// A known word in plain letters, such as `sqrt` or `cm`, or any run of letters in `\text`.
    Word(String),
    /// `\name`
    Command(String),
    /// Everything else, one character.
    Mark(char),
    /// `\\`, the end of a matrix row.
    Row,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// White space stood before it.
    pub(crate) is_spaced: bool,
    /// It stood in `\text{}`, where single letters may be units.
    pub(crate) is_text: bool,
}

impl Token {
    pub(crate) fn is_mark(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }

    pub(crate) fn is_command(&self, names: &[&str]) -> bool {
        matches!(&self.kind, Kind::Command(name) if names.contains(&name.as_str()))
    }

    /// In any case: units keep theirs.
    pub(crate) fn is_word(&self, words: &[&str]) -> bool {
        match &self.kind {
            Kind::Word(word) => words.iter().any(|own| own.eq_ignore_ascii_case(word)),
            _ => false,
        }
    }
}

/// Runs of plain letters that belong to formulas.
pub(crate) const WORDS: [&str; 34] = [
    "sqrt",
    "pi",
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "arcsin",
    "arccos",
    "arctan",
    "log",
    "ln",
    "lg",
    "exp",
    "and",
    "or",
    "percent",
    "square",
    "sq",
    "cubic",
    "cu",
    "per",
    "squared",
    "cubed",
    "celsius",
    "fahrenheit",
    "infinity",
    "to",
    "dozen",
    "hundred",
    "thousand",
    "million",
    "billion",
];

/// Whether `1st`, `22nd`, `13th` end so.
fn is_ordinal(before: &[Token], run: &str) -> bool {
    // `21^{st}`
    let before = match before {
        [before @ .., hat, open] if hat.is_mark('^') && open.is_mark('{') => before,
        before => before,
    };
    let digit = |back: usize| {
        let token = before.len().checked_sub(back).and_then(|at| before.get(at));
        match token.map(|token| &token.kind) {
            Some(Kind::Digit(digit)) => Some(*digit),
            _ => None,
        }
    };
    let ending = match (digit(2), digit(1)) {
        (_, None) => return false,
        (Some(1), _) => "th",
        (_, Some(1)) => "st",
        (_, Some(2)) => "nd",
        (_, Some(3)) => "rd",
        _ => "th",
    };
    run.eq_ignore_ascii_case(ending)
}

pub(crate) fn tokenize(normalised: &str) -> Result<Vec<Token>, Stop> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = normalised;
    let mut is_spaced = false;
    // Depth of the braces that close `\text{`.
    let mut text_depths: Vec<usize> = Vec::new();
    let mut depth = 0_usize;
    while let Some(c) = rest.chars().next() {
        if tokens.len() >= MAX_TOKENS {
            return Err(Stop::Limit);
        }
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        if c == ' ' {
            is_spaced = true;
            rest = after;
            continue;
        }
        let letters = |text: &str| {
            text.find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(text.len())
        };
        let is_text = !text_depths.is_empty();
        let mut push = |kind| {
            tokens.push(Token {
                kind,
                is_spaced,
                is_text,
            });
        };
        match c {
            '\\' => {
                let (name, behind) = after.split_at(letters(after));
                if name.is_empty() {
                    let mark = after.chars().next().ok_or(Stop::Syntax)?;
                    push(if mark == '\\' {
                        Kind::Row
                    } else {
                        Kind::Command(mark.to_string())
                    });
                    rest = after.get(mark.len_utf8()..).unwrap_or_default();
                } else if WRAPPERS.contains(&name) && behind.trim_start().starts_with('{') {
                    depth += 1;
                    text_depths.push(depth);
                    rest = behind.trim_start().strip_prefix('{').unwrap_or_default();
                    is_spaced = true;
                    continue;
                } else {
                    push(match name {
                        "langle" => Kind::Mark('('),
                        "rangle" => Kind::Mark(')'),
                        "lbrack" => Kind::Mark('['),
                        "rbrack" => Kind::Mark(']'),
                        "lvert" | "rvert" | "vert" | "mid" => Kind::Mark('|'),
                        "lbrace" => Kind::Command("{".to_owned()),
                        "rbrace" => Kind::Command("}".to_owned()),
                        "colon" => Kind::Mark(':'),
                        "land" | "wedge" => Kind::Word("and".to_owned()),
                        "lor" | "vee" => Kind::Word("or".to_owned()),
                        name => Kind::Command(name.to_owned()),
                    });
                    rest = behind;
                }
            }
            c if c.is_ascii_alphabetic() => {
                let (run, behind) = rest.split_at(letters(rest));
                let word = run.to_ascii_lowercase();
                if WORDS.contains(&word.as_str()) {
                    push(Kind::Word(word));
                } else if is_unit_word(run, is_text) {
                    push(Kind::Word(run.to_owned()));
                } else if is_text && run.len() > 1 || !is_spaced && is_ordinal(&tokens, run) {
                    tokens.push(Token {
                        kind: Kind::Word(word),
                        is_spaced,
                        is_text,
                    });
                } else {
                    for letter in run.chars() {
                        tokens.push(Token {
                            kind: Kind::Letter(letter),
                            is_spaced,
                            is_text,
                        });
                        is_spaced = false;
                    }
                    if tokens.len() > MAX_TOKENS {
                        return Err(Stop::Limit);
                    }
                }
                rest = behind;
            }
            '*' if after.starts_with('*') => {
                push(Kind::Mark('^'));
                rest = after.strip_prefix('*').unwrap_or_default().trim_start();
                // All digits behind it are the exponent, as in Python.
                let end = rest
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(rest.len());
                let (digits, behind) = rest.split_at(end);
                if digits.len() > 1 {
                    push(Kind::Mark('{'));
                    for digit in digits.bytes() {
                        push(Kind::Digit(digit - b'0'));
                    }
                    push(Kind::Mark('}'));
                    rest = behind;
                }
                if tokens.len() > MAX_TOKENS {
                    return Err(Stop::Limit);
                }
            }
            c => {
                rest = after;
                match c {
                    '{' => depth += 1,
                    '}' if text_depths.last() == Some(&depth) => {
                        text_depths.pop();
                        depth = depth.saturating_sub(1);
                        is_spaced = false;
                        continue;
                    }
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                match c.to_digit(10).and_then(|digit| u8::try_from(digit).ok()) {
                    Some(digit) => push(Kind::Digit(digit)),
                    None => push(Kind::Mark(c)),
                }
            }
        }
        is_spaced = false;
    }
    if text_depths.is_empty() {
        Ok(tokens)
    } else {
        Err(Stop::Syntax)
    }
}
