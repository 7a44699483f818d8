//! Closeness within a tolerance, with a message that tells where the worst element is.

/// A tolerance: `|got - expected| <= absolute + relative * |expected|`.
#[derive(Debug, Clone, Copy)]
pub struct Close {
    /// Allowed difference whatever the size of the value.
    pub absolute: f64,
    /// Allowed difference per size of the expected value.
    pub relative: f64,
}

impl Close {
    /// An absolute tolerance alone.
    pub fn absolute(absolute: f64) -> Self {
        Self {
            absolute,
            relative: 0.0,
        }
    }

    /// The largest `|got - expected|`, or a message when a length differs, a value is not finite or beyond the
    /// tolerance.
    pub fn check(self, got: &[f32], expected: &[f32]) -> Result<f64, String> {
        if got.len() != expected.len() {
            return Err(format!(
                "expected {} values, got {}",
                expected.len(),
                got.len()
            ));
        }
        let (mut worst, mut worst_excess, mut worst_index, mut beyond) = (0f64, f64::MIN, 0, 0);
        for (index, (&got, &expected)) in got.iter().zip(expected).enumerate() {
            let (got, expected) = (f64::from(got), f64::from(expected));
            // Equal infinities are equal; a NaN differs from everything.
            let difference = if got == expected {
                0.0
            } else {
                (got - expected).abs()
            };
            let difference = if difference.is_nan() {
                f64::INFINITY
            } else {
                difference
            };
            // A NaN or an infinity allows nothing more.
            let scale = if expected.is_finite() {
                expected.abs()
            } else {
                0.0
            };
            let excess = difference - (self.absolute + self.relative * scale);
            beyond += usize::from(excess > 0.0);
            worst = worst.max(difference);
            if excess > worst_excess {
                (worst_excess, worst_index) = (excess, index);
            }
        }
        if beyond == 0 {
            return Ok(worst);
        }
        Err(format!(
            "{beyond} of {} values beyond {:e} + {:e} * |expected|; worst at {worst_index}: expected {}, got {}",
            got.len(),
            self.absolute,
            self.relative,
            expected[worst_index],
            got[worst_index]
        ))
    }
}

/// Panics with `what` unless every value is within the absolute tolerance; gives the largest difference, to be printed.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], expected: &[f32], absolute: f64) -> f64 {
    match Close::absolute(absolute).check(got, expected) {
        Ok(worst) => worst,
        Err(message) => panic!("{what}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_worst_element() {
        let message = Close::absolute(0.1)
            .check(&[1.0, 2.5, 3.2], &[1.0, 2.0, 3.0])
            .unwrap_err();
        assert!(
            message.contains("2 of 3") && message.contains("worst at 1"),
            "{message}"
        );
        assert_eq!(
            Close::absolute(0.5).check(&[1.0, 2.5], &[1.0, 2.0]),
            Ok(0.5)
        );
    }

    #[test]
    fn nan_and_length_are_refused() {
        assert!(Close::absolute(1e9).check(&[f32::NAN], &[0.0]).is_err());
        assert!(Close::absolute(1e9).check(&[0.0], &[f32::NAN]).is_err());
        assert!(Close::absolute(1e9).check(&[0.0], &[]).is_err());
        assert_eq!(
            Close::absolute(0.0).check(&[f32::INFINITY], &[f32::INFINITY]),
            Ok(0.0)
        );
    }
}
