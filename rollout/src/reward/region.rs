//! Where a variable may lie: inequalities, intervals, unions and intersections of both, as one kind of answer.

use std::cmp::Ordering;

use num_traits::{Signed as _, Zero as _};

use super::answer::{Answer, Joint, Quantity, Sign};
use super::math::expr::Expr;
use super::math::numeric::order;
use super::math::{Fuel, Stop};
use super::quantity::same_quantity;

/// More intervals are no answer.
const MAX_INTERVALS: usize = 16;

/// A set of numbers.
#[derive(Debug, Clone)]
pub(super) struct Region {
    /// Whose values they are, where it is said.
    pub(super) variable: Option<String>,
    /// Something else than a pair in brackets says so: `(1, 2)` alone may be a point.
    is_explicit: bool,
    intervals: Vec<Interval>,
}

/// No bound on a side is infinity.
#[derive(Debug, Clone)]
struct Interval {
    low: Option<Quantity>,
    high: Option<Quantity>,
    has_low: bool,
    has_high: bool,
}

impl Interval {
    fn is_everything(&self) -> bool {
        self.low.is_none() && self.high.is_none()
    }
}

/// The answer as a set of numbers, if it is one.
pub(super) fn region(answer: &Answer, fuel: &mut Fuel) -> Result<Option<Region>, Stop> {
    fuel.burn(8)?;
    match answer {
        Answer::Group { open, close, items } => Ok(interval(*open, *close, items)),
        Answer::Named {
            name,
            content,
            equation: None,
            ..
        } => {
            // `B(1, 2)` is a point.
            let is_label = name.starts_with(|c: char| c.is_ascii_uppercase());
            let is_set = match content.as_ref() {
                Answer::Group { .. } => !is_label,
                Answer::List { joint, .. } => *joint != Joint::Comma,
                _ => false,
            };
            let inner = if is_set { region(content, fuel)? } else { None };
            Ok(inner.map(|inner| Region {
                variable: Some(name.clone()),
                is_explicit: true,
                ..inner
            }))
        }
        Answer::Relation(relation) => Ok(relation.solution.as_ref().and_then(|solution| {
            let bound = || Some(solution.bound.clone());
            let above = |has_low| Interval {
                low: bound(),
                high: None,
                has_low,
                has_high: false,
            };
            let below = |has_high| Interval {
                low: None,
                high: bound(),
                has_low: false,
                has_high,
            };
            let intervals = match solution.sign {
                Sign::Greater => vec![above(false)],
                Sign::GreaterEqual => vec![above(true)],
                Sign::Less => vec![below(false)],
                Sign::LessEqual => vec![below(true)],
                Sign::NotEqual => vec![below(false), above(false)],
                Sign::Equal => return None,
            };
            Some(Region {
                variable: Some(solution.name.clone()),
                is_explicit: true,
                intervals,
            })
        })),
        Answer::List {
            items,
            joint,
            is_set: false,
        } => joined(items, *joint, fuel),
        _ => Ok(None),
    }
}

fn interval(open: char, close: char, items: &[Answer]) -> Option<Region> {
    let [Answer::Quantity(low), Answer::Quantity(high)] = items else {
        return None;
    };
    let bound = |quantity: &Quantity, sign| match infinity(quantity) {
        None => Some(Some(quantity.clone())),
        Some(is_negative) => (is_negative == sign).then_some(None),
    };
    let (low, high) = (bound(low, true)?, bound(high, false)?);
    // Infinity is in no interval.
    let is_wrong = low.is_none() && open == '[' || high.is_none() && close == ']';
    (!is_wrong).then(|| Region {
        variable: None,
        is_explicit: low.is_none() || high.is_none(),
        intervals: vec![Interval {
            has_low: open == '[',
            has_high: close == ']',
            low,
            high,
        }],
    })
}

/// Whether it is infinity, and minus infinity.
pub(super) fn infinity(quantity: &Quantity) -> Option<bool> {
    match quantity.expr.as_ref()? {
        Expr::Variable(name) if name == "\\infty" => Some(false),
        Expr::Negative(inner) => {
            matches!(inner.as_ref(), Expr::Variable(name) if name == "\\infty").then_some(true)
        }
        _ => None,
    }
}

/// Of one variable. A comma between a lower and an upper bound is an "and" where both can hold and an "or" where they cannot;
/// between pairs in brackets it makes no set.
fn joined(items: &[Answer], joint: Joint, fuel: &mut Fuel) -> Result<Option<Region>, Stop> {
    let mut regions = Vec::with_capacity(items.len());
    for item in items {
        match region(item, fuel)? {
            Some(region) => regions.push(region),
            None => return Ok(None),
        }
    }
    let names: Vec<&String> = regions.iter().filter_map(|r| r.variable.as_ref()).collect();
    let variable = names.first().map(|name| (*name).clone());
    if names.iter().any(|name| Some(*name) != variable.as_ref()) {
        return Ok(None);
    }
    let is_explicit = joint == Joint::Union || regions.iter().any(|region| region.is_explicit);
    let are_explicit = regions.iter().all(|region| region.is_explicit);
    let mut sets: Vec<Vec<Interval>> = regions.into_iter().map(|r| r.intervals).collect();
    let is_union = match joint {
        Joint::Or | Joint::Union => true,
        Joint::And => false,
        Joint::Mixed => return Ok(None),
        Joint::Comma if !are_explicit => return Ok(None),
        Joint::Comma => {
            // `x \in \mathbb{R}, x \ne 3`
            if sets.len() > 1 {
                sets.retain(|set| !set.iter().all(Interval::is_everything));
            }
            match sets.as_slice() {
                [_] => false,
                [a, b] if are_opposite(a, b) => {
                    intersection(a, b, fuel)?.is_none_or(|all| all.is_empty())
                }
                _ => true,
            }
        }
    };
    let mut sets = sets.into_iter();
    let mut intervals = sets.next().unwrap_or_default();
    for set in sets {
        if is_union {
            intervals.extend(set);
        } else {
            match intersection(&intervals, &set, fuel)? {
                Some(both) => intervals = both,
                None => return Ok(None),
            }
        }
        if intervals.len() > MAX_INTERVALS {
            return Err(Stop::Limit);
        }
    }
    Ok(Some(Region {
        variable,
        is_explicit,
        intervals,
    }))
}

/// A lower bound alone, an upper bound alone.
fn are_opposite(a: &[Interval], b: &[Interval]) -> bool {
    let is_above =
        |set: &[Interval]| matches!(set, [one] if one.low.is_some() && one.high.is_none());
    let is_below =
        |set: &[Interval]| matches!(set, [one] if one.low.is_none() && one.high.is_some());
    is_above(a) && is_below(b) || is_below(a) && is_above(b)
}

/// What lies in both; `None` where bounds cannot be put in order.
fn intersection(
    a: &[Interval],
    b: &[Interval],
    fuel: &mut Fuel,
) -> Result<Option<Vec<Interval>>, Stop> {
    let mut both = Vec::new();
    for a in a {
        for b in b {
            let low = tighter(
                (&a.low, a.has_low),
                (&b.low, b.has_low),
                Ordering::Greater,
                fuel,
            )?;
            let high = tighter(
                (&a.high, a.has_high),
                (&b.high, b.has_high),
                Ordering::Less,
                fuel,
            )?;
            let (Some((low, has_low)), Some((high, has_high))) = (low, high) else {
                return Ok(None);
            };
            let is_empty = match (&low, &high) {
                (Some(low), Some(high)) => match compared(low, high, fuel)? {
                    Some(Ordering::Less) => false,
                    Some(Ordering::Equal) => !(has_low && has_high),
                    Some(Ordering::Greater) => true,
                    None => return Ok(None),
                },
                _ => false,
            };
            if !is_empty {
                both.push(Interval {
                    low,
                    high,
                    has_low,
                    has_high,
                });
            }
        }
    }
    Ok(Some(both))
}

/// A bound, and whether it belongs to the interval.
type Bound = (Option<Quantity>, bool);

/// Of two bounds the one that lets less through: the `wanted` one.
fn tighter(
    (a, has_a): (&Option<Quantity>, bool),
    (b, has_b): (&Option<Quantity>, bool),
    wanted: Ordering,
    fuel: &mut Fuel,
) -> Result<Option<Bound>, Stop> {
    Ok(match (a, b) {
        (None, _) => Some((b.clone(), has_b)),
        (_, None) => Some((a.clone(), has_a)),
        (Some(x), Some(y)) => match compared(x, y, fuel)? {
            Some(Ordering::Equal) => Some((a.clone(), has_a && has_b)),
            Some(order) if order == wanted => Some((a.clone(), has_a)),
            Some(_) => Some((b.clone(), has_b)),
            None => None,
        },
    })
}

fn compared(a: &Quantity, b: &Quantity, fuel: &mut Fuel) -> Result<Option<Ordering>, Stop> {
    if a.suffix != b.suffix {
        return Ok(None);
    }
    if let (Ok(x), Ok(y)) = (&a.value, &b.value)
        && let Some(difference) = x.add(&y.negated(), fuel)?.as_rational()
    {
        return Ok(Some(match difference {
            zero if zero.is_zero() => Ordering::Equal,
            less if less.is_negative() => Ordering::Less,
            _ => Ordering::Greater,
        }));
    }
    match (&a.expr, &b.expr) {
        (Some(a), Some(b)) => match order(a, b, fuel) {
            Ok(order) => Ok(Some(order)),
            Err(Stop::Limit) => Err(Stop::Limit),
            Err(_) => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Whether both are the same set; `None` where that is not the question.
pub(super) fn same_region(p: &Answer, g: &Answer, fuel: &mut Fuel) -> Result<Option<bool>, Stop> {
    // Pairs in brackets are compared as such.
    if matches!((p, g), (Answer::Group { .. }, Answer::Group { .. })) {
        return Ok(None);
    }
    let Some(g) = region(g, fuel)? else {
        return Ok(None);
    };
    let Some(p) = region(p, fuel)? else {
        return Ok(None);
    };
    if !p.is_explicit && !g.is_explicit {
        return Ok(None);
    }
    let is_other = matches!((&p.variable, &g.variable), (Some(p), Some(g)) if p != g);
    if is_other || p.intervals.len() != g.intervals.len() {
        return Ok(Some(false));
    }
    let mut free: Vec<&Interval> = p.intervals.iter().collect();
    for gold in &g.intervals {
        let mut found = None;
        for (index, candidate) in free.iter().enumerate() {
            if same_interval(candidate, gold, fuel)? {
                found = Some(index);
                break;
            }
        }
        match found {
            Some(index) => free.swap_remove(index),
            None => return Ok(Some(false)),
        };
    }
    Ok(Some(true))
}

fn same_interval(p: &Interval, g: &Interval, fuel: &mut Fuel) -> Result<bool, Stop> {
    if (p.has_low, p.has_high) != (g.has_low, g.has_high) {
        return Ok(false);
    }
    for (p, g) in [(&p.low, &g.low), (&p.high, &g.high)] {
        let is_same = match (p, g) {
            (None, None) => true,
            (Some(p), Some(g)) => same_quantity(p, g, fuel)?,
            _ => false,
        };
        if !is_same {
            return Ok(false);
        }
    }
    Ok(true)
}
