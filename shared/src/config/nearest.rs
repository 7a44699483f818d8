//! "Did you mean": the known name nearest to an unknown one.

/// The candidate with the smallest edit distance to `name`, when it is near enough to be meant.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A file may hold a key of any length; a long one is no slip of the finger.
    if name.len() > 64 {
        return None;
    }
    let by_distance = candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate));
    let (distance, candidate) = by_distance.min_by_key(|&(distance, _)| distance)?;
    (distance <= 1 + candidate.len() / 3).then_some(candidate)
}

/// Levenshtein's distance in characters. Takes time in proportion to the product of the lengths.
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            let here = (diagonal + usize::from(x != *y))
                .min(above + 1)
                .min(left + 1);
            (diagonal, left, *cell) = (above, here, here);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn levenshtein() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("rho", "rho"), 0);
    }

    #[test]
    fn only_near_names_are_offered() {
        assert_eq!(
            nearest("temprature", ["temperature", "top_p"]),
            Some("temperature")
        );
        assert_eq!(nearest("quite_different", ["temperature", "top_p"]), None);
        assert_eq!(nearest(&"t".repeat(1 << 20), ["temperature"]), None);
    }
}
