//! What came of a validation: a small file per policy version, written by a rollout and read by the learner.
//!
//! `runs/X/validation/v00000012.json`, and beside it `v00000012.jsonl`: every response with its verdict, as `rollout eval`
//! keeps them. The learner is told by the control page that they are there, never by the folder.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::PolicyVersion;
use crate::run_dir;

/// Larger files are none of these.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Greedy responses to a data set, and how good they were.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Validation {
    /// Of which weights.
    pub version: PolicyVersion,
    /// The announcement that they came with.
    pub publication: u64,
    /// The data set as it was named.
    pub data: String,
    /// Only so many of its first problems, if that was said.
    pub limit: Option<usize>,
    /// Fingerprint of the problems that were answered, with their right answers.
    pub problems: String,
    /// How many they are.
    pub num_problems: usize,
    /// Of them, those answered rightly.
    pub num_right: usize,
    /// Mean accuracy by the run's verifier, in [0, 1].
    pub accuracy: f64,
    /// Its 95 % interval.
    pub interval: [f64; 2],
    /// Share of responses that are well formed.
    pub well_formed: f64,
    /// Mean tokens per response.
    pub mean_response_tokens: f64,
    /// Responses that ended by themselves.
    pub finished_stop: usize,
    /// Responses that were cut.
    pub finished_length: usize,
    /// Rows that could not be used: they do not count.
    pub num_skipped: usize,
    /// The first few, with the reason.
    pub skipped: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Validation {
    /// Puts it into the run folder, whole or not at all.
    ///
    /// # Errors
    /// A file that cannot be written, or a figure that is no finite number: JSON has no word for those, and the learner would
    /// not read the file.
    pub fn write(&self, run_dir: &Path) -> Result<PathBuf> {
        let path = path(run_dir, self.version);
        if let Some((name, value)) = self.not_finite() {
            let reason = format!("its {name} is {value}, not a finite number");
            return Err(Error::io("write", &path)(std::io::Error::other(reason)));
        }
        let content = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::io("write", &path)(error.into()))?;
        run_dir::create_folder(&folder(run_dir))?;
        run_dir::replace_file(&path, &content)?;
        Ok(path)
    }

    /// That of a version.
    pub fn read(run_dir: &Path, version: PolicyVersion) -> Result<Self> {
        let path = path(run_dir, version);
        let read = || -> std::io::Result<Self> {
            let mut content = Vec::new();
            let file = fs::File::open(&path)?;
            file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)?;
            if content.len() as u64 > MAX_FILE_BYTES {
                return Err(std::io::Error::other("it is too long for a validation"));
            }
            let read: Self = serde_json::from_slice(&content)?;
            if read.version != version {
                let reason = format!("it is of {}, not of {version}", read.version);
                return Err(std::io::Error::other(reason));
            }
            if read.num_problems == 0 {
                return Err(std::io::Error::other("it answers no problem"));
            }
            Ok(read)
        };
        read().map_err(Error::io("read", &path))
    }

    /// The first figure that is none.
    fn not_finite(&self) -> Option<(&'static str, f64)> {
        let figures = [
            ("accuracy", self.accuracy),
            ("interval", self.interval[0]),
            ("interval", self.interval[1]),
            ("well_formed", self.well_formed),
            ("mean_response_tokens", self.mean_response_tokens),
            ("seconds", self.seconds),
        ];
        figures.into_iter().find(|(_, value)| !value.is_finite())
    }

    /// Whether both are about the same problems: else one figure says nothing about the other.
    #[must_use]
    pub fn is_comparable(&self, other: &Self) -> bool {
        self.problems == other.problems
    }

    /// For a person.
    #[must_use]
    pub fn line(&self) -> String {
        let [accuracy, low, high] =
            [self.accuracy, self.interval[0], self.interval[1]].map(|share| 100.0 * share);
        let skipped = match self.num_skipped {
            0 => String::new(),
            count => format!(" ({count} skipped)"),
        };
        format!(
            "accuracy {accuracy:.1} % ({low:.1} to {high:.1}) on {} problems{skipped}, {:.1} tokens per response, {:.1} s",
            self.num_problems, self.mean_response_tokens, self.seconds
        )
    }
}

/// The file of a version.
#[must_use]
pub fn path(run_dir: &Path, version: PolicyVersion) -> PathBuf {
    folder(run_dir).join(format!("v{:08}.json", version.0))
}

/// The file of its responses.
#[must_use]
pub fn responses_path(run_dir: &Path, version: PolicyVersion) -> PathBuf {
    path(run_dir, version).with_extension("jsonl")
}

/// All of a run that can be read, lowest version first.
pub fn read_all(run_dir: &Path) -> Result<Vec<Validation>> {
    let mut versions: Vec<PolicyVersion> = files(run_dir)?
        .into_iter()
        .filter(|(_, path)| path.extension().is_some_and(|kind| kind == "json"))
        .map(|(version, _)| version)
        .collect();
    versions.sort_unstable();
    let read = |version| Validation::read(run_dir, version).ok();
    Ok(versions.into_iter().filter_map(read).collect())
}

/// Removes those of `first` and later versions: the run goes on from before they were. The learner only.
pub fn forget(run_dir: &Path, first: PolicyVersion) -> Result<()> {
    for (version, path) in files(run_dir)? {
        if version >= first {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Every file of ours with its version.
fn files(run_dir: &Path) -> Result<Vec<(PolicyVersion, PathBuf)>> {
    let folder = folder(run_dir);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", &folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list", &folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(version) = name.and_then(version_of) {
            files.push((version, path));
        }
    }
    Ok(files)
}

/// The version of a file's name, if it is one of ours.
fn version_of(name: &str) -> Option<PolicyVersion> {
    let (stem, extension) = name.split_once('.')?;
    let digits = stem.strip_prefix('v').filter(|digits| digits.len() >= 8)?;
    let is_ours =
        matches!(extension, "json" | "jsonl") && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| is_ours).map(PolicyVersion)
}

fn folder(run_dir: &Path) -> PathBuf {
    run_dir.join("validation")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validation(version: u64) -> Validation {
        Validation {
            version: PolicyVersion(version),
            publication: version + 1,
            data: "test.parquet".to_owned(),
            limit: Some(10),
            problems: "a1".to_owned(),
            num_problems: 8,
            num_right: 4,
            accuracy: 0.5,
            interval: [0.25, 0.75],
            well_formed: 1.0,
            mean_response_tokens: 25.5,
            finished_stop: 7,
            finished_length: 1,
            num_skipped: 2,
            skipped: vec!["a: no image".to_owned()],
            seconds: 1.5,
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_came_later_is_forgotten() {
        let run = tempfile::tempdir().unwrap();
        forget(run.path(), PolicyVersion(0)).unwrap();
        assert_eq!(read_all(run.path()).unwrap(), []);
        for version in [4, 0, 2] {
            let written = validation(version);
            let path = written.write(run.path()).unwrap();
            fs::write(responses_path(run.path(), written.version), b"{}").unwrap();
            assert!(path.ends_with(format!("validation/v0000000{version}.json")));
            assert_eq!(
                Validation::read(run.path(), PolicyVersion(version)).unwrap(),
                written
            );
        }
        let others = ["v3.json", "notes", "v00000009.txt"];
        for name in others {
            fs::write(folder(run.path()).join(name), b"").unwrap();
        }
        fs::write(path(run.path(), PolicyVersion(9)), b"{}").unwrap(); // half a file
        let all = read_all(run.path()).unwrap();
        assert_eq!(all, [0, 2, 4].map(validation));
        forget(run.path(), PolicyVersion(2)).unwrap();
        assert_eq!(read_all(run.path()).unwrap(), [validation(0)]);
        let mut left: Vec<String> = fs::read_dir(folder(run.path()))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                "notes",
                "v00000000.json",
                "v00000000.jsonl",
                "v00000009.txt",
                "v3.json"
            ]
        );
        assert_eq!(
            validation(0).line(),
            "accuracy 50.0 % (25.0 to 75.0) on 8 problems (2 skipped), 25.5 tokens per response, 1.5 s"
        );
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let run = tempfile::tempdir().unwrap();
        let version = PolicyVersion(7);
        let said = |content: &[u8]| {
            run_dir::create_folder(&folder(run.path())).unwrap();
            fs::write(path(run.path(), version), content).unwrap();
            let error = Validation::read(run.path(), version).unwrap_err();
            assert!(error.to_string().contains("v00000007.json"), "{error}");
            std::error::Error::source(&error).unwrap().to_string()
        };
        let other = serde_json::to_vec(&validation(6)).unwrap();
        assert_eq!(said(&other), "it is of v6, not of v7");
        assert_eq!(
            said(&vec![b' '; 2 << 20]),
            "it is too long for a validation"
        );
        assert!(said(b"{}").contains("missing field"));
        let empty = Validation {
            num_problems: 0,
            ..validation(7)
        };
        assert_eq!(
            said(&serde_json::to_vec(&empty).unwrap()),
            "it answers no problem"
        );
        assert!(Validation::read(run.path(), PolicyVersion(8)).is_err());
    }

    #[test]
    fn a_figure_that_is_no_number_is_not_written() {
        let run = tempfile::tempdir().unwrap();
        type Change = fn(&mut Validation);
        let changes: [(&str, Change); 6] = [
            ("accuracy is NaN", |v| v.accuracy = f64::NAN),
            ("interval is -inf", |v| v.interval[0] = f64::NEG_INFINITY),
            ("interval is inf", |v| v.interval[1] = f64::INFINITY),
            ("well_formed is NaN", |v| v.well_formed = f64::NAN),
            ("mean_response_tokens is inf", |v| {
                v.mean_response_tokens = f64::INFINITY;
            }),
            ("seconds is NaN", |v| v.seconds = f64::NAN),
        ];
        for (said, change) in changes {
            let mut bad = validation(3);
            change(&mut bad);
            let error = bad.write(run.path()).unwrap_err();
            let reason = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(reason, format!("its {said}, not a finite number"));
            assert!(!folder(run.path()).exists(), "nothing is left behind");
        }
    }

    #[test]
    fn figures_of_other_problems_are_not_compared() {
        let first = validation(1);
        let mut other = Validation {
            accuracy: 0.9,
            seconds: 9.0,
            ..validation(2)
        };
        assert!(first.is_comparable(&other));
        other.data = "./test.parquet".to_owned(); // another name of the same
        assert!(first.is_comparable(&other));
        other.problems = "a2".to_owned();
        assert!(!first.is_comparable(&other));
    }
}
