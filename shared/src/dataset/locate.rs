//! Which files a `path@split` means.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::limits::DatasetLimits;

/// The data files of `spec`, in the order of their names.
///
/// `spec` is a file or a folder, with an optional `@split` behind it. A folder's files may also lie in its subfolder `data`,
/// as on the hub; a split is what a file's name starts with: `train.parquet`, `train-00000-of-00002.parquet`.
pub(super) fn locate(spec: &str, limits: &DatasetLimits) -> Result<Vec<PathBuf>> {
    let (path, split) = match spec.rsplit_once('@') {
        Some((path, split)) if !Path::new(spec).exists() => (Path::new(path), Some(split)),
        _ => (Path::new(spec), None),
    };
    let not_found = |reason: String| Error::NotFound {
        path: spec.to_owned(),
        reason,
    };
    let metadata =
        fs::metadata(path).map_err(|error| not_found(format!("{}: {error}", path.display())))?;
    let mut files = if metadata.is_dir() {
        let direct = data_files(path, limits)?;
        if direct.is_empty() {
            data_files(&path.join("data"), limits)?
        } else {
            direct
        }
    } else if is_data_file(path) {
        vec![path.to_owned()]
    } else {
        return Err(not_found("expected a .parquet or .jsonl file".to_owned()));
    };
    files.sort();
    if files.is_empty() {
        return Err(not_found(
            "the folder holds no .parquet or .jsonl file".to_owned(),
        ));
    }
    let mut splits: Vec<String> = files.iter().map(|file| split_of(file).to_owned()).collect();
    splits.sort();
    splits.dedup();
    match split {
        Some(split) => {
            files.retain(|file| belongs(split_of(file), split));
            if files.is_empty() {
                return Err(not_found(format!(
                    "no split {split:?}; there is {}",
                    splits.join(", ")
                )));
            }
        }
        // Training on the test split by accident would be worse than a question.
        None if splits.len() > 1 => {
            return Err(not_found(format!(
                "the folder holds several splits; name one of them as {spec}@{}",
                splits.join(" or @")
            )));
        }
        None => {}
    }
    Ok(files)
}

fn data_files(folder: &Path, limits: &DatasetLimits) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::read(folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::read(folder))?.path();
        if is_data_file(&path) && path.is_file() {
            files.push(path);
        }
        if files.len() > limits.max_files {
            return Err(Error::limit(
                folder,
                "data files in one folder",
                "more",
                limits.max_files,
            ));
        }
    }
    Ok(files)
}

fn is_data_file(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "parquet" || extension == "jsonl")
}

/// `train` of `train-00000-of-00002.parquet`.
fn split_of(file: &Path) -> &str {
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match stem.rsplit_once("-of-") {
        Some((front, count)) if is_number(count) => match front.rsplit_once('-') {
            Some((split, index)) if is_number(index) => split,
            _ => stem,
        },
        _ => stem,
    }
}

/// `train` also picks `train_easy`, but not `trainer`.
fn belongs(name: &str, split: &str) -> bool {
    name.strip_prefix(split)
        .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_by_the_names_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        for name in [
            "train-00001-of-00002.parquet",
            "train-00000-of-00002.parquet",
            "test-00000-of-00001.parquet",
            "README.md",
        ] {
            fs::write(data.join(name), "").unwrap();
        }
        let root = folder.path().to_str().unwrap();
        let find = |spec: &str| locate(spec, &DatasetLimits::default());
        let names = |spec: &str| {
            find(spec)
                .unwrap()
                .iter()
                .map(|file| file.file_name().unwrap().to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(&format!("{root}@train")),
            [
                "train-00000-of-00002.parquet",
                "train-00001-of-00002.parquet"
            ]
        );
        assert_eq!(
            names(&format!("{root}/data@test")),
            ["test-00000-of-00001.parquet"]
        );
        assert_eq!(
            names(&format!("{root}/data/test-00000-of-00001.parquet")),
            ["test-00000-of-00001.parquet"]
        );
        let message = find(root).unwrap_err().to_string();
        assert!(message.contains("@test or @train"), "{message}");
        let message = find(&format!("{root}@validation")).unwrap_err().to_string();
        assert!(message.contains("there is test, train"), "{message}");
        assert!(find(&format!("{root}/data/README.md")).is_err());
        assert!(find("/nowhere").is_err());
        assert!(find("").is_err());
        assert_eq!(split_of(Path::new("a/train.parquet")), "train");
        assert!(belongs("train_easy", "train") && !belongs("trainer", "train"));
    }
}
