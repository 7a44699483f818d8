//! What `--data` says: one source, or several with weights.

use std::path::Path;

use super::error::{Error, Result};

/// Most visits of a row per epoch; more is a slip.
const MAX_WEIGHT: f64 = 1000.0;

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

/// Reads `SOURCE[@SPLIT][=WEIGHT],...`. A path that exists is taken as it is written, whatever signs it holds.
pub(super) fn parse(spec: &str) -> Result<Vec<Source>> {
    let refuse = |reason: String| Error::NotFound {
        path: spec.to_owned(),
        reason,
    };
    if Path::new(spec).exists() {
        return Ok(vec![source(spec, 1.0)]);
    }
    let mut sources = Vec::new();
    for item in spec.split(',').map(str::trim) {
        if item.is_empty() {
            return Err(refuse(
                "expected PATH, PATH@SPLIT or PATH=WEIGHT, several of them with commas between"
                    .to_owned(),
            ));
        }
        let weighted = item.rsplit_once('=').filter(|_| !Path::new(item).exists());
        sources.push(match weighted {
            None => source(item, 1.0),
            Some((front, weight)) => match weight.trim().parse::<f64>() {
                Ok(weight) if weight > 0.0 && weight <= MAX_WEIGHT => source(front.trim(), weight),
                _ => {
                    return Err(refuse(format!(
                        "the weight {weight:?} of {front}: expected a number above 0 and at most {MAX_WEIGHT}, the visits of each row per epoch"
                    )));
                }
            },
        });
    }
    Ok(sources)
}

fn source(text: &str, weight: f64) -> Source {
    let (path, split) = match text.rsplit_once('@') {
        Some((path, split)) if !Path::new(text).exists() => (path, Some(split.to_owned())),
        _ => (text, None),
    };
    Source {
        text: text.to_owned(),
        path: path.to_owned(),
        split,
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
}
