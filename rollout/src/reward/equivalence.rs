//! Are two answers the same answer?

/// Whether `prediction` (the content of a box) says what `gold` (the data set's answer) says.
#[must_use]
pub fn equivalent(prediction: &str, gold: &str) -> bool {
    let _ = (prediction, gold);
    false
}
