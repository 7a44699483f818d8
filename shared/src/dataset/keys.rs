//! Which keys of a row are the problem, the answer and the images.

use std::path::PathBuf;

use crate::config::nearest::nearest;

/// Names that a data set was said to use. What is left open is looked for under the names that the field's data sets have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataKeys {
    /// Of the question [else `problem`, `prompt` or `question`].
    pub prompt: Option<String>,
    /// Of the right answer [else `answer` or `ground_truth`].
    pub answer: Option<String>,
    /// Of the images [else `images` or `image`; they may be missing].
    pub images: Option<String>,
    /// Folder that image paths start from [else the folder of the data file].
    pub image_dir: Option<PathBuf>,
}

/// Of a row's id.
pub(super) const ID: &[&str] = &["id", "qid", "pid"];
/// Of a worked solution.
pub(super) const SOLUTION: &[&str] = &["solution"];

impl DataKeys {
    pub(super) fn prompt_names(&self) -> Vec<&str> {
        names(self.prompt.as_deref(), &["problem", "prompt", "question"])
    }

    pub(super) fn answer_names(&self) -> Vec<&str> {
        names(self.answer.as_deref(), &["answer", "ground_truth"])
    }

    pub(super) fn image_names(&self) -> Vec<&str> {
        names(self.images.as_deref(), &["images", "image"])
    }
}

fn names<'a>(chosen: Option<&'a str>, usual: &[&'a str]) -> Vec<&'a str> {
    chosen.map_or_else(|| usual.to_vec(), |name| vec![name])
}

/// Why no column is the prompt, say: what was looked for, what is there, what was perhaps meant, and the flag that says it.
pub(super) fn missing<'a>(
    wanted: &[&str],
    flag: &str,
    there: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let wanted_list = wanted
        .iter()
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(" or ");
    let meant = wanted
        .first()
        .and_then(|name| nearest(name, there.clone()))
        .map(|name| format!("; did you mean {name:?}?"))
        .unwrap_or_default();
    let num = there.clone().count();
    let mut list = there
        .take(20)
        .map(|name| name.chars().take(60).collect::<String>())
        .collect::<Vec<_>>()
        .join(", ");
    if num > 20 {
        list.push_str(&format!(", and {} more", num - 20));
    }
    let has = if list.is_empty() {
        "it has none".to_owned()
    } else {
        format!("it has {list}")
    };
    format!("no column {wanted_list}{meant} ({flag} NAME chooses another); {has}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_named_with_what_is_there() {
        assert_eq!(
            missing(&["problm"], "--prompt-key", ["problem", "b"].into_iter()),
            "no column \"problm\"; did you mean \"problem\"? (--prompt-key NAME chooses another); it has problem, b"
        );
        let many: Vec<String> = (0..30).map(|n| format!("column{n}")).collect();
        let message = missing(
            &["answer", "gold"],
            "--answer-key",
            many.iter().map(String::as_str),
        );
        assert!(
            message.starts_with("no column \"answer\" or \"gold\" (")
                && message.ends_with("column19, and 10 more"),
            "{message}"
        );
    }
}
