//! The ranges of values, as clap parsers: the command line and the files pass through the same ones.

/// A whole number of at least `minimum`. Ends at 2^32: sizes of this program are far below, and products of two don't overflow.
pub(super) fn at_least(
    minimum: u32,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse::<u32>() {
        Ok(n) if n >= minimum => usize::try_from(n).map_err(|e| e.to_string()),
        _ => Err(format!(
            "expected a whole number of at least {minimum}, below 2^32"
        )),
    }
}

/// A whole number. Ends at 2^63 because TOML's integers are signed: a larger one could not be written back.
pub(super) fn whole(text: &str) -> Result<u64, String> {
    let n = text.parse::<i64>().ok().and_then(|n| u64::try_from(n).ok());
    n.ok_or_else(|| "expected a whole number from 0, below 2^63".to_owned())
}

/// (-inf, inf)
pub(super) fn finite(text: &str) -> Result<f64, String> {
    number(text, |_| true, "a number")
}

/// (0, inf)
pub(super) fn positive(text: &str) -> Result<f64, String> {
    number(text, |x| x > 0.0, "a number above 0")
}

/// [0, inf)
pub(super) fn non_negative(text: &str) -> Result<f64, String> {
    number(text, |x| x >= 0.0, "a number of at least 0")
}

/// (1, inf)
pub(super) fn above_one(text: &str) -> Result<f64, String> {
    number(text, |x| x > 1.0, "a number above 1")
}

/// [0, 1]
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    number(text, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1")
}

/// (0, 1]
pub(super) fn positive_fraction(text: &str) -> Result<f64, String> {
    number(
        text,
        |x| x > 0.0 && x <= 1.0,
        "a number above 0 and at most 1",
    )
}

/// [0, 1]
pub(super) fn share(text: &str) -> Result<f64, String> {
    number(text, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1")
}

/// [0, 1)
pub(super) fn below_one(text: &str) -> Result<f64, String> {
    number(
        text,
        |x| (0.0..1.0).contains(&x),
        "a number of at least 0 and below 1",
    )
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| "expected true or false".to_owned())
}

fn number(text: &str, holds: impl Fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(x) if x.is_finite() && holds(x) => Ok(x),
        _ => Err(format!("expected {expected}")),
    }
}
