//! Which files a source means.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::error::{Error, Result};
use super::hub::Hub;
use super::hub_name::HubName;
use super::limits::DatasetLimits;
use super::spec::Source;

/// Splits by the names that they have in the field; a folder that names none of them is all training data.
const USUAL_SPLITS: [&str; 7] = [
    "train",
    "test",
    "testmini",
    "validation",
    "valid",
    "val",
    "dev",
];

/// What is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Data files, in the order of their names.
    Files(Vec<PathBuf>),
    /// A folder that may hold a folder per problem.
    Folder(PathBuf),
}

/// The data files of a source: a file, a folder, or a name on the hub, perhaps with a split.
///
/// A folder's files may also lie in its subfolder `data`, as on the hub, or in a folder per split; a split is what a file's
/// name starts with: `train.parquet`, `train-00000-of-00002.parquet`.
pub(super) fn locate(source: &Source, hub: &Hub, limits: &DatasetLimits) -> Result<Found> {
    let path = Path::new(&source.path);
    let not_found = |reason: String| Error::NotFound {
        path: source.text.clone(),
        reason,
    };
    let split = source.split.as_deref();
    let metadata = match (fs::metadata(path), HubName::of(&source.path)) {
        (Err(error), Some(name)) if error.kind() == std::io::ErrorKind::NotFound => {
            return hub
                .files(name, split, limits)
                .map(Found::Files)
                .map_err(not_found);
        }
        (metadata, _) => {
            metadata.map_err(|error| not_found(format!("{}: {error}", path.display())))?
        }
    };
    if !metadata.is_dir() {
        return match split {
            _ if !is_data_file(path) => {
                Err(not_found("expected a .parquet or .jsonl file".to_owned()))
            }
            Some(split) if !belongs(stem_split(path), split) => Err(not_found(format!(
                "a split is chosen among the files of a folder; this file is {}",
                stem_split(path)
            ))),
            _ => Ok(Found::Files(vec![path.to_owned()])),
        };
    }
    let files = candidates(path, limits)?;
    if files.is_empty() {
        let folder = match split {
            Some(split) => path.join(split),
            None => path.to_owned(),
        };
        return if folder.is_dir() {
            Ok(Found::Folder(folder))
        } else {
            Err(not_found(
                "the folder holds no .parquet or .jsonl file".to_owned(),
            ))
        };
    }
    let files = pick(files, &source.path, split).map_err(not_found)?;
    Ok(Found::Files(
        files.iter().map(|file| path.join(file)).collect(),
    ))
}

/// The data files in `folder`, relative to it: its own, else those in `data`, else those one folder down.
pub(super) fn candidates(folder: &Path, limits: &DatasetLimits) -> Result<Vec<PathBuf>> {
    let own = data_files(folder, Path::new(""), limits)?;
    if !own.is_empty() {
        return Ok(own);
    }
    let below = data_files(folder, Path::new("data"), limits)?;
    if !below.is_empty() {
        return Ok(below);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::read(folder))? {
        let entry = entry.map_err(Error::read(folder))?;
        if entry.path().is_dir() {
            files.extend(data_files(folder, Path::new(&entry.file_name()), limits)?);
        }
        check_count(folder, files.len(), limits)?;
    }
    Ok(files)
}

/// Of the paths in a repository those that [`candidates`] finds once they are here.
pub(super) fn candidates_of<'a>(paths: impl Iterator<Item = &'a str> + Clone) -> Vec<PathBuf> {
    let data = paths
        .map(Path::new)
        .filter(|path| is_data_file(path))
        .filter(|path| {
            path.components()
                .all(|part| matches!(part, Component::Normal(_)))
        });
    let at = |wanted: fn(&Path) -> bool| -> Vec<PathBuf> {
        data.clone()
            .filter(|path| path.parent().is_some_and(wanted))
            .map(Path::to_owned)
            .collect()
    };
    let tiers: [fn(&Path) -> bool; 3] = [
        |parent| parent == Path::new(""),
        |parent| parent == Path::new("data"),
        |parent| parent.components().count() == 1,
    ];
    let found = tiers.into_iter().map(at).find(|files| !files.is_empty());
    found.unwrap_or_default()
}

/// The files of one split, sorted.
pub(super) fn pick(
    mut files: Vec<PathBuf>,
    path: &str,
    split: Option<&str>,
) -> Result<Vec<PathBuf>, String> {
    files.sort();
    if files.is_empty() {
        return Err("it holds no .parquet or .jsonl file".to_owned());
    }
    let mut splits: Vec<String> = files.iter().map(|file| split_of(file).to_owned()).collect();
    splits.sort();
    splits.dedup();
    let names_none = || {
        splits
            .iter()
            .all(|name| USUAL_SPLITS.iter().all(|usual| !belongs(name, usual)))
    };
    match split {
        Some("train") if names_none() => {}
        Some(split) => {
            files.retain(|file| belongs(split_of(file), split));
            if files.is_empty() {
                return Err(format!(
                    "no split {split:?}; there is {}",
                    splits.join(", ")
                ));
            }
        }
        // Training on the test split by accident would be worse than a question.
        None if splits.len() > 1 => {
            return Err(format!(
                "there are several splits; name one of them as {path}@{}",
                splits.join(" or @")
            ));
        }
        None => {}
    }
    Ok(files)
}

fn data_files(root: &Path, below: &Path, limits: &DatasetLimits) -> Result<Vec<PathBuf>> {
    let folder = root.join(below);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::read(&folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::read(&folder))?;
        if is_data_file(&entry.path()) && entry.path().is_file() {
            files.push(below.join(entry.file_name()));
        }
        check_count(&folder, files.len(), limits)?;
    }
    Ok(files)
}

fn check_count(folder: &Path, count: usize, limits: &DatasetLimits) -> Result<()> {
    if count > limits.max_files {
        return Err(Error::limit(
            folder,
            "data files in one folder",
            "more",
            limits.max_files,
        ));
    }
    Ok(())
}

fn is_data_file(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "parquet" || extension == "jsonl")
}

/// The split of a path relative to the data set's folder.
pub(super) fn split_of(file: &Path) -> &str {
    match file.parent().and_then(Path::to_str) {
        None | Some("" | "data") => stem_split(file),
        Some(folder) => folder,
    }
}

/// `train` of `train-00000-of-00002.parquet`.
fn stem_split(file: &Path) -> &str {
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    shard(stem).map_or(stem, |(split, ..)| split)
}

/// `train`, 0 and 2 of `train-00000-of-00002`.
pub(super) fn shard(stem: &str) -> Option<(&str, usize, usize)> {
    let (front, count) = stem.rsplit_once("-of-")?;
    let (split, index) = front.rsplit_once('-')?;
    Some((split, index.parse().ok()?, count.parse().ok()?))
}

/// `train` also picks `train_easy`, but not `trainer`.
fn belongs(name: &str, split: &str) -> bool {
    name.strip_prefix(split)
        .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::spec::parse;

    fn find(spec: &str) -> Result<Found> {
        let source = parse(spec)?.remove(0);
        locate(
            &source,
            &Hub::offline(Path::new("/nowhere")),
            &DatasetLimits::default(),
        )
    }

    fn names(spec: &str) -> Vec<String> {
        let Found::Files(files) = find(spec).unwrap() else {
            panic!("no files: {spec}")
        };
        files
            .iter()
            .map(|file| file.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

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
        for split in ["", "@test"] {
            assert_eq!(
                names(&format!("{root}/data/test-00000-of-00001.parquet{split}")),
                ["test-00000-of-00001.parquet"]
            );
        }
        let message = find(root).unwrap_err().to_string();
        assert!(message.contains("@test or @train"), "{message}");
        let message = find(&format!("{root}@validation")).unwrap_err().to_string();
        assert!(message.contains("there is test, train"), "{message}");
        let message = find(&format!("{root}/data/test-00000-of-00001.parquet@train"))
            .unwrap_err()
            .to_string();
        assert!(message.ends_with("this file is test"), "{message}");
        assert!(find(&format!("{root}/data/README.md")).is_err());
        assert!(find("/nowhere").is_err());
        assert_eq!(stem_split(Path::new("a/train.parquet")), "train");
        assert!(belongs("train_easy", "train") && !belongs("trainer", "train"));
    }

    #[test]
    fn folders_that_are_splits_and_files_that_name_none() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        for split in ["train", "test"] {
            fs::create_dir(folder.path().join(split)).unwrap();
            let name = format!("{split}/{split}0.parquet");
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(names(&format!("{root}@test")), ["test0.parquet"]);
        assert!(find(root).is_err());
        // TIGER-Lab/ViRL39K is one file of another name; @train means it all the same, @test does not.
        fs::write(folder.path().join("39Krelease.parquet"), "").unwrap();
        assert_eq!(names(&format!("{root}@train")), ["39Krelease.parquet"]);
        assert_eq!(names(root), ["39Krelease.parquet"]);
        assert!(find(&format!("{root}@test")).is_err());
    }

    #[test]
    fn a_repositorys_paths_are_chosen_like_a_folders() {
        let paths = [
            "README.md",
            "data/train-00000-of-00001.parquet",
            "x/y/z.parquet",
            "../a.parquet",
            "/b.parquet",
        ];
        assert_eq!(
            candidates_of(paths.into_iter()),
            [PathBuf::from("data/train-00000-of-00001.parquet")]
        );
        assert_eq!(
            candidates_of(["../a.parquet", "/b.parquet"].into_iter()),
            Vec::<PathBuf>::new()
        );
    }
}
