//! The form that the prompt asks for, and where the answer stands in it.

use std::borrow::Cow;

use shared::config::FormatRule;

/// Whether the response is `<think>...</think>...\boxed{...}...`, as EasyR1 checks it: white space around `<`, `>` and `/`
/// ignored.
#[must_use]
pub fn is_well_formed(response: &str) -> bool {
    has_form(response, FormatRule::EasyR1)
}

/// Whether the response has the form of `rule`.
///
/// Without a regex: `<think>.*</think>.*\\boxed\{.*\}.*` must match all of it, and since every gap is `.*`, the first place
/// for each piece is as good as any. r1v's is `<think>.*?</think>\s*<answer>.*?</answer>`.
#[must_use]
pub fn has_form(response: &str, rule: FormatRule) -> bool {
    let response = as_graded(response, rule);
    let Some(thought) = response.strip_prefix("<think>") else {
        return false;
    };
    match rule {
        FormatRule::EasyR1 | FormatRule::NoisyRollout => {
            let boxed = thought
                .split_once("</think>")
                .and_then(|(_, rest)| rest.split_once("\\boxed{"));
            boxed.is_some_and(|(_, rest)| rest.contains('}'))
        }
        FormatRule::R1v => {
            let Some(thought) = thought.strip_suffix("</answer>") else {
                return false;
            };
            thought.match_indices("</think>").any(|(position, tag)| {
                thought
                    .get(position + tag.len()..)
                    .is_some_and(|rest| rest.trim_start().starts_with("<answer>"))
            })
        }
    }
}

/// The text that the rule's own code grades: EasyR1 turns `\s*(<|>|/)\s*` into `\1` first.
pub(super) fn as_graded(response: &str, rule: FormatRule) -> Cow<'_, str> {
    match rule {
        FormatRule::EasyR1 => Cow::Owned(clean(response)),
        FormatRule::NoisyRollout | FormatRule::R1v => Cow::Borrowed(response),
    }
}

/// What stands between the last `<answer>` and the `</answer>` behind it.
pub(super) fn answer_tag(response: &str) -> Option<&str> {
    let (_, rest) = response.rsplit_once("<answer>")?;
    rest.split_once("</answer>")
        .map(|(answer, _)| answer.trim())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1v() {
        let has = |response: &str| has_form(response, FormatRule::R1v);
        assert!(has("<think>a</think><answer>12</answer>"));
        assert!(has("<think>a</think>b</think> \n<answer>12</answer>"));
        assert!(!has("<think>a</think> so <answer>12</answer>"));
        assert!(!has("<think>a</think><answer>12</answer>."));
        assert!(!has(" <think>a</think><answer>12</answer>"));
        assert!(!has("<think></answer>"));
        assert_eq!(
            answer_tag("<answer>1</answer> <answer> 2 </answer>"),
            Some("2")
        );
        assert_eq!(answer_tag("<answer>1"), None);
    }
}
