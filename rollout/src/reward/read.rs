//! Tokens to an answer: lists, brackets and relations taken apart, quantities evaluated.

use super::answer::{Answer, Quantity, Relation, Sign};
use super::compare::{is_rounding, same_quantity};
use super::math::evaluate::evaluate;
use super::math::expr::Expr;
use super::math::numeric::has_variables;
use super::math::parse::{GREEK, parse};
use super::math::token::{Kind, Token};
use super::math::units::split_suffix;
use super::math::{Fuel, Stop};

/// Items of a list, cells of a matrix.
const MAX_ITEMS: usize = 64;
/// Lists of tuples are deep enough.
const MAX_DEPTH: usize = 4;

/// Reads with one setting and one tank of fuel.
pub(super) struct Reader<'a> {
    pub(super) thousands: bool,
    pub(super) fuel: &'a mut Fuel,
}

impl Reader<'_> {
    pub(super) fn answer(&mut self, tokens: &[Token], depth: usize) -> Result<Answer, Stop> {
        self.fuel.burn(tokens.len())?;
        if depth > MAX_DEPTH {
            return Err(Stop::Limit);
        }
        let tokens = match tokens {
            [first, rest @ ..] if first.is_command(&["approx"]) => rest,
            [open, inner @ .., close]
                if open.is_mark('{') && close.is_mark('}') && is_balanced(inner) =>
            {
                // `{3 \over 7}` needs its braces.
                if inner.iter().any(|token| token.is_command(&["over"])) {
                    tokens
                } else {
                    inner
                }
            }
            tokens => tokens,
        };
        if let Some(rows) = matrix_rows(unwrapped_matrix(tokens))? {
            return self.matrix(&rows, depth);
        }
        let items = split_list(tokens, self.thousands);
        if items.len() > 1 {
            return self.list(&items, false, depth);
        }
        match tokens {
            [open, inner @ .., close]
                if open.is_command(&["{"]) && close.is_command(&["}"]) && is_balanced(inner) =>
            {
                let items = split_list(inner, self.thousands);
                return self.list(&items, true, depth);
            }
            [open, inner @ .., close]
                if (open.is_mark('(') || open.is_mark('['))
                    && (close.is_mark(')') || close.is_mark(']'))
                    && is_balanced(inner) =>
            {
                // `(2,100)` is a point.
                let items = split_list(inner, false);
                if items.len() > 1 {
                    let items = items
                        .into_iter()
                        .map(|item| self.answer(item, depth + 1))
                        .collect::<Result<_, _>>()?;
                    return Ok(Answer::Group {
                        open: mark(open),
                        close: mark(close),
                        items,
                    });
                }
            }
            _ => {}
        }
        if let Some(position) = tokens.iter().position(|t| t.is_command(&["in"])) {
            return self.membership(tokens, position, depth);
        }
        if tokens.iter().any(|token| Sign::of(token).is_some()) {
            return self.relation(tokens, depth);
        }
        if let Some(position) = tokens.iter().position(|t| t.is_command(&["pm", "mp"])) {
            return self.plus_minus(tokens, position, depth);
        }
        let parts: Vec<&[Token]> = tokens.split(|token| token.is_mark(':')).collect();
        if parts.len() > 2 {
            if parts.len() > MAX_ITEMS {
                return Err(Stop::Limit);
            }
            let values = parts
                .into_iter()
                .map(|part| evaluate(&parse(part, self.thousands)?, self.fuel));
            return Ok(Answer::Ratio(values.collect::<Result<_, _>>()?));
        }
        self.quantity(tokens).map(Answer::Quantity)
    }

    fn list(&mut self, items: &[&[Token]], is_set: bool, depth: usize) -> Result<Answer, Stop> {
        if items.len() > MAX_ITEMS {
            return Err(Stop::Limit);
        }
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            match self.answer(item, depth + 1)? {
                Answer::List { items, .. } => list.extend(items),
                answer => list.push(answer),
            }
        }
        if list.len() > MAX_ITEMS {
            Err(Stop::Limit)
        } else {
            Ok(Answer::List {
                items: list,
                is_set,
            })
        }
    }

    fn matrix(&mut self, rows: &[Vec<&[Token]>], depth: usize) -> Result<Answer, Stop> {
        let mut matrix = Vec::new();
        for row in rows {
            matrix.push(
                row.iter()
                    .map(|cell| self.answer(cell, depth + 1))
                    .collect::<Result<Vec<_>, _>>()?,
            );
        }
        Ok(Answer::Matrix(matrix))
    }

    /// `x \in (1, 3)`
    fn membership(
        &mut self,
        tokens: &[Token],
        position: usize,
        depth: usize,
    ) -> Result<Answer, Stop> {
        let (left, right) = tokens.split_at(position);
        let name = name_of(left).ok_or(Stop::Syntax)?;
        let content = self.answer(right.get(1..).unwrap_or_default(), depth + 1)?;
        Ok(Answer::Named {
            name: name.text,
            is_compound: false,
            content: Box::new(content),
            equation: None,
        })
    }

    fn relation(&mut self, tokens: &[Token], depth: usize) -> Result<Answer, Stop> {
        let parts: Vec<&[Token]> = tokens.split(|token| Sign::of(token).is_some()).collect();
        let signs: Vec<&Token> = tokens
            .iter()
            .filter(|token| Sign::of(token).is_some())
            .collect();
        match (parts.as_slice(), signs.as_slice()) {
            ([left, right], [sign]) => {
                let kind = Sign::of(sign).ok_or(Stop::Syntax)?;
                if kind == Sign::Equal && name_of(left).is_none() && name_of(right).is_none() {
                    // `3+1=4`, `\sqrt{2} \approx 1.41`
                    if let Some(forms) = self.forms(&parts, &signs)? {
                        return Ok(forms);
                    }
                }
                self.simple_relation(left, kind, right, depth)
            }
            ([low, middle, high], [a, b]) if Sign::of(a) != Some(Sign::Equal) => {
                self.between(low, [a, b], middle, high)
            }
            ([first, rest @ ..], [sign, signs @ ..]) if Sign::of(sign) == Some(Sign::Equal) => {
                // `x = 3 + 1 = 4`
                let name = name_of(first);
                // `AB = CD = 12`
                let num_names = rest
                    .iter()
                    .take_while(|part| name.is_some() && name_of(part).is_some())
                    .count();
                let is_equal = |sign: &&Token| Sign::of(sign) == Some(Sign::Equal);
                let (rest, signs) = match (rest.get(num_names..), signs.get(num_names..)) {
                    (Some(rest), Some(signs)) if !rest.is_empty() && signs.iter().all(is_equal) => {
                        (rest, signs)
                    }
                    _ => return Err(Stop::Syntax),
                };
                let forms = match &name {
                    Some(_) => self.forms(rest, signs)?,
                    None => self.forms(&parts, &[&[*sign], signs].concat())?,
                };
                let forms = forms.ok_or(Stop::Syntax)?;
                Ok(match name {
                    Some(name) => Answer::Named {
                        name: name.text,
                        is_compound: name.is_compound,
                        content: Box::new(forms),
                        equation: None,
                    },
                    None => forms,
                })
            }
            _ => Err(Stop::Syntax),
        }
    }

    fn simple_relation(
        &mut self,
        left: &[Token],
        sign: Sign,
        right: &[Token],
        depth: usize,
    ) -> Result<Answer, Stop> {
        let relation = |this: &mut Self| -> Result<Relation, Stop> {
            let (left, right) = (this.quantity(left)?, this.quantity(right)?);
            let is_name = |side: &Quantity| matches!(side.expr, Some(Expr::Variable(_)));
            let is_constant =
                |side: &Quantity| side.expr.as_ref().is_some_and(|e| !has_variables(e));
            let is_solved =
                is_name(&left) && is_constant(&right) || is_constant(&left) && is_name(&right);
            Ok(Relation {
                difference: left.value?.add(&right.value?.negated(), this.fuel)?,
                sign,
                is_solved,
            })
        };
        if sign != Sign::Equal {
            return relation(self).map(Answer::Relation);
        }
        // A plain name on either side first: `AB / CD = x` is about x.
        let names = [(name_of(left), right), (name_of(right), left)];
        let is_plain = |name: &Option<Name>| name.as_ref().is_some_and(|name| !name.is_compound);
        let chosen = names
            .iter()
            .find(|(name, _)| is_plain(name))
            .or_else(|| names.iter().find(|(name, _)| name.is_some()));
        if let Some((Some(name), content)) = chosen {
            let content = Box::new(self.answer(content, depth + 1)?);
            let equation = relation(self).ok();
            return Ok(Answer::Named {
                name: name.text.clone(),
                is_compound: name.is_compound,
                content,
                equation,
            });
        }
        relation(self).map(Answer::Relation)
    }

    /// `1 < x \le 3` is x in `(1, 3]`.
    fn between(
        &mut self,
        low: &[Token],
        signs: [&Token; 2],
        middle: &[Token],
        high: &[Token],
    ) -> Result<Answer, Stop> {
        let name = name_of(middle).ok_or(Stop::Syntax)?;
        let (a, b) = (Sign::of(signs[0]), Sign::of(signs[1]));
        let (low, high) = (self.quantity(low)?, self.quantity(high)?);
        let (a, b, low, high) = match a {
            Some(Sign::Less | Sign::LessEqual) => (a, b, low, high),
            Some(Sign::Greater | Sign::GreaterEqual) => {
                (b.map(Sign::flipped), a.map(Sign::flipped), high, low)
            }
            _ => return Err(Stop::Syntax),
        };
        let open = match a {
            Some(Sign::Less) => '(',
            Some(Sign::LessEqual) => '[',
            _ => return Err(Stop::Syntax),
        };
        let close = match b {
            Some(Sign::Less) => ')',
            Some(Sign::LessEqual) => ']',
            _ => return Err(Stop::Syntax),
        };
        let items = vec![Answer::Quantity(low), Answer::Quantity(high)];
        Ok(Answer::Named {
            name: name.text,
            is_compound: false,
            content: Box::new(Answer::Group { open, close, items }),
            equation: None,
        })
    }

    /// The same number several times; what stands behind `\approx` is a rounding of it and no answer of its own. `None` where
    /// they are not the same.
    fn forms(&mut self, parts: &[&[Token]], signs: &[&Token]) -> Result<Option<Answer>, Stop> {
        if parts.len() > 6 {
            return Err(Stop::Limit);
        }
        let mut parts = parts.iter();
        let first = self.quantity(parts.next().ok_or(Stop::Syntax)?)?;
        let mut forms = vec![Answer::Quantity(first.clone())];
        let mut is_rounded = false;
        for (part, sign) in parts.zip(signs) {
            if Sign::of(sign) != Some(Sign::Equal) {
                return Err(Stop::Syntax);
            }
            let form = self.quantity(part)?;
            is_rounded = is_rounded || sign.is_command(&["approx", "simeq"]);
            if is_rounded {
                if !is_rounding(&form, &first, self.fuel)? {
                    return Ok(None);
                }
            } else if same_quantity(&form, &first, self.fuel)? {
                forms.push(Answer::Quantity(form));
            } else {
                return Ok(None);
            }
        }
        Ok(Some(Answer::Forms(forms)))
    }

    /// `2 \pm \sqrt{3}` is two numbers.
    fn plus_minus(
        &mut self,
        tokens: &[Token],
        position: usize,
        depth: usize,
    ) -> Result<Answer, Stop> {
        let mut answers = Vec::new();
        for sign in ['+', '-'] {
            let mut signed = tokens.to_vec();
            for token in signed.iter_mut().skip(position) {
                if token.is_command(&["pm"]) {
                    token.kind = Kind::Mark(sign);
                } else if token.is_command(&["mp"]) {
                    token.kind = Kind::Mark(if sign == '+' { '-' } else { '+' });
                }
            }
            answers.push(self.answer(&signed, depth + 1)?);
        }
        Ok(Answer::List {
            items: answers,
            is_set: false,
        })
    }

    pub(super) fn quantity(&mut self, tokens: &[Token]) -> Result<Quantity, Stop> {
        let (tokens, suffix) = split_suffix(tokens);
        // Infinity is an answer, but no number to reckon with.
        let is_infinity =
            |token: &Token| token.is_command(&["infty"]) || token.is_word(&["infinity"]);
        if tokens.iter().any(is_infinity) {
            match tokens {
                [only] if is_infinity(only) => {}
                [sign, only] if (sign.is_mark('-') || sign.is_mark('+')) && is_infinity(only) => {}
                _ => return Err(Stop::Undefined),
            }
        }
        let mut parts = tokens.splitn(2, |token| token.is_mark(':'));
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        let mut expr = parse(first, self.thousands)?;
        if let Some(second) = second {
            let second = parse(second, self.thousands)?;
            expr = Expr::Quotient(Box::new(expr), Box::new(second));
        }
        let value = evaluate(&expr, self.fuel);
        if value == Err(Stop::Undefined) {
            return Err(Stop::Undefined);
        }
        Ok(Quantity {
            expr: Some(expr),
            value,
            suffix,
            decimals: decimals(tokens),
            is_long_decimal: is_long_decimal(tokens),
        })
    }
}

/// At commas, semicolons, "and", "or", `\cup` outside of brackets; with `thousands`, a comma inside `1,234` is none.
fn split_list(tokens: &[Token], thousands: bool) -> Vec<&[Token]> {
    let mut items = Vec::new();
    let (mut start, mut depth) = (0, 0_i32);
    for (position, token) in tokens.iter().enumerate() {
        depth += bracket(token);
        let is_comma = token.is_mark(',') && !(thousands && is_thousands(tokens, position));
        let is_word =
            token.is_word(&["and", "or"]) || token.is_mark(';') || token.is_command(&["cup"]);
        if depth == 0 && (is_comma || is_word) {
            items.push(tokens.get(start..position).unwrap_or_default());
            start = position + 1;
        }
    }
    items.push(tokens.get(start..).unwrap_or_default());
    // `3, and 5`
    let is_listed = items.len() > 1;
    items.retain(|item| !(is_listed && item.is_empty()));
    items
}

/// Without the brackets around `\begin{array}...\end{array}`.
fn unwrapped_matrix(tokens: &[Token]) -> &[Token] {
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
fn matrix_rows(tokens: &[Token]) -> Result<Option<Vec<Vec<&[Token]>>>, Stop> {
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

fn mark(token: &Token) -> char {
    match token.kind {
        Kind::Mark(mark) => mark,
        _ => ' ',
    }
}

fn bracket(token: &Token) -> i32 {
    match &token.kind {
        Kind::Mark('(' | '[' | '{') => 1,
        Kind::Mark(')' | ']' | '}') => -1,
        Kind::Command(name) if name == "{" => 1,
        Kind::Command(name) if name == "}" => -1,
        _ => 0,
    }
}

/// Whether the brackets around `inner` belong to each other.
fn is_balanced(inner: &[Token]) -> bool {
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
    let is_tight = tokens.get(position).is_some_and(|t| !t.is_spaced);
    before && is_tight && (1..=3).all(|ahead| is_digit(position + ahead)) && !is_digit(position + 4)
}

/// What an equation is about.
struct Name {
    text: String,
    is_compound: bool,
}

/// The name on one side of an equation: `x`, `AB`, `m\angle A`, `f(2)`, `\sin A`, `\frac{AB}{CD}`; not `2x`.
fn name_of(tokens: &[Token]) -> Option<Name> {
    const MARKS: [&str; 17] = [
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
        "parallel",
    ];
    const FUNCTIONS: [&str; 6] = ["sin", "cos", "tan", "cot", "sec", "csc"];
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
            Kind::Word(word) if token.is_text || FUNCTIONS.contains(&word.as_str()) => {
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
            Kind::Mark('|') => text.push('|'),
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
    let is_name = !text.is_empty() && (!is_compound || tokens.iter().all(is_segment));
    is_name.then_some(Name { text, is_compound })
}

/// Digits behind the point of a plain number.
fn decimals(tokens: &[Token]) -> Option<u32> {
    let number = match tokens {
        [sign, number @ ..] if sign.is_mark('-') => number,
        number => number,
    };
    let is_plain = number
        .iter()
        .all(|token| matches!(token.kind, Kind::Digit(_) | Kind::Mark('.' | ',')));
    if !is_plain {
        return None;
    }
    let digits = match number.iter().position(|token| token.is_mark('.')) {
        Some(point) => number.len() - point - 1,
        None => 0,
    };
    u32::try_from(digits).ok().filter(|digits| *digits <= 30)
}

/// One decimal number of at least six significant digits.
fn is_long_decimal(tokens: &[Token]) -> bool {
    let number = match tokens {
        [sign, number @ ..] if sign.is_mark('-') => number,
        number => number,
    };
    let mut digits = number.iter().filter_map(|token| match token.kind {
        Kind::Digit(digit) => Some(digit),
        _ => None,
    });
    let is_plain = number
        .iter()
        .all(|token| matches!(token.kind, Kind::Digit(_) | Kind::Mark('.')));
    let significant = digits.by_ref().skip_while(|digit| *digit == 0).count();
    is_plain && number.iter().any(|token| token.is_mark('.')) && significant >= 6
}
