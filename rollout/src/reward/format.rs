//! The form that the prompt asks for, as EasyR1 checks it.

/// Whether the response is `<think>...</think>...\boxed{...}...`, white space around `<`, `>` and `/` ignored.
///
/// Equal to a full match of `<think>.*</think>.*\\boxed\{.*\}.*` after `\s*(<|>|/)\s*` became `\1`, without a regex: every gap
/// is `.*`, so the first place for each piece is as good as any.
#[must_use]
pub fn is_well_formed(response: &str) -> bool {
    let cleaned = clean(response);
    let Some(thought) = cleaned.strip_prefix("<think>") else {
        return false;
    };
    let Some((_, rest)) = thought.split_once("</think>") else {
        return false;
    };
    let Some((_, rest)) = rest.split_once("\\boxed{") else {
        return false;
    };
    rest.contains('}')
}

fn clean(response: &str) -> String {
    let is_mark = |c: char| matches!(c, '<' | '>' | '/');
    let mut cleaned = String::with_capacity(response.len());
    let mut rest = response;
    while let Some(position) = rest.find(is_mark) {
        let (before, mark_on) = rest.split_at(position);
        cleaned.push_str(before.trim_end());
        let mut chars = mark_on.chars();
        cleaned.extend(chars.next());
        rest = chars.as_str().trim_start();
    }
    cleaned.push_str(rest);
    cleaned
}
