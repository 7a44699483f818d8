//! What `--data` says: one source, or several with weights.

use std::path::Path;

use super::error::{Error, Result};

/// Most visits of a row per epoch; more is a slip.
const MAX_WEIGHT: f64 = 1000.0;
/// Most commas that are looked for in one path.
const MAX_COMMAS: usize = 8;

/// One source of a mixture.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Source {
    /// As it was written, without the weight.
    pub(super) text: String,
    /// A file, a folder or a name on the hub.
    pub(super) path: String,
    /// Behind the `@`.
    pub(super) split: Option<String>,
    /// How often an epoch visits each row, on average.
    pub(super) weight: f64,
}

/// Reads `SOURCE[@SPLIT][=WEIGHT],...`. A path that exists is taken as it is written, whatever signs it holds: alone, before a
/// split, before a weight, or before both.
pub(super) fn parse(spec: &str) -> Result<Vec<Source>> {
    let refuse = |reason: String| Error::NotFound {
        path: spec.to_owned(),
        reason,
    };
    let parts: Vec<&str> = spec.split(',').collect();
    let (mut sources, mut start) = (Vec::new(), 0);
    while start < parts.len() {
        // The commas of a path that exists are its own: the longest one wins.
        let longest = parts.len().min(start + MAX_COMMAS + 1);
        let found = (start + 1..=longest)
            .rev()
            .find_map(|end| Some((existing(parts.get(start..end)?.join(",").trim())?, end)));
        let (source, end) = match found {
            Some(found) => found,
            None => {
                let item = parts.get(start).map_or("", |part| part.trim());
                (named(item).map_err(refuse)?, start + 1)
            }
        };
        sources.push(source);
        start = end;
    }
    Ok(sources)
}

/// The source of a path that is there.
fn existing(item: &str) -> Option<Source> {
    let is_there = |path: &str| !path.is_empty() && Path::new(path).exists();
    if is_there(item) {
        return Some(source(item, item, None, 1.0));
    }
    let (front, weight) = weighted(item).unwrap_or((item, 1.0));
    if is_there(front) {
        return Some(source(front, front, None, weight));
    }
    let (path, split) = front.rsplit_once('@')?;
    // A comma behind the split begins the next source.
    let is_whole = !split.contains(',');
    (is_whole && is_there(path)).then(|| source(front, path, Some(split), weight))
}

/// The source of a name that is no path here: a weight stands behind the last `=`, a split behind the last `@`.
fn named(item: &str) -> std::result::Result<Source, String> {
    if item.is_empty() {
        return Err(
            "expected PATH, PATH@SPLIT or PATH=WEIGHT, several of them with commas between"
                .to_owned(),
        );
    }
    let (front, weight) = match (item.rsplit_once('='), weighted(item)) {
        (None, _) => (item, 1.0),
        (_, Some(weighted)) => weighted,
        (Some((front, weight)), None) => {
            let hint = match weight.split_once('@') {
                Some((weight, split)) => {
                    format!("; a weight goes behind the split, as in {front}@{split}={weight}")
                }
                None => String::new(),
            };
            return Err(format!(
                "no such path, and the weight {weight:?} of {front}: expected a number above 0 and at most {MAX_WEIGHT}, the \
                 visits of each row per epoch{hint}"
            ));
        }
    };
    Ok(match front.rsplit_once('@') {
        Some((path, split)) => source(front, path, Some(split), weight),
        None => source(front, front, None, weight),
    })
}

/// What stands before the last `=`, and the weight behind it.
fn weighted(item: &str) -> Option<(&str, f64)> {
    let (front, weight) = item.rsplit_once('=')?;
    let weight = weight.trim().parse().ok();
    let weight = weight.filter(|weight| *weight > 0.0 && *weight <= MAX_WEIGHT);
    Some((front.trim(), weight?))
}

fn source(text: &str, path: &str, split: Option<&str>, weight: f64) -> Source {
    Source {
        text: text.to_owned(),
        path: path.to_owned(),
        split: split.map(str::to_owned),
        weight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_splits_and_weights() {
        let short = |spec: &str| -> Vec<(String, Option<String>, f64)> {
            parse(spec)
                .unwrap()
                .into_iter()
                .map(|source| (source.path, source.split, source.weight))
                .collect()
        };
        let of = |path: &str, split: Option<&str>, weight| {
            (path.to_owned(), split.map(str::to_owned), weight)
        };
        assert_eq!(short("a.parquet"), [of("a.parquet", None, 1.0)]);
        assert_eq!(
            short("a.parquet=2, b.jsonl=0.5,o/n@train=3"),
            [
                of("a.parquet", None, 2.0),
                of("b.jsonl", None, 0.5),
                of("o/n", Some("train"), 3.0)
            ]
        );
        for (spec, what) in [
            ("a,,b", "commas between"),
            ("", "commas between"),
            ("a=0", "above 0"),
            ("a=-1", "above 0"),
            ("a=nan", "above 0"),
            ("a=1e9", "at most 1000"),
            ("a=x", "weight \"x\""),
        ] {
            let message = parse(spec).unwrap_err().to_string();
            assert!(
                message.contains(what) && !message.contains('\n'),
                "{message}"
            );
        }
    }

    #[test]
    fn a_path_that_exists_is_meant_literally() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a,b@c=2.jsonl");
        std::fs::write(&path, "").unwrap();
        let text = path.to_str().unwrap();
        let sources = parse(text).unwrap();
        assert_eq!(
            (sources[0].path.as_str(), &sources[0].split, sources.len()),
            (text, &None, 1)
        );
    }

    /// Signs of the syntax in the names of folders, with splits and weights behind them.
    #[test]
    fn signs_in_a_folders_name_are_no_syntax() {
        let root = tempfile::tempdir().unwrap();
        for name in ["run=0.5", "a@b", "x,y=2", "lr=1,wd=2"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let root = root.path().to_str().unwrap();
        let read = |spec: &str| -> Vec<(String, Option<String>, f64)> {
            let sources = parse(&spec.replace("R/", &format!("{root}/"))).unwrap();
            let of = |source: Source| {
                let path = source.path.replace(&format!("{root}/"), "R/");
                (path, source.split, source.weight)
            };
            sources.into_iter().map(of).collect()
        };
        let of = |path: &str, split: Option<&str>, weight| {
            (path.to_owned(), split.map(str::to_owned), weight)
        };
        let (train, test) = (Some("train"), Some("test"));
        for (spec, wanted) in [
            ("R/run=0.5", vec![of("R/run=0.5", None, 1.0)]),
            ("R/run=0.5@train", vec![of("R/run=0.5", train, 1.0)]),
            ("R/run=0.5=2", vec![of("R/run=0.5", None, 2.0)]),
            ("R/run=0.5@train=2", vec![of("R/run=0.5", train, 2.0)]),
            ("R/a@b@train=2", vec![of("R/a@b", train, 2.0)]),
            ("R/x,y=2", vec![of("R/x,y=2", None, 1.0)]),
            ("R/x,y=2@test=3", vec![of("R/x,y=2", test, 3.0)]),
            (
                "o/n@test=0.5, R/lr=1,wd=2@train ,R/run=0.5=3,b",
                vec![
                    of("o/n", test, 0.5),
                    of("R/lr=1,wd=2", train, 1.0),
                    of("R/run=0.5", None, 3.0),
                    of("b", None, 1.0),
                ],
            ),
            // No such folder: as if there were no signs in names.
            ("R/gone=0.5", vec![of("R/gone", None, 0.5)]),
            ("o/n:v1@test=2", vec![of("o/n:v1", test, 2.0)]),
        ] {
            assert_eq!(read(spec), wanted, "{spec}");
        }
        let message = parse("o/n=0.5@train").unwrap_err().to_string();
        assert!(
            message.contains("as in o/n@train=0.5") && !message.contains('\n'),
            "{message}"
        );
    }
}
