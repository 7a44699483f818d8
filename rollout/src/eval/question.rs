//! A question, with all that scoring its answer takes: a predictions file can be scored again without the benchmark.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::benchmark::ImageSource;

/// One question of a benchmark or a data set.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub(super) struct Question {
    /// Its place in the data, from 0.
    pub index: u64,
    /// Its name there.
    pub id: String,
    /// What is asked, for a person or a judge: without the instructions.
    pub question: String,
    /// The right answer: of multiple choice its letter.
    pub answer: String,
    /// How answers are compared.
    #[serde(default)]
    pub kind: Kind,
    /// Texts of the options, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// What it belongs to: `subject`: [`algebra`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Vec<String>>,
    /// Questions of one cluster are about the same problem or figure: they are right or wrong together.
    #[serde(default)]
    pub cluster: String,
    /// What the model is asked, without marks of images.
    #[serde(skip)]
    pub text: String,
    /// Where its image is.
    #[serde(skip)]
    pub image: ImageSource,
}

/// What an answer is.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Whatever the verifier of the training reads.
    #[default]
    Free,
    /// A letter, or the text of its option.
    Choice,
    /// A whole number; decimals are cut off.
    Integer,
    /// A number, rounded to so many decimals.
    Float(u8),
    /// Numbers in order, or words.
    List,
    /// yes or no.
    YesNo,
}

impl Question {
    /// The value of a group that holds one, or nothing.
    pub(super) fn group(&self, name: &str) -> &str {
        let values = self.groups.get(name);
        values
            .and_then(|values| values.first())
            .map_or("", String::as_str)
    }

    /// Puts it into a group; no value, no group.
    pub(super) fn add_group(&mut self, name: &str, values: Vec<String>) {
        let values: Vec<String> = values
            .into_iter()
            .filter(|value| !value.is_empty())
            .collect();
        if !values.is_empty() {
            self.groups.insert(name.to_owned(), values);
        }
    }
}
