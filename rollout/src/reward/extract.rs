//! The answer that a response commits itself to: its last box.

/// Content of the last `\boxed{}` or `\fbox{}`, innermost where boxes are nested.
///
/// Different boxes side by side (`\boxed{3} and \boxed{5}`) are one list, joined by commas. No box, a last box that is not
/// closed, or brackets that only pair up across boxes are no answer.
#[must_use]
pub fn boxed(response: &str) -> Option<String> {
    let last = last_box(response, response.len())?;
    if last.content.is_empty() {
        return None;
    }
    let mut answers = vec![last.content];
    let mut before = last.start;
    while answers.len() < MAX_BOXES {
        let Some(previous) = last_box(response, before) else {
            break;
        };
        let gap = response.get(previous.end..before)?;
        if !joins(gap) {
            break;
        }
        before = previous.start;
        answers.push(previous.content);
    }
    answers.reverse();
    answers.dedup();
    let joined = answers.join(", ");
    // `\boxed{(1} \boxed{2)}` is no point.
    let pairs_across = is_balanced(&joined) && !answers.iter().all(|answer| is_balanced(answer));
    (!pairs_across).then_some(joined)
}

/// Whether as many brackets open as close, of whatever kind: `[1, 2)` is an interval.
fn is_balanced(text: &str) -> bool {
    let step = |byte: u8| match byte {
        b'(' | b'[' | b'{' => 1,
        b')' | b']' | b'}' => -1_i64,
        _ => 0,
    };
    text.bytes().map(step).sum::<i64>() == 0
}

/// A list of more boxes is no answer to a question; the last ones are looked at.
const MAX_BOXES: usize = 16;

struct Found<'a> {
    start: usize,
    /// Behind the closing brace.
    end: usize,
    content: &'a str,
}

/// The last box that starts and closes before `end`.
fn last_box(text: &str, end: usize) -> Option<Found<'_>> {
    let text = text.get(..end)?;
    opened_before(text, end).map(|found| enclosing(text, found))
}

/// The box around this one, if it lies in one. Where that holds nothing else (`\boxed{\boxed{12}}`) the answer stays; where it
/// does (`\boxed{13 \text{ or } \boxed{12}}`), all of it is the answer.
fn enclosing<'a>(text: &'a str, mut found: Found<'a>) -> Found<'a> {
    // Deeper nests are no answers; the limit keeps this linear.
    let mut before = found.start;
    for _ in 0..MAX_BOXES {
        let Some(outer) = opened_before(text, before) else {
            break;
        };
        before = outer.start;
        if outer.end > found.end {
            let inner = text.get(found.start..found.end).unwrap_or_default();
            let content = if outer.content == inner {
                found.content
            } else {
                outer.content
            };
            found = Found { content, ..outer };
        }
    }
    found
}

/// The last box whose name starts before `end`; it may close behind it.
fn opened_before(text: &str, end: usize) -> Option<Found<'_>> {
    let head = text.get(..end)?;
    // From the back, both names at once: the first that fits ends the search.
    let mut boxes = head.rmatch_indices("box").filter_map(|(position, _)| {
        let before = head.get(..position)?;
        let is_fbox = before.ends_with("\\f");
        let start = if is_fbox {
            position - 2
        } else {
            before.strip_suffix('\\')?.len()
        };
        let after = text.get(position + "box".len()..)?;
        let after = if is_fbox {
            after
        } else {
            after.strip_prefix("ed")?
        };
        Some((start, after))
    });
    let (start, after_name) = boxes.next()?;
    let content = after_name.trim_start().strip_prefix('{')?;
    let length = closing_brace(content)?;
    let content_start = text.len() - content.len();
    Some(Found {
        start,
        end: content_start + length + 1,
        content: content.get(..length)?.trim(),
    })
}

/// Position of the brace that closes the one before `text`; `\{` and `\}` are characters.
pub(super) fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    let mut is_escaped = false;
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(position);
        }
    }
    None
}

/// Whether what stands between two boxes makes a list of them: punctuation, numbers of items, "and", "or".
fn joins(gap: &str) -> bool {
    gap.len() <= 70
        && gap.split(|c: char| !c.is_alphabetic()).all(|word| {
            matches!(
                word.to_ascii_lowercase().as_str(),
                "" | "and" | "or" | "text" | "quad" | "qquad" | "mbox" | "mathrm" | "textbf"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_box_counts() {
        let answer = |text: &str| boxed(text).unwrap_or_else(|| "-".to_owned());
        assert_eq!(
            answer("<think>\\boxed{1}</think> so it is \\boxed{ \\frac{1}{2} }."),
            "\\frac{1}{2}"
        );
        assert_eq!(answer("\\boxed{3} and \\boxed{5}"), "3, 5");
        assert_eq!(answer("$\\boxed{12}$ $\\boxed{12}$"), "12");
        assert_eq!(answer("\\boxed{12}. Wait, \\boxed{13}"), "13");
        assert_eq!(answer("\\boxed{ \\fbox {12} } and \\boxed{13}"), "12, 13");
        assert_eq!(answer("\\boxed{\\{1,2\\}}"), "\\{1,2\\}");
        assert_eq!(answer("\\boxed{12} and \\boxed{13"), "-");
        assert_eq!(answer("12"), "-");
        assert_eq!(answer("\\boxed{13 or \\boxed{12}}"), "13 or \\boxed{12}");
        assert_eq!(
            answer("\\boxed{13 \\boxed{x} or \\boxed{12}}"),
            "13 \\boxed{x} or \\boxed{12}"
        );
        for gap in [
            "\\text{ or }",
            " / ",
            " = ",
            "$\\text{ and }$",
            "~",
            "|",
            "\n2. ",
        ] {
            let text = format!("1. \\boxed{{12}}{gap}\\boxed{{13}}");
            assert_eq!(answer(&text), "12, 13", "{gap}");
        }
        assert_eq!(
            answer("\\boxed{[1, 2)} or \\boxed{(3, 4)}"),
            "[1, 2), (3, 4)"
        );
        assert_eq!(answer("\\boxed{(1} \\boxed{2)}"), "-");
        assert_eq!(answer("\\boxed{(4} \\boxed{2}"), "(4, 2");
        assert_eq!(answer("\\boxed{12} \\boxed{}"), "-");
        assert_eq!(answer("\\boxed"), "-");
        assert_eq!(answer("\\boxed 12"), "-");
    }

    #[test]
    fn many_open_boxes_are_read_once() {
        assert_eq!(boxed(&"\\boxed{".repeat(100_000)), None);
        let deep = format!("{}1{}", "\\boxed{".repeat(10_000), "}".repeat(10_000));
        assert_eq!(boxed(&deep).unwrap(), "1");
        assert_eq!(boxed(&"\\boxed{1}".repeat(100_000)).unwrap(), "1");
    }
}
