//! Two answers that were read: are they the same.

use num_traits::Signed as _;

use super::answer::{Answer, Joint, Relation, Sign};
use super::math::canonical::Value;
use super::math::expr::Expr;
use super::math::numeric::{has_variables, hides_words};
use super::math::{Fuel, Stop};
use super::quantity::same_quantity;
use super::region::same_region;

/// Whether the prediction says what the gold answer says; the gold answer's kind leads.
pub(super) fn same(prediction: &Answer, gold: &Answer, fuel: &mut Fuel) -> Result<bool, Stop> {
    match (prediction, gold) {
        (Answer::Forms(forms), Answer::Named { .. } | Answer::Relation(_))
            if !says_a_number(forms) =>
        {
            Ok(false)
        }
        (Answer::Forms(forms), g) => {
            for form in forms {
                if same(form, g, fuel)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (p, Answer::Forms(forms)) => {
            for form in forms {
                if same(p, form, fuel)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Answer::Quantity(p), Answer::Quantity(g)) => same_quantity(p, g, fuel),
        (p, g) => match same_region(p, g, fuel)? {
            Some(is_same) => Ok(is_same),
            None => same_structure(p, g, fuel),
        },
    }
}

/// `\frac{8}{2} = 4` works out a number, and `\sqrt{2} \approx 1.41` is one, rounded; `4 = 4` and `x - x = 0` say nothing.
fn says_a_number(forms: &[Answer]) -> bool {
    let number = |form: &Answer| match form {
        Answer::Quantity(quantity) => quantity.expr.clone().filter(|expr| !has_variables(expr)),
        _ => None,
    };
    let numbers: Option<Vec<Expr>> = forms.iter().map(number).collect();
    let differ = |numbers: Vec<Expr>| numbers.windows(2).any(|pair| pair.first() != pair.last());
    forms.len() == 1 || numbers.is_some_and(differ)
}

/// Answers that are made of others, part by part.
fn same_structure(prediction: &Answer, gold: &Answer, fuel: &mut Fuel) -> Result<bool, Stop> {
    match (prediction, gold) {
        (
            Answer::Named { .. } | Answer::Relation(_),
            Answer::Named { .. } | Answer::Relation(_),
        ) => same_statement(prediction, gold, fuel),
        (Answer::Named { content, .. }, g) => same(content, g, fuel),
        (Answer::List { items, .. }, g)
            if !matches!(g, Answer::List { .. }) && items.len() == 1 =>
        {
            only(items).map_or(Ok(false), |item| same(item, g, fuel))
        }
        (
            p,
            Answer::List {
                items,
                is_set: true,
                ..
            },
        ) if !matches!(p, Answer::List { .. }) && items.len() == 1 => {
            only(items).map_or(Ok(false), |item| same(p, item, fuel))
        }
        // `\frac{AB}{CD} = 4` is a statement, not 4.
        (
            p,
            Answer::Named {
                content,
                is_compound: false,
                ..
            },
        ) => same(p, content, fuel),
        (
            Answer::Group {
                open: a,
                close: b,
                items: p,
            },
            Answer::Group {
                open: c,
                close: d,
                items: g,
            },
        ) => Ok((a, b) == (c, d) && same_in_order(p, g, fuel)?),
        (Answer::Matrix(p), Answer::Matrix(g)) => {
            let mut is_same = p.len() == g.len();
            for (p, g) in p.iter().zip(g) {
                is_same = is_same && same_in_order(p, g, fuel)?;
            }
            Ok(is_same)
        }
        (
            Answer::Matrix(rows),
            Answer::Group {
                open: '(',
                close: ')',
                items,
            },
        ) => column(rows).map_or(Ok(false), |column| same_in_order(&column, items, fuel)),
        (
            Answer::Group {
                open: '(',
                close: ')',
                items,
            },
            Answer::Matrix(rows),
        ) => column(rows).map_or(Ok(false), |column| same_in_order(items, &column, fuel)),
        (
            Answer::List { .. },
            Answer::Group {
                open: '(',
                close: ')',
                items,
            },
        ) => coordinates(prediction).map_or(Ok(false), |point| same_in_order(&point, items, fuel)),
        (
            Answer::Group {
                open: '(',
                close: ')',
                items,
            },
            Answer::List { .. },
        ) => coordinates(gold).map_or(Ok(false), |point| same_in_order(items, &point, fuel)),
        (Answer::Ratio(p), Answer::Ratio(g)) => same_ratio(p, g, fuel),
        (
            Answer::List {
                items: p,
                is_set: true,
                ..
            },
            Answer::List {
                items: g,
                is_set: true,
                ..
            },
        ) => Ok(is_subset(p, g, fuel)? && is_subset(g, p, fuel)?),
        (
            Answer::List {
                items: p, joint: a, ..
            },
            Answer::List {
                items: g, joint: b, ..
            },
        ) => {
            if !are_joined_alike((p, *a), (g, *b)) || names_overlap(p) {
                return Ok(false);
            }
            // `x=3, y=5` gives the order of `3, 5`.
            if names_differ(p) != names_differ(g) {
                same_in_order(p, g, fuel)
            } else {
                same_in_any_order(p, g, fuel)
            }
        }
        (
            Answer::Group {
                open: '[',
                close: ']',
                items,
            },
            Answer::Matrix(g),
        ) => rows(items).map_or(Ok(false), |p| {
            same_structure(&Answer::Matrix(p), &Answer::Matrix(g.clone()), fuel)
        }),
        _ => Ok(false),
    }
}

/// The item of `\{5\}`, which is 5 where no set is asked for; `\{\{5\}\}` and `\{\emptyset\}` are not what stands in them.
fn only(items: &[Answer]) -> Option<&Answer> {
    let is_set = |item: &Answer| match item {
        Answer::List { is_set, .. } => *is_set,
        Answer::Quantity(quantity) => {
            matches!(&quantity.expr, Some(Expr::Variable(name)) if name == "\\emptyset")
        }
        _ => false,
    };
    match items {
        [item] if !is_set(item) => Some(item),
        _ => None,
    }
}

/// The rows of `[[1, 2], [3, 4]]`.
fn rows(items: &[Answer]) -> Option<Vec<Vec<Answer>>> {
    let row = |item: &Answer| match item {
        Answer::Group {
            open: '[',
            close: ']',
            items,
        } => Some(items.clone()),
        _ => None,
    };
    items.iter().map(row).collect()
}

/// Equations, inequalities and `x \in (1, 3)`.
fn same_statement(prediction: &Answer, gold: &Answer, fuel: &mut Fuel) -> Result<bool, Stop> {
    if let (
        Answer::Named {
            name: p,
            content: a,
            ..
        },
        Answer::Named {
            name: g,
            content: b,
            ..
        },
    ) = (prediction, gold)
        && have_same_name(p, g)
    {
        return same(a, b, fuel);
    }
    match (prediction.as_relation(), gold.as_relation()) {
        (Some(p), Some(g)) => same_relation(p, g, fuel),
        _ => Ok(false),
    }
}

/// Of `AB=CD` either will do.
fn have_same_name(p: &str, g: &str) -> bool {
    p.split('=').any(|p| g.split('=').any(|g| p == g))
}

/// Whether `x=y=1` stands beside another value of x or y: as either name will do, it would fit several answers.
fn names_overlap(items: &[Answer]) -> bool {
    let names: Vec<&str> = items.iter().filter_map(name).collect();
    let pairs = names.iter().enumerate().flat_map(|(index, a)| {
        let others = names.iter().skip(index + 1);
        others.map(move |b| (*a, *b))
    });
    let mut chained = pairs.filter(|(a, b)| a.contains('=') || b.contains('='));
    chained.any(|(a, b)| have_same_name(a, b))
}

fn name(item: &Answer) -> Option<&str> {
    match item {
        Answer::Named { name, .. } => Some(name),
        _ => None,
    }
}

/// The numbers of a column vector.
fn column(rows: &[Vec<Answer>]) -> Option<Vec<Answer>> {
    let cell = |row: &Vec<Answer>| match row.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    };
    let cells: Option<Vec<Answer>> = rows.iter().map(cell).collect();
    cells.filter(|cells| cells.len() > 1)
}

/// `x = 1, y = 2` as the coordinates of a point: unknowns of one letter, in the order of the alphabet.
fn coordinates(answer: &Answer) -> Option<Vec<Answer>> {
    let Answer::List {
        items,
        joint: Joint::Comma | Joint::And,
        is_set: false,
    } = answer
    else {
        return None;
    };
    let named = |item: &Answer| match item {
        Answer::Named { name, content, .. } if name.len() == 1 => {
            Some((name.clone(), content.as_ref().clone()))
        }
        _ => None,
    };
    let mut named: Vec<(String, Answer)> = items.iter().map(named).collect::<Option<_>>()?;
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    let is_repeated = named
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a.0 == b.0));
    (named.len() > 1 && !is_repeated).then(|| named.into_iter().map(|(_, value)| value).collect())
}

/// Whether two lists hold together in the same way. `x < 1 or x > 2` is a union, with "and" it is something else; `(1, 2), (3, 4)`
/// are points, their union two intervals. A comma between inequalities may mean either.
fn are_joined_alike((p, a): (&[Answer], Joint), (g, b): (&[Answer], Joint)) -> bool {
    use Joint::{And, Comma, Or, Union};
    let is_inequality = |item: &Answer| {
        let relation = item.as_relation();
        relation.is_some_and(|relation| relation.sign != Sign::Equal)
    };
    let is_group = |item: &Answer| matches!(item, Answer::Group { .. });
    let has_inequality = p.iter().chain(g).any(is_inequality);
    if !has_inequality && !p.iter().chain(g).any(is_group) {
        return true;
    }
    match (a, b) {
        (a, b) if a == b => true,
        (Or, Union) | (Union, Or) => true,
        (Comma, Union) => !p.iter().any(is_group),
        (Union, Comma) => !g.iter().any(is_group),
        (Comma, And | Or) | (And | Or, Comma) => true,
        (And, Or) | (Or, And) => !has_inequality,
        _ => false,
    }
}

/// Whether a list says of at least two things what each is.
fn names_differ(items: &[Answer]) -> bool {
    let mut names = items.iter().filter_map(name);
    names
        .next()
        .is_some_and(|first| names.any(|name| name != first))
}

fn same_in_order(p: &[Answer], g: &[Answer], fuel: &mut Fuel) -> Result<bool, Stop> {
    if p.len() != g.len() {
        return Ok(false);
    }
    for (p, g) in p.iter().zip(g) {
        if !same(p, g, fuel)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Every item of each side has its own partner on the other.
fn same_in_any_order(p: &[Answer], g: &[Answer], fuel: &mut Fuel) -> Result<bool, Stop> {
    if p.len() != g.len() {
        return Ok(false);
    }
    let mut free: Vec<&Answer> = p.iter().collect();
    for gold in g {
        let mut found = None;
        for (index, candidate) in free.iter().enumerate() {
            if same(candidate, gold, fuel)? {
                found = Some(index);
                break;
            }
        }
        match found {
            Some(index) => free.swap_remove(index),
            None => return Ok(false),
        };
    }
    Ok(true)
}

/// Whether every item of one set is in the other; `{1}` is no 1 there.
fn is_subset(part: &[Answer], whole: &[Answer], fuel: &mut Fuel) -> Result<bool, Stop> {
    let is_set = |item: &Answer| matches!(item, Answer::List { is_set: true, .. });
    for item in part {
        let mut is_found = false;
        for candidate in whole {
            is_found =
                is_found || is_set(item) == is_set(candidate) && same(item, candidate, fuel)?;
        }
        if !is_found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `6:8:10` is `3:4:5`.
fn same_ratio(p: &[Value], g: &[Value], fuel: &mut Fuel) -> Result<bool, Stop> {
    let (Some(p_first), Some(g_first)) = (p.first(), g.first()) else {
        return Ok(false);
    };
    if p.len() != g.len() || p.iter().chain(g).any(Value::is_zero) {
        return Ok(false);
    }
    for (p, g) in p.iter().zip(g) {
        let (left, right) = (p.multiply(g_first, fuel)?, g.multiply(p_first, fuel)?);
        if !left.equals(&right, fuel)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The same up to a factor; but for a solution only another one will do.
fn same_relation(p: &Relation, g: &Relation, fuel: &mut Fuel) -> Result<bool, Stop> {
    let has_words = || {
        let mut sides = p.sides.iter();
        sides.any(|side| hides_words(side, g.sides.as_slice()))
    };
    if g.solution.is_some() && p.solution.is_none() || has_words() {
        return Ok(false);
    }
    let Some(ratio) = p.difference.ratio_to(&g.difference, fuel)? else {
        return Ok(false);
    };
    let sign = if ratio.is_negative() {
        p.sign.flipped()
    } else {
        p.sign
    };
    Ok(sign == g.sign)
}
