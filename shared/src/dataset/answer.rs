//! The right answer as a data set writes it, taken out of its box.

/// The answer without its `\boxed{}`: TIGER-Lab/ViRL39K wraps every answer in one. Of one box its content is left, whatever
/// stands around it; of several, each gives way to its content. A box that never closes is left as it is.
pub(super) fn unboxed(answer: &str) -> String {
    const OPEN: &str = "\\boxed{";
    let (mut plain, mut rest) = (String::new(), answer);
    let (mut inner, mut num_boxes) = ("", 0);
    while let Some(at) = rest.find(OPEN) {
        let (before, after) = rest.split_at(at);
        let after = after.get(OPEN.len()..).unwrap_or_default();
        let Some(end) = closing(after) else {
            break;
        };
        let (content, behind) = after.split_at(end);
        plain.push_str(before);
        plain.push_str(content);
        (inner, num_boxes) = (content, num_boxes + 1);
        rest = behind.get(1..).unwrap_or_default();
    }
    plain.push_str(rest);
    match num_boxes {
        0 => answer.to_owned(),
        1 => inner.trim().to_owned(),
        _ => plain,
    }
}

/// Where the brace closes that was open before `text`; `\{` and `\}` are signs, not braces.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::unboxed;

    #[test]
    fn boxes_are_taken_off() {
        for (boxed, plain) in [
            (r"\boxed{A}", "A"),
            (r"$\boxed{ \frac{1}{2} }$", r"\frac{1}{2}"),
            (r"The answer is \boxed{7}.", "7"),
            (r"\boxed{1}, \boxed{2}", "1, 2"),
            (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
            (r"\boxed{}", ""),
            (r"\boxed{unclosed", r"\boxed{unclosed"),
            (r"\boxed{1} and \boxed{2", "1"),
            (r"2 \sqrt { 221 }", r"2 \sqrt { 221 }"),
            (r"\boxed{é}", "é"),
        ] {
            assert_eq!(unboxed(boxed), plain, "{boxed}");
        }
    }
}
