//! Tokens to a statement: equations, inequalities, chains of both.

use super::answer::{Answer, Joint, Quantity, Relation, Sign, Solution};
use super::math::Stop;
use super::math::expr::Expr;
use super::math::numeric::has_variables;
use super::math::token::{Kind, Token};
use super::name::{Name, name_of};
use super::quantity::{is_rounding, same_quantity};
use super::read::{Reader, is_ratio_sign};

/// `x > 3`: a variable and a constant.
fn solved(variable: &Quantity, sign: Sign, bound: &Quantity) -> Option<Solution> {
    match (&variable.expr, &bound.expr) {
        (Some(Expr::Variable(name)), Some(constant)) if !has_variables(constant) => {
            Some(Solution {
                name: name.trim_start_matches('\\').to_owned(),
                sign,
                bound: bound.clone(),
            })
        }
        _ => None,
    }
}

/// Three letters in a row that look like a word: `x = 2y not 3 = 12` is no formula, `V = lwh = 12` is.
fn has_words(tokens: &[Token]) -> bool {
    let letters = tokens.split(|token| !matches!(token.kind, Kind::Letter('a'..='z')));
    letters.filter(|run| run.len() > 2).any(|run| {
        run.iter()
            .any(|token| matches!(token.kind, Kind::Letter('e' | 'i' | 'o' | 'u')))
    })
}

/// The unknowns of `(x, y)`.
fn names_of(tokens: &[Token]) -> Option<Vec<String>> {
    let [open, inner @ .., close] = tokens else {
        return None;
    };
    if !open.is_mark('(') || !close.is_mark(')') {
        return None;
    }
    let names = inner.split(|token| token.is_mark(','));
    names
        .map(|name| match name {
            [
                Token {
                    kind: Kind::Letter(letter),
                    ..
                },
            ] => Some(letter.to_string()),
            _ => None,
        })
        .collect()
}

impl Reader<'_> {
    /// `x \in (1, 3)`
    pub(super) fn membership(
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

    pub(super) fn relation(&mut self, tokens: &[Token], depth: usize) -> Result<Answer, Stop> {
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
                let names = parts.iter().map_while(|part| Some(name_of(part)?.text));
                let names: Vec<String> = names.collect();
                let num_names = names.len().saturating_sub(1);
                let is_equal = |sign: &&Token| Sign::of(sign) == Some(Sign::Equal);
                let (rest, signs) = match (rest.get(num_names..), signs.get(num_names..)) {
                    (Some(rest), Some(left)) if !rest.is_empty() && signs.iter().all(is_equal) => {
                        (rest, left)
                    }
                    _ => return Err(Stop::Syntax),
                };
                let forms = match &name {
                    Some(_) => {
                        let num_formulas = self.num_formulas(rest)?;
                        let rest = rest.get(num_formulas..).unwrap_or_default();
                        self.forms(rest, signs.get(num_formulas..).unwrap_or_default())?
                    }
                    None => self.forms(&parts, &[&[*sign], signs].concat())?,
                };
                let forms = forms.ok_or(Stop::Syntax)?;
                Ok(match name {
                    Some(name) => Answer::Named {
                        name: names.join("="),
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
            let solution =
                solved(&left, sign, &right).or_else(|| solved(&right, sign.flipped(), &left));
            let (Some(a), Some(b)) = (left.expr, right.expr) else {
                return Err(Stop::Syntax);
            };
            Ok(Relation {
                sides: Box::new([a, b]),
                difference: left.value?.add(&right.value?.negated(), this.fuel)?,
                sign,
                solution,
            })
        };
        if sign != Sign::Equal {
            return relation(self).map(Answer::Relation);
        }
        if let Some(names) = names_of(left)
            && let Answer::Group {
                open: '(',
                close: ')',
                items,
            } = self.answer(right, depth + 1)?
            && items.len() == names.len()
            && items.len() > 1
        {
            // `(x, y) = (1, 2)`
            let named = |(name, content)| Answer::Named {
                name,
                is_compound: false,
                content: Box::new(content),
                equation: None,
            };
            return Ok(Answer::List {
                items: names.into_iter().zip(items).map(named).collect(),
                joint: Joint::Comma,
                is_set: false,
            });
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

    /// How many parts are formulas before the first number: the 1 of `lw = 3 \cdot 4 = 12`. None where all of them are.
    fn num_formulas(&mut self, parts: &[&[Token]]) -> Result<usize, Stop> {
        for (position, part) in parts.iter().enumerate() {
            let Quantity { expr, value, .. } = self.quantity(part)?;
            // `13 + 0y` is a number.
            let is_number = value.is_ok_and(|value| value.is_constant());
            let is_other = part.iter().any(is_ratio_sign) || has_words(part);
            if is_number || is_other || !expr.as_ref().is_some_and(has_variables) {
                return Ok(position);
            }
        }
        Ok(0)
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
            // `4 \approx 4` rounds nothing: it is `4 = 4`.
            if is_rounded && form.expr != first.expr {
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
}
