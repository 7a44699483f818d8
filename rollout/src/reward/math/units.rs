//! Units of measure by name. SI prefixes are read with their case: a milligram is no megagram.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::One as _;

/// Powers of: length, time, mass, current, angle, degrees Celsius, degrees Fahrenheit, kelvins, moles, and of the currencies.
pub(crate) type Dimension = [i8; 14];

const LENGTH: usize = 0;
const TIME: usize = 1;
pub(crate) const ANGLE: usize = 4;
pub(crate) const CELSIUS: usize = 5;
pub(crate) const FAHRENHEIT: usize = 6;
const KELVIN: usize = 7;
const AMOUNT: usize = 8;
const DOLLAR: usize = 9;
const EURO: usize = 10;
const YUAN: usize = 11;
const YEN: usize = 12;
const RUPEE: usize = 13;

/// A unit and its size in the base unit of its dimension.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unit {
    pub(crate) dimension: Dimension,
    pub(crate) scale: BigRational,
}

impl Unit {
    /// A number.
    pub(crate) fn one() -> Self {
        Self {
            dimension: Dimension::default(),
            scale: BigRational::one(),
        }
    }

    /// The base unit of one dimension.
    pub(crate) fn base(axis: usize) -> Self {
        Self {
            dimension: along(axis, 1),
            scale: BigRational::one(),
        }
    }

    pub(crate) fn multiply(&mut self, measure: Measure, power: i8) {
        for (total, own) in self.dimension.iter_mut().zip(measure.dimension) {
            *total += own * power;
        }
        let scale = BigRational::new(
            BigInt::from(measure.numerator),
            BigInt::from(measure.denominator),
        );
        self.scale *= scale.pow(i32::from(power));
    }

    pub(crate) fn is_angle(&self) -> bool {
        self.dimension == along(ANGLE, 1)
    }

    /// Whether it measures what units without a name do: "units" are lengths, "square units" areas.
    pub(crate) fn fits(&self, power: i8) -> bool {
        self.dimension == along(LENGTH, power)
    }
}

/// What a name stands for: so many metres, seconds, grams, amperes, degrees, dollars.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    dimension: Dimension,
    numerator: u64,
    denominator: u64,
}

const fn along(axis: usize, power: i8) -> Dimension {
    let mut dimension = [0; 14];
    dimension[axis] = power;
    dimension
}

/// Of length, time, mass, current.
const fn physical([length, time, mass, current]: [i8; 4]) -> Dimension {
    let mut dimension = [0; 14];
    dimension[LENGTH] = length;
    dimension[TIME] = time;
    dimension[2] = mass;
    dimension[3] = current;
    dimension
}

/// Symbols, names, dimension, numerator and denominator.
type Row = (
    &'static [&'static str],
    &'static [&'static str],
    Dimension,
    u64,
    u64,
);

/// Units that take prefixes.
const SI: &[Row] = &[
    (&["m"], &["meter", "metre"], along(LENGTH, 1), 1, 1),
    (&["g"], &["gram"], physical([0, 0, 1, 0]), 1, 1),
    (&["L", "l"], &["liter", "litre"], along(LENGTH, 3), 1, 1000),
    (&["s"], &["second"], along(TIME, 1), 1, 1),
    (&["N"], &["newton"], physical([1, -2, 1, 0]), 1000, 1),
    (&["J"], &["joule"], physical([2, -2, 1, 0]), 1000, 1),
    (&["W"], &["watt"], physical([2, -3, 1, 0]), 1000, 1),
    (&["Pa"], &["pascal"], physical([-1, -2, 1, 0]), 1000, 1),
    (&["Hz"], &["hertz"], along(TIME, -1), 1, 1),
    (&["A"], &["ampere", "amp"], physical([0, 0, 0, 1]), 1, 1),
    (&["C"], &["coulomb"], physical([0, 1, 0, 1]), 1, 1),
    (&["V"], &["volt"], physical([2, -3, 1, -1]), 1000, 1),
    (&["Ω"], &["ohm"], physical([2, -3, 1, -2]), 1000, 1),
    (&["cal"], &["calorie"], physical([2, -2, 1, 0]), 4184, 1),
    (&["mol"], &["mole"], along(AMOUNT, 1), 1, 1),
    (&["K"], &["kelvin"], along(KELVIN, 1), 1, 1),
];

/// The others.
const PLAIN: &[Row] = &[
    (&["in"], &["inch", "inche"], along(LENGTH, 1), 254, 10_000),
    (&["ft"], &["foot", "feet"], along(LENGTH, 1), 3048, 10_000),
    (&["yd"], &["yard"], along(LENGTH, 1), 9144, 10_000),
    (&["mi"], &["mile"], along(LENGTH, 1), 1_609_344, 1000),
    (&["ha"], &["hectare"], along(LENGTH, 2), 10_000, 1),
    (&["cc"], &[], along(LENGTH, 3), 1, 1_000_000),
    (&["deg"], &["degree"], along(ANGLE, 1), 1, 1),
    (&["sec"], &[], along(TIME, 1), 1, 1),
    (&["min"], &["minute"], along(TIME, 1), 60, 1),
    (&["h", "hr"], &["hour"], along(TIME, 1), 3600, 1),
    (&[], &["day"], along(TIME, 1), 86_400, 1),
    (&[], &["week"], along(TIME, 1), 604_800, 1),
    (&[], &["month"], along(TIME, 1), 2_629_746, 1),
    (&["yr"], &["year"], along(TIME, 1), 31_556_952, 1),
    (&[], &["ton", "tonne"], physical([0, 0, 1, 0]), 1_000_000, 1),
    (
        &["lb"],
        &["pound"],
        physical([0, 0, 1, 0]),
        45_359_237,
        100_000,
    ),
    (
        &["oz"],
        &["ounce"],
        physical([0, 0, 1, 0]),
        45_359_237,
        1_600_000,
    ),
    (&["usd"], &["dollar"], along(DOLLAR, 1), 1, 1),
    (&[], &["cent"], along(DOLLAR, 1), 1, 100),
    (&["eur"], &["euro"], along(EURO, 1), 1, 1),
    (&["rmb"], &["yuan"], along(YUAN, 1), 1, 1),
    (&[], &["yen"], along(YEN, 1), 1, 1),
    (&[], &["rupee"], along(RUPEE, 1), 1, 1),
    (&["mph"], &[], physical([1, -1, 0, 0]), 1_609_344, 3_600_000),
    (&["kph"], &[], physical([1, -1, 0, 0]), 1000, 3600),
];

/// Symbol, name, numerator and denominator.
const PREFIXES: &[(&str, &str, u64, u64)] = &[
    ("k", "kilo", 1000, 1),
    ("c", "centi", 1, 100),
    ("d", "deci", 1, 10),
    ("m", "milli", 1, 1000),
    ("μ", "micro", 1, 1_000_000),
    ("n", "nano", 1, 1_000_000_000),
    ("M", "mega", 1_000_000, 1),
    ("G", "giga", 1_000_000_000, 1),
];

/// Words that name no unit of their own: 24 square units.
pub(crate) const GENERIC: [&str; 2] = ["unit", "units"];
pub(crate) const RADIANS: [&str; 3] = ["rad", "radian", "radians"];

const fn measure(row: &Row, numerator: u64, denominator: u64) -> Measure {
    Measure {
        dimension: row.2,
        numerator: row.3 * numerator,
        denominator: row.4 * denominator,
    }
}

/// What a symbol or a name measures.
pub(crate) fn find(word: &str) -> Option<Measure> {
    by_name(word).or_else(|| by_symbol(word).map(|(measure, _)| measure))
}

/// A unit spelled out, in any case, also in the plural; or a symbol without a prefix, in any case when it has two letters.
fn by_name(word: &str) -> Option<Measure> {
    let lower = word.to_ascii_lowercase();
    let stem = lower.strip_suffix('s').unwrap_or(&lower);
    let is_named = |row: &&Row| row.1.iter().any(|name| *name == lower || *name == stem);
    for row in PLAIN {
        let is_symbol = row.0.contains(&word)
            || row.0.iter().any(|symbol| {
                let has_plural = matches!(*symbol, "hr" | "yd" | "lb" | "min" | "sec");
                symbol.len() > 1 && (*symbol == lower || has_plural && *symbol == stem)
            });
        if is_symbol || is_named(&row) {
            return Some(measure(row, 1, 1));
        }
    }
    if let Some(row) = SI.iter().find(is_named) {
        return Some(measure(row, 1, 1));
    }
    PREFIXES
        .iter()
        .find_map(|(_, prefix, numerator, denominator)| {
            let rest = lower.strip_prefix(prefix)?;
            let rest_stem = rest.strip_suffix('s').unwrap_or(rest);
            let row = SI
                .iter()
                .find(|row| row.1.iter().any(|name| *name == rest || *name == rest_stem))?;
            Some(measure(row, *numerator, *denominator))
        })
}

/// An SI symbol with its prefix. Capitals are a slip only where they mean nothing else: `CM`, `Kg`, not `Mm` or `MG`. And whether
/// it is common enough to be a unit wherever it stands: `MN` is a segment.
fn by_symbol(word: &str) -> Option<(Measure, bool)> {
    let exact = |symbol: &str| SI.iter().find(|row| row.0.contains(&symbol));
    if let Some(row) = exact(word) {
        return Some((measure(row, 1, 1), false));
    }
    let first = word.chars().next()?;
    let symbol = word.get(first.len_utf8()..)?;
    let is_slip = matches!(first, 'K' | 'C' | 'D');
    let (prefix, _, numerator, denominator) = PREFIXES.iter().find(|(prefix, ..)| {
        prefix.starts_with(first) || is_slip && prefix.starts_with(first.to_ascii_lowercase())
    })?;
    let row = exact(symbol).or_else(|| {
        let is_same = |own: &&str| own.eq_ignore_ascii_case(symbol) && (is_slip || own.len() > 1);
        SI.iter().find(|row| row.0.iter().any(is_same))
    })?;
    let is_metric = row.2 == along(LENGTH, 1) || row.2 == along(LENGTH, 3);
    if matches!(*prefix, "c" | "d") && !is_metric {
        return None;
    }
    let is_mass = row.0 == ["g"];
    let is_common = matches!(*prefix, "k" | "c" | "d" | "m") && (is_metric || is_mass);
    Some((measure(row, *numerator, *denominator), is_common))
}

/// Whether a run of letters is a unit: any in `\text{}`, else those that are hardly a product.
pub(crate) fn is_unit_word(word: &str, is_text: bool) -> bool {
    let lower = word.to_ascii_lowercase();
    let is_nameless = GENERIC.contains(&lower.as_str()) || RADIANS.contains(&lower.as_str());
    let is_known = || by_symbol(word).is_some_and(|(_, is_common)| is_common || is_text);
    word.len() > 1 && (is_nameless || by_name(word).is_some() || is_known())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_their_case() {
        let scale = |word: &str| find(word).map(|m| (m.numerator, m.denominator));
        assert_eq!(scale("mg"), Some((1, 1000)));
        assert_eq!(scale("Mg"), Some((1_000_000, 1)));
        assert_eq!(scale("Mm"), Some((1_000_000, 1)));
        for (slip, meant) in [
            ("CM", "cm"),
            ("Kg", "kg"),
            ("KM", "km"),
            ("Meters", "m"),
            ("FT", "ft"),
        ] {
            assert_eq!(scale(slip), scale(meant), "{slip}");
            assert!(scale(slip).is_some(), "{slip}");
        }
        assert_eq!(scale("millimetres"), scale("mm"));
        assert_eq!(scale("Kilowatts"), scale("kW"));
        for none in ["MG", "MM", "S", "M", "cN", "xm", "k", ""] {
            assert_eq!(scale(none), None, "{none}");
        }
        assert!(is_unit_word("MN", true) && !is_unit_word("MN", false));
    }
}
