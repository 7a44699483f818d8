//! One TOML file as command line arguments, so that flags and files share their parsers.

use std::error::Error as _;
use std::ffi::OsString;
use std::path::Path;

use clap::{Args, Command};
use serde::Serialize;
use toml::{Table, Value};

use super::error::{Error, Result};
use super::load::section_command;
use super::nearest::nearest;
use super::{LearnerArgs, RolloutArgs, RunArgs};

/// Larger files are no configuration.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The arguments that a file stands for, per table.
#[derive(Default)]
pub(super) struct FileArgs {
    pub(super) run: Vec<OsString>,
    pub(super) rollout: Vec<OsString>,
    pub(super) learner: Vec<OsString>,
}

/// Reads `path`; the keys in `refused` are unknown there.
pub(super) fn read(path: &Path, refused: &[&str]) -> Result<FileArgs> {
    let read_error = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(read_error)?.len();
    if length > MAX_FILE_BYTES {
        return Err(read_error(std::io::Error::other(format!(
            "{length} bytes are no configuration"
        ))));
    }
    let text = std::fs::read_to_string(path).map_err(read_error)?;
    parse(path, &text, refused)
}

fn parse(path: &Path, text: &str, refused: &[&str]) -> Result<FileArgs> {
    let mut tables: Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error
            .span()
            .and_then(|span| text.get(..span.start))
            .unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Error::Syntax {
            path: path.to_owned(),
            line,
            message: one_line(error.message()),
        }
    })?;
    let reader = Reader { path, refused };
    let args = FileArgs {
        run: reader.section::<RunArgs>("run", tables.remove("run"))?,
        rollout: reader.section::<RolloutArgs>("rollout", tables.remove("rollout"))?,
        learner: reader.section::<LearnerArgs>("learner", tables.remove("learner"))?,
    };
    match tables.keys().next() {
        None => Ok(args),
        Some(name) => Err(reader.unknown_table(name)),
    }
}

struct Reader<'a> {
    path: &'a Path,
    refused: &'a [&'a str],
}

impl Reader<'_> {
    fn section<A: Args + Serialize>(
        &self,
        table: &'static str,
        content: Option<Value>,
    ) -> Result<Vec<OsString>> {
        let keys = match content {
            None => return Ok(Vec::new()),
            Some(Value::Table(keys)) => keys,
            Some(other) => {
                let reason = format!("expected a table, got {}", kind(&other));
                return Err(Error::Syntax {
                    path: self.path.to_owned(),
                    line: 1,
                    message: format!("{table}: {reason}"),
                });
            }
        };
        let command = section_command::<A>();
        let mut args = Vec::with_capacity(keys.len());
        for (key, value) in keys {
            let flag = self.flag(&command, table, &key)?;
            let arg = self.argument::<A>(&command, table, &key, &flag, &value)?;
            args.push(arg);
        }
        Ok(args)
    }

    /// The long flag of a key of this table.
    fn flag(&self, command: &Command, table: &'static str, key: &str) -> Result<String> {
        let known = keys_of(command).any(|known| known == key) && !self.refused.contains(&key);
        if known {
            Ok(format!("--{}", key.replace('_', "-")))
        } else {
            Err(self.unknown_key(command, table, key))
        }
    }

    /// `--flag=value`, after a trial by the flag's own parser.
    fn argument<A: Args + Serialize>(
        &self,
        command: &Command,
        table: &'static str,
        key: &str,
        flag: &str,
        value: &Value,
    ) -> Result<OsString> {
        let refuse = |reason: String| Error::Value {
            path: self.path.to_owned(),
            table,
            key: key.to_owned(),
            value: shorten(&one_line(&value.to_string())),
            reason,
        };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Integer(n) => n.to_string(),
            Value::Float(x) => x.to_string(),
            Value::Boolean(b) => b.to_string(),
            Value::Array(items) if items.iter().all(Value::is_str) => {
                let names: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                names.join(",")
            }
            other => return Err(refuse(format!("{} has no meaning here", kind(other)))),
        };
        let arg = OsString::from(format!("{flag}={text}"));
        let matches = command
            .clone()
            .try_get_matches_from([&arg])
            .map_err(|error| refuse(reason(&error)))?;
        let parsed = A::from_arg_matches(&matches).map_err(|error| refuse(reason(&error)))?;
        // A number in quotes would pass the parser: the flag's own type decides.
        match Table::try_from(parsed)?.get(key) {
            Some(meant) if !same_kind(value, meant) => Err(refuse(format!(
                "expected {}, got {}",
                kind(meant),
                kind(value)
            ))),
            _ => Ok(arg),
        }
    }

    fn unknown_table(&self, name: &str) -> Error {
        let tables = ["run", "rollout", "learner"];
        let homes = homes(name);
        let hint = match (homes.as_slice(), nearest(name, tables)) {
            ([], Some(near)) => format!("did you mean [{near}]?"),
            ([], None) => "the tables are [run], [rollout] and [learner]".to_owned(),
            (homes, _) => format!("it belongs under {}", homes.join(" or ")),
        };
        let (what, place) = if homes.is_empty() {
            ("table", "")
        } else {
            ("key", " outside of any table")
        };
        let name = shorten(name);
        Error::Unknown {
            path: self.path.to_owned(),
            what,
            name,
            place: place.to_owned(),
            hint,
        }
    }

    fn unknown_key(&self, command: &Command, table: &'static str, key: &str) -> Error {
        let homes = homes(key);
        let hint = if self.refused.contains(&key) {
            "it is taken from the command line or from --config FILE only".to_owned()
        } else if !homes.is_empty() {
            format!("it belongs under {}", homes.join(" or "))
        } else if let Some(near) = nearest(&key.replace('-', "_"), keys_of(command)) {
            format!("did you mean {near:?}?")
        } else {
            format!(
                "the keys are {}",
                keys_of(command).collect::<Vec<_>>().join(", ")
            )
        };
        let place = format!(" in [{table}]");
        Error::Unknown {
            path: self.path.to_owned(),
            what: "key",
            name: shorten(key),
            place,
            hint,
        }
    }
}

/// Every key of a table; `--config` itself is none.
fn keys_of(command: &Command) -> impl Iterator<Item = &str> {
    command
        .get_arguments()
        .map(|arg| arg.get_id().as_str())
        .filter(|&id| id != "config")
}

/// The tables that have this key.
fn homes(key: &str) -> Vec<&'static str> {
    let commands = [
        ("[run]", section_command::<RunArgs>()),
        ("[rollout]", section_command::<RolloutArgs>()),
        ("[learner]", section_command::<LearnerArgs>()),
    ];
    commands
        .iter()
        .filter(|(_, command)| keys_of(command).any(|known| known == key))
        .map(|(table, _)| *table)
        .collect()
}

/// clap's reason without its layout.
fn reason(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue};
    if let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue)
        && !valid.is_empty()
    {
        return format!("expected one of {}", valid.join(", "));
    }
    match error.source() {
        Some(source) => one_line(&source.to_string()),
        None => error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned(),
    }
}

/// 1 is as good as 1.0 where a float is meant, and "a,b" as ["a", "b"] where names are.
fn same_kind(given: &Value, meant: &Value) -> bool {
    given.same_type(meant)
        || matches!(
            (given, meant),
            (Value::Integer(_), Value::Float(_)) | (Value::String(_), Value::Array(_))
        )
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Long enough to recognise, short enough for one line.
fn shorten(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    match text.char_indices().nth(MAX_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
    }
}
