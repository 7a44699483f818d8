//! What a data set of the hub is called here, and which state of it is meant.

use std::path::Path;

use hf_hub::{Repo, RepoType};

/// What the hub calls the newest state.
const MAIN: &str = "main";
/// Longest name of a branch or tag.
const MAX_REVISION: usize = 200;

/// A data set of the hub, and which state of it: `owner/name` or `owner/name:revision`.
///
/// A colon, because neither a name on the hub nor a name of git may hold one; the `@` of the hub's own URLs is the split here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HubName<'a> {
    /// As it was written.
    pub(super) text: &'a str,
    pub(super) name: &'a str,
    /// A branch, a tag or a commit.
    pub(super) revision: &'a str,
}

impl<'a> HubName<'a> {
    /// None of what can only be a path.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        let (name, revision) = text.split_once(':').unwrap_or((text, MAIN));
        is_hub_name(name).then_some(Self {
            text,
            name,
            revision,
        })
    }

    /// A branch, a tag or a commit; nothing else becomes part of a path or a URL.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_part = |part: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(is_plain)
        };
        if self.revision.len() <= MAX_REVISION && self.revision.split('/').all(is_part) {
            return Ok(());
        }
        let start: String = self.revision.chars().take(80).collect();
        Err(format!(
            "{start:?} is no revision: expected a branch, a tag or a commit behind the colon, as in {}:v1.0@train",
            self.name
        ))
    }

    pub(super) fn repo(&self) -> Repo {
        let (name, revision) = (self.name.to_owned(), self.revision.to_owned());
        Repo::with_revision(name, RepoType::Dataset, revision)
    }

    /// For a message: nothing where none was asked for.
    pub(super) fn of_revision(&self) -> String {
        match self.text.contains(':') {
            true => format!(" with the revision {}", self.revision),
            false => String::new(),
        }
    }
}

/// `owner/name`, and no folder `owner` here: then a slip in a path was likelier meant.
fn is_hub_name(path: &str) -> bool {
    let is_part = |part: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        (1..=96).contains(&part.len()) && !part.starts_with('.') && part.chars().all(is_plain)
    };
    let is_file = [".parquet", ".jsonl", ".json"]
        .iter()
        .any(|ending| path.ends_with(ending));
    path.split_once('/').is_some_and(|(owner, name)| {
        is_part(owner) && is_part(name) && !is_file && !Path::new(owner).exists()
    })
}

/// A commit by all of its digits: shorter ones are the hub's to look up.
pub(super) fn is_commit(revision: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    revision.len() == 40 && revision.bytes().all(is_digit)
}

/// A name that is one part of a path, and nothing else.
pub(super) fn is_plain(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
