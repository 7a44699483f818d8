//! Text of strangers for a terminal: nothing in it moves the cursor or turns the direction of writing.

/// On one line, at most 200 characters.
pub(super) fn line(text: &str) -> String {
    let mut clean: String = text.chars().take(200).flat_map(sign).collect();
    if text.chars().nth(200).is_some() {
        clean.push_str("...");
    }
    clean
}

/// Any length; line breaks stay.
pub(super) fn lines(text: &str) -> String {
    let lines = text.split('\n');
    let clean: Vec<String> = lines
        .map(|line| line.chars().flat_map(sign).collect())
        .collect();
    clean.join("\n")
}

fn sign(c: char) -> Vec<char> {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || turns {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_written_out() {
        assert_eq!(line("a\x1b[2Jb\nc é"), "a\\u{1b}[2Jb\\nc é");
        assert_eq!(lines("a\nb\x07\u{202e}"), "a\nb\\u{7}\\u{202e}");
        assert_eq!(line(&"x".repeat(300)).len(), 203);
    }
}
