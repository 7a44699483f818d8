//! Times of day: `3:45 PM`, `15:45`, `7 a.m.`, `3 o'clock`, `noon`.

use super::math::text::words;

/// Minutes since midnight; since midnight or noon where nothing says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    OfDay(u32),
    OfHalf(u32),
}

/// Whether two answers are the same time of day; `None` where that is not the question: a colon alone is that of a ratio.
pub(super) fn same_time(prediction: &str, gold: &str) -> Option<bool> {
    let (gold, gold_says) = time(&words(gold))?;
    match time(&words(prediction)) {
        Some((prediction, says)) if says || gold_says => Some(prediction == gold),
        Some(_) => None,
        None => gold_says.then_some(false),
    }
}

/// The time, and whether words make sure that it is one.
fn time(text: &str) -> Option<(Time, bool)> {
    match text {
        "noon" | "12 noon" => return Some((Time::OfDay(12 * 60), true)),
        "midnight" | "12 midnight" => return Some((Time::OfDay(0), true)),
        _ => {}
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != ':')
        .unwrap_or(text.len());
    let (digits, ending) = text.split_at(end);
    let (hours, minutes) = digits.split_once(':').unwrap_or((digits, "00"));
    if hours.is_empty() || hours.len() > 2 || minutes.len() != 2 {
        return None;
    }
    let (hour, minute): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hour > 23 || minute > 59 {
        return None;
    }
    let of_half = (hour % 12) * 60 + minute;
    let is_half = (1..=12).contains(&hour);
    match ending.replace(['.', ' '], "").as_str() {
        "am" if is_half => Some((Time::OfDay(of_half), true)),
        "pm" if is_half => Some((Time::OfDay(of_half + 12 * 60), true)),
        "o'clock" if is_half => Some((Time::OfHalf(of_half), true)),
        "" if digits.contains(':') => {
            // `05:30` and `17:30` are read off a clock of 24 hours.
            let is_whole = !is_half || hour > 12 || hours.starts_with('0');
            let time = if is_whole {
                Time::OfDay(hour * 60 + minute)
            } else {
                Time::OfHalf(of_half)
            };
            Some((time, false))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_one_on_both_clocks() {
        for (a, b) in [
            ("3:45 PM", "15:45"),
            ("7 a.m.", "7:00 AM"),
            ("12:30 AM", "00:30"),
            ("noon", "12:00 p.m."),
            ("3 o'clock", "3:00"),
        ] {
            assert_eq!(same_time(a, b), Some(true), "{a} {b}");
            assert_eq!(same_time(b, a), Some(true), "{b} {a}");
        }
        for (a, b) in [
            ("3:45 AM", "3:45 PM"),
            ("3:45", "3:45 PM"),
            ("12:30 AM", "12:30 PM"),
        ] {
            assert_eq!(same_time(a, b), Some(false), "{a} {b}");
        }
        assert_eq!(same_time("13:45 PM", "1:45 AM"), Some(false));
        for (a, b) in [
            ("3:45", "3:45"),
            ("3:75 PM", "3"),
            ("noon", ""),
            ("4", "4:00"),
        ] {
            assert_eq!(same_time(a, b), None, "{a} {b}");
        }
    }
}
