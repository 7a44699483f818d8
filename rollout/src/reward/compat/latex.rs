//! pylatexenc's `latex_to_text`, for what stands in answers: macros become characters, groups lose their braces, `\frac{a}{b}`
//! is `a/b` and `\sqrt[n]{a}` is `√(a)`. Macros that it does not know vanish; their arguments stay.

/// Deeper groups are read flat.
const MAX_DEPTH: usize = 64;

const SYMBOLS: &[(&str, &str)] = &[
    ("alpha", "α"),
    ("beta", "β"),
    ("gamma", "γ"),
    ("delta", "δ"),
    ("epsilon", "ϵ"),
    ("varepsilon", "ε"),
    ("zeta", "ζ"),
    ("eta", "η"),
    ("theta", "θ"),
    ("vartheta", "ϑ"),
    ("iota", "ι"),
    ("kappa", "κ"),
    ("lambda", "λ"),
    ("mu", "μ"),
    ("nu", "ν"),
    ("xi", "ξ"),
    ("pi", "π"),
    ("rho", "ρ"),
    ("sigma", "σ"),
    ("tau", "τ"),
    ("upsilon", "υ"),
    ("phi", "ϕ"),
    ("varphi", "φ"),
    ("chi", "χ"),
    ("psi", "ψ"),
    ("omega", "ω"),
    ("Gamma", "Γ"),
    ("Delta", "Δ"),
    ("Theta", "Θ"),
    ("Lambda", "Λ"),
    ("Xi", "Ξ"),
    ("Pi", "Π"),
    ("Sigma", "Σ"),
    ("Phi", "Φ"),
    ("Psi", "Ψ"),
    ("Omega", "Ω"),
    ("pm", "±"),
    ("mp", "∓"),
    ("times", "×"),
    ("cdot", "·"),
    ("div", "÷"),
    ("ast", "∗"),
    ("star", "⋆"),
    ("circ", "∘"),
    ("bullet", "∙"),
    ("le", "≤"),
    ("leq", "≤"),
    ("leqslant", "⩽"),
    ("ge", "≥"),
    ("geq", "≥"),
    ("geqslant", "⩾"),
    ("neq", "≠"),
    ("approx", "≈"),
    ("sim", "∼"),
    ("simeq", "≃"),
    ("cong", "≅"),
    ("equiv", "≡"),
    ("propto", "∝"),
    ("infty", "∞"),
    ("cup", "∪"),
    ("cap", "∩"),
    ("in", "∈"),
    ("notin", "∉"),
    ("subset", "⊂"),
    ("subseteq", "⊆"),
    ("emptyset", "∅"),
    ("varnothing", "∅"),
    ("setminus", "∖"),
    ("forall", "∀"),
    ("exists", "∃"),
    ("angle", "∠"),
    ("measuredangle", "∡"),
    ("square", "□"),
    ("perp", "⊥"),
    ("parallel", "∥"),
    ("mid", "|"),
    ("vert", "|"),
    ("Vert", "‖"),
    ("lvert", "|"),
    ("rvert", "|"),
    ("lfloor", "⌊"),
    ("rfloor", "⌋"),
    ("lceil", "⌈"),
    ("rceil", "⌉"),
    ("langle", "⟨"),
    ("rangle", "⟩"),
    ("to", "→"),
    ("rightarrow", "→"),
    ("leftarrow", "←"),
    ("Rightarrow", "⇒"),
    ("ldots", "…"),
    ("cdots", "⋯"),
    ("dots", "…"),
    ("prime", "'"),
    ("partial", "∂"),
    ("nabla", "∇"),
    ("sum", "∑"),
    ("prod", "∏"),
    ("int", "∫"),
    ("sin", "sin"),
    ("cos", "cos"),
    ("tan", "tan"),
    ("arcsin", "arcsin"),
    ("arccos", "arccos"),
    ("arctan", "arctan"),
    ("ln", "ln"),
    ("log", "log"),
    ("exp", "exp"),
    ("lim", "lim"),
    ("max", "max"),
    ("min", "min"),
    ("ell", "ℓ"),
    ("hbar", "ħ"),
    ("wedge", "∧"),
    ("vee", "∨"),
    ("lnot", "¬"),
    ("therefore", "∴"),
    ("because", "∵"),
    ("quad", "  "),
    ("qquad", "    "),
];

/// Macros whose argument comes out in other letters, which equal no plain ones.
const ALPHABETS: [&str; 7] = [
    "mathbf", "mathbb", "mathcal", "mathfrak", "mathsf", "mathtt", "mathit",
];
const ACCENTS: [(&str, char); 7] = [
    ("vec", '\u{20d7}'),
    ("hat", '\u{302}'),
    ("bar", '\u{304}'),
    ("tilde", '\u{303}'),
    ("dot", '\u{307}'),
    ("ddot", '\u{308}'),
    ("check", '\u{30c}'),
];

pub(super) fn to_text(latex: &str) -> String {
    let mut reader = Reader { rest: latex };
    let mut out = String::with_capacity(latex.len());
    while !reader.rest.is_empty() {
        out.push_str(&reader.until_close(0));
    }
    out
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }

    /// Up to the brace that closes a group, or to the end.
    fn until_close(&mut self, depth: usize) -> String {
        let mut out = String::new();
        while let Some(c) = self.next() {
            match c {
                '}' => break,
                '{' if depth < MAX_DEPTH => out.push_str(&self.until_close(depth + 1)),
                '{' => {}
                '\\' => self.macro_text(&mut out, depth),
                '~' => out.push('\u{a0}'),
                '&' => out.push_str("   "),
                '-' if self.rest.starts_with("--") => {
                    self.rest = self.rest.get(2..).unwrap_or_default();
                    out.push('—');
                }
                '-' if self.rest.starts_with('-') => {
                    self.next();
                    out.push('–');
                }
                '\'' if self.rest.starts_with('\'') => {
                    self.next();
                    out.push('”');
                }
                c => out.push(c),
            }
        }
        out
    }

    fn macro_text(&mut self, out: &mut String, depth: usize) {
        let length = self
            .rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(self.rest.len());
        if length == 0 {
            match self.next() {
                Some(',' | ';' | ':' | ' ') => out.push(' '),
                Some('\\') => out.push('\n'),
                Some(c @ ('{' | '}' | '%' | '$' | '#' | '&' | '_')) => out.push(c),
                _ => {}
            }
            return;
        }
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest.trim_start();
        match name {
            "frac" => {
                let (a, b) = (self.argument(depth), self.argument(depth));
                out.push_str(&a);
                out.push('/');
                out.push_str(&b);
            }
            "sqrt" => {
                if let Some(index) = self.rest.strip_prefix('[')
                    && let Some((_, rest)) = index.split_once(']')
                {
                    self.rest = rest;
                }
                out.push_str("√(");
                let radicand = self.argument(depth);
                out.push_str(&radicand);
                out.push(')');
            }
            "begin" => self.environment(out, depth),
            "end" | "color" | "textcolor" => {
                self.argument(depth);
            }
            name if ALPHABETS.contains(&name) => {
                let alphabet = ALPHABETS.iter().position(|known| *known == name);
                let mark = u32::try_from(alphabet.unwrap_or_default()).unwrap_or_default();
                for c in self.argument(depth).chars() {
                    // A private character before each letter keeps it apart from the plain one.
                    if c.is_alphabetic() {
                        out.extend(char::from_u32(0xf_0000 + mark));
                    }
                    out.push(c);
                }
            }
            name => {
                if let Some((_, text)) = SYMBOLS.iter().find(|(known, _)| *known == name) {
                    out.push_str(text);
                } else if let Some((_, accent)) = ACCENTS.iter().find(|(known, _)| *known == name) {
                    out.push_str(&self.argument(depth));
                    out.push(*accent);
                }
            }
        }
    }

    /// A group, a macro without its arguments, or a character.
    fn argument(&mut self, depth: usize) -> String {
        self.rest = self.rest.trim_start();
        if depth >= MAX_DEPTH {
            return String::new();
        }
        match self.next() {
            Some('{') => self.until_close(depth + 1),
            Some('\\') => {
                let mut out = String::new();
                self.macro_text(&mut out, depth + 1);
                out
            }
            Some('}') | None => String::new(),
            Some(c) => c.to_string(),
        }
    }

    /// A matrix is `[ a b; c d ]`; other environments are what they hold.
    fn environment(&mut self, out: &mut String, depth: usize) {
        let name = self.argument(depth);
        if name == "array" {
            self.argument(depth);
        }
        let end = format!("\\end{{{name}}}");
        let (body, rest) = self.rest.split_once(&end).unwrap_or((self.rest, ""));
        let is_matrix = name == "array" || name.ends_with("matrix");
        let rows = body.split(if is_matrix { "\\\\" } else { "\0" });
        let rows: Vec<String> = rows
            .map(|row| {
                let cells = row.split(if is_matrix { '&' } else { '\0' });
                let cells: Vec<String> = cells
                    .map(|cell| {
                        Reader { rest: cell }
                            .until_close(depth + 1)
                            .trim()
                            .to_owned()
                    })
                    .collect();
                cells.join(" ")
            })
            .collect();
        if is_matrix {
            out.push_str("[ ");
        }
        out.push_str(&rows.join("; "));
        if is_matrix {
            out.push_str(" ]");
        }
        self.rest = rest;
    }
}
