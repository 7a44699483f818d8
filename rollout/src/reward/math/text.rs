//! Answers as strings: one spelling for each character, spacing and decoration gone.

/// Longer answers are only compared byte by byte.
pub(crate) const MAX_BYTES: usize = 2048;

/// Commands that only decorate what follows.
const IGNORED: [&str; 14] = [
    "displaystyle",
    "textstyle",
    "limits",
    "nolimits",
    "rm",
    "bf",
    "it",
    "large",
    "Large",
    "LARGE",
    "huge",
    "small",
    "tiny",
    "normalsize",
];

/// Commands that size the delimiter behind them.
const SIZES: [&str; 15] = [
    "left", "right", "middle", "big", "bigl", "bigr", "Big", "Bigl", "Bigr", "bigg", "biggl",
    "biggr", "Bigg", "Biggl", "Biggr",
];

/// Delimiters by name.
const DELIMITERS: [&str; 17] = [
    "lbrace",
    "rbrace",
    "lbrack",
    "rbrack",
    "langle",
    "rangle",
    "lvert",
    "rvert",
    "lVert",
    "rVert",
    "vert",
    "Vert",
    "lfloor",
    "rfloor",
    "lceil",
    "rceil",
    "backslash",
];

/// Folds characters, drops `$`, `\left`, spacing commands; joins digits over `{,}`, `\!` and `\,`. `None` for what is too
/// long, holds control characters or sizes what is no delimiter.
pub(crate) fn normalise(answer: &str) -> Option<String> {
    if answer.len() > MAX_BYTES {
        return None;
    }
    let mut folded = String::with_capacity(answer.len());
    for c in without_marks(answer.trim_matches(is_invisible)).chars() {
        fold(c, &mut folded)?;
    }
    let folded = folded.replace("{,}", ",").replace(".}", "}");
    let folded = folded.replace("{\\rm ", "\\text{ ");
    let folded = folded
        .replace("^{\\prime\\prime}", "''")
        .replace("^{\\prime}", "'")
        .replace("^\\prime", "'")
        .replace("<=", "\\le ")
        .replace(">=", "\\ge ");
    // `$5` is money, `$5$` a formula.
    let is_price = (folded.matches('$').count() - folded.matches("\\$").count()) % 2 == 1;
    let mut out = String::with_capacity(folded.len());
    let mut rest = folded.as_str();
    let mut money = None;
    while let Some(position) = rest.find(['\\', '$', '~', '€', '£', '¥', '₹', '¢']) {
        let (before, mark_on) = rest.split_at(position);
        out.push_str(before);
        let mut chars = mark_on.chars();
        let mark = chars.next();
        if mark != Some('\\') {
            let name = mark
                .and_then(currency)
                .filter(|_| is_price || mark != Some('$'));
            match name {
                Some(name) if out.trim().is_empty() => money = Some(name),
                // `5€`
                Some(name) if mark != Some('$') => {
                    out.extend([" ", name]);
                }
                _ => {}
            }
            out.push(' ');
            rest = chars.as_str();
            continue;
        }
        let after = chars.as_str();
        let name_end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (name, behind) = after.split_at(name_end);
        if !name.is_empty() {
            match name {
                "quad" | "qquad" => out.push(' '),
                name if IGNORED.contains(&name) => {}
                name if SIZES.contains(&name) => {
                    let delimiter = behind.trim_start();
                    if let Some(rest_behind) = delimiter.strip_prefix('.') {
                        // The delimiter that is not shown.
                        out.push(' ');
                        rest = rest_behind;
                        continue;
                    }
                    // `1\right2` is not 12.
                    if !is_delimiter(delimiter) {
                        return None;
                    }
                }
                _ => {
                    out.push('\\');
                    out.push_str(name);
                }
            }
            rest = behind;
            continue;
        }
        let mark = chars.next();
        rest = chars.as_str();
        match mark {
            Some('!') => {}
            // `1\,234`
            Some(',')
                if out.ends_with(|c: char| c.is_ascii_digit())
                    && starts_with_three_digits(rest) => {}
            Some(',' | ';' | ':' | ' ' | '(' | ')' | '[' | ']' | '>') => out.push(' '),
            // `\$5` is 5 dollars; a bare `$` opens a formula.
            Some('$') => {
                if out.trim().is_empty() {
                    money = Some("dollars");
                }
                out.push(' ');
            }
            Some('%') => out.push('%'),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            // `12\ ` with its space cut off.
            None => {}
        }
    }
    out.push_str(rest);
    let answer = trim_ends(&out);
    let is_amount = answer.ends_with(|c: char| c.is_ascii_digit())
        || ["thousand", "million", "billion"]
            .iter()
            .any(|scale| answer.ends_with(scale));
    Some(match money.filter(|_| is_amount) {
        Some(money) => format!("{answer} {money}"),
        None => answer.to_owned(),
    })
}

fn currency(mark: char) -> Option<&'static str> {
    Some(match mark {
        '$' => "dollars",
        '€' => "euros",
        '£' => "pounds",
        '¥' => "yuan",
        '₹' => "rupees",
        '¢' => "cents",
        _ => return None,
    })
}

/// Whether a delimiter stands first.
fn is_delimiter(text: &str) -> bool {
    match text.strip_prefix('\\') {
        Some(command) if command.starts_with(['{', '}', '|']) => true,
        Some(command) => {
            let name = command.split(|c: char| !c.is_ascii_alphabetic()).next();
            name.is_some_and(|name| DELIMITERS.contains(&name))
        }
        None => text.starts_with(['(', ')', '[', ']', '|', '/', '<', '>']),
    }
}

/// `**12**.` is 12 in bold, `"12"` is 12; `2**3` is a power, `12"` are inches.
fn without_marks(text: &str) -> &str {
    let inner = ["**", "\"", "`", "'"].into_iter().find_map(|mark| {
        let ended = text.trim_end_matches(['.', ',', ' ']);
        let inner = ended.strip_prefix(mark)?.strip_suffix(mark)?;
        (!inner.contains(mark)).then_some(inner)
    });
    inner.unwrap_or(text)
}

/// Without the marks that end a sentence or begin an equation.
fn trim_ends(text: &str) -> &str {
    let mut text = text.trim();
    // An ellipsis leaves something out.
    if text.ends_with("..") {
        return text;
    }
    loop {
        let shorter = text
            .strip_suffix("\\\\")
            .or_else(|| text.strip_suffix(['.', ',', ';', ':']))
            .or_else(|| text.strip_prefix(['=', ':']))
            .unwrap_or(text)
            .trim();
        // `\,` and the like end no sentence.
        if shorter.len() == text.len() || shorter.ends_with('\\') {
            return text;
        }
        text = shorter;
    }
}

fn starts_with_three_digits(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    digits == 3
}

fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn fold(c: char, out: &mut String) -> Option<()> {
    match c {
        '−' | '–' | '—' | '‐' | '‑' | '﹣' => out.push('-'),
        '×' => out.push_str("\\times "),
        '·' | '⋅' | '∙' => out.push_str("\\cdot "),
        '÷' => out.push('/'),
        'π' => out.push_str("\\pi "),
        '°' | 'º' | '˚' | '∘' => out.push_str("\\degree "),
        '℃' => out.push_str("\\degree C"),
        '℉' => out.push_str("\\degree F"),
        '⁻' => out.push_str("^{-"),
        c if superscript(c).is_some() => {
            let digit = superscript(c)?;
            // `x¹²` and `x⁻²` are one exponent each.
            match (out.ends_with("^{-"), out.strip_suffix('}').map(str::len)) {
                (true, _) => {}
                (false, Some(end)) if is_exponent(out) => out.truncate(end),
                _ => out.push_str("^{"),
            }
            out.extend([digit, '}']);
        }
        '₀'..='₉' => out.extend(['_', char::from_u32(u32::from(c) - 0x2080 + 0x30)?]),
        '∛' => out.push_str("\\cbrt "),
        '⁄' | '∕' => out.push('/'),
        '⅕' => out.push_str("\\frac{1}{5}"),
        '⅖' => out.push_str("\\frac{2}{5}"),
        '⅗' => out.push_str("\\frac{3}{5}"),
        '⅘' => out.push_str("\\frac{4}{5}"),
        '⅙' => out.push_str("\\frac{1}{6}"),
        '⅚' => out.push_str("\\frac{5}{6}"),
        '⅛' => out.push_str("\\frac{1}{8}"),
        '⅜' => out.push_str("\\frac{3}{8}"),
        '⅝' => out.push_str("\\frac{5}{8}"),
        '⅞' => out.push_str("\\frac{7}{8}"),
        'α' => out.push_str("\\alpha "),
        'β' => out.push_str("\\beta "),
        'γ' => out.push_str("\\gamma "),
        'δ' => out.push_str("\\delta "),
        'θ' => out.push_str("\\theta "),
        'λ' => out.push_str("\\lambda "),
        'μ' => out.push_str("\\mu "),
        'φ' | 'ϕ' => out.push_str("\\phi "),
        'ω' => out.push_str("\\omega "),
        '∪' => out.push_str("\\cup "),
        '∈' => out.push_str("\\in "),
        '∅' => out.push_str("\\emptyset "),
        '△' => out.push_str("\\triangle "),
        '“' | '”' | '″' => out.push('"'),
        '【' => out.push('['),
        '】' => out.push(']'),
        'ℝ' => out.push_str("\\mathbb{R}"),
        '\u{2126}' => out.push('Ω'),
        '㎜' => out.push_str("mm"),
        '㎝' => out.push_str("cm"),
        '㎞' => out.push_str("km"),
        '㎏' => out.push_str("kg"),
        '㎠' => out.push_str("cm^2"),
        '㎡' => out.push_str("m^2"),
        '㎤' => out.push_str("cm^3"),
        '㎥' => out.push_str("m^3"),
        '½' => out.push_str("\\frac{1}{2}"),
        '⅓' => out.push_str("\\frac{1}{3}"),
        '⅔' => out.push_str("\\frac{2}{3}"),
        '¼' => out.push_str("\\frac{1}{4}"),
        '¾' => out.push_str("\\frac{3}{4}"),
        '≤' | '⩽' | '≦' => out.push_str("\\le "),
        '≥' | '⩾' | '≧' => out.push_str("\\ge "),
        '≠' => out.push_str("\\ne "),
        '≈' => out.push_str("\\approx "),
        '∞' => out.push_str("\\infty "),
        '±' => out.push_str("\\pm "),
        '∠' => out.push_str("\\angle "),
        '’' | '′' => out.push('\''),
        // Full-width ASCII.
        '\u{ff01}'..='\u{ff5e}' => out.push(char::from_u32(u32::from(c) - 0xfee0)?),
        c if c.is_whitespace() => out.push(' '),
        c if c.is_control() || is_invisible(c) => return None,
        c => out.push(c),
    }
    Some(())
}

fn superscript(c: char) -> Option<char> {
    Some(match c {
        '⁰' => '0',
        '¹' => '1',
        '²' => '2',
        '³' => '3',
        '⁴' => '4',
        '⁵' => '5',
        '⁶' => '6',
        '⁷' => '7',
        '⁸' => '8',
        '⁹' => '9',
        _ => return None,
    })
}

/// Whether an exponent that came from superscripts ends here.
fn is_exponent(out: &str) -> bool {
    let digits = out
        .strip_suffix('}')
        .map(|rest| rest.trim_end_matches(|c: char| c.is_ascii_digit()));
    digits.is_some_and(|rest| rest.ends_with("^{") || rest.ends_with("^{-"))
}

/// The answer as words: wrappers, braces and marks gone, lower case, single spaces.
pub(crate) fn words(normalised: &str) -> String {
    let mut out = String::with_capacity(normalised.len());
    let mut rest = normalised;
    while let Some(position) = rest.find('\\') {
        let (before, command) = rest.split_at(position);
        out.push_str(before);
        let after = command.strip_prefix('\\').unwrap_or_default();
        let end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (name, behind) = after.split_at(end);
        if !WRAPPERS.contains(&name) {
            out.push('\\');
            out.push_str(name);
        }
        rest = behind;
    }
    out.push_str(rest);
    let spaced: String = out
        .chars()
        .map(|c| {
            if matches!(c, '{' | '}' | '*' | '"') {
                ' '
            } else {
                c
            }
        })
        .collect();
    let joined = spaced
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase();
    joined.trim_end_matches(['.', '!']).trim().to_owned()
}

/// Commands whose argument is text.
pub(crate) const WRAPPERS: [&str; 21] = [
    "text",
    "textbf",
    "textit",
    "textrm",
    "textsf",
    "texttt",
    "mathrm",
    "mathbf",
    "mathit",
    "mathsf",
    "mbox",
    "hbox",
    "operatorname",
    "emph",
    "textnormal",
    "textup",
    "boldsymbol",
    "bm",
    "bold",
    "underline",
    "mathnormal",
];
