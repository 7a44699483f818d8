//! The rows of all files of a split, read when they are asked for.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{Error, Result};
use super::hub::Hub;
use super::image_folder::ImageFolder;
use super::inter_gps::InterGps;
use super::json_lines::JsonLines;
use super::keys::DataKeys;
use super::limits::DatasetLimits;
use super::locate::{Found, locate};
use super::parquet_file::{ParquetFile, RowGroup};
use super::row::check;
use super::spec;
use super::summary::{FileSummary, Part};

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The row's own id, or `FILE#ROW` with rows counted from 0.
    pub id: String,
    /// The question, with one `<image>` per image.
    pub problem: String,
    /// The right answer, as the data set writes it.
    pub answer: String,
    /// A worked solution, for supervised training.
    pub solution: Option<String>,
    /// Encoded images (PNG, JPEG, ...), not yet looked at.
    pub images: Vec<Vec<u8>>,
}

/// An open data set. Shared between threads by reference.
pub struct Dataset {
    keys: DataKeys,
    limits: DatasetLimits,
    parts: Vec<Part>,
    blocks: Vec<Block>,
    files: Vec<DataFile>,
    len: usize,
    cache: Mutex<Cache>,
}

/// Rows that are read together: a parquet row group, or a JSON lines file.
struct Block {
    /// Index of its first row in the data set.
    start: usize,
    /// And in its file.
    start_in_file: usize,
    rows: usize,
    file: usize,
    group: usize,
}

struct DataFile {
    path: PathBuf,
    images: ImageFolder,
    content: Content,
}

enum Content {
    Parquet(Box<ParquetFile>),
    JsonLines(JsonLines),
    InterGps(InterGps),
}

/// Unpacked row groups by block, the newest last.
#[derive(Default)]
struct Cache {
    groups: VecDeque<(usize, Arc<RowGroup>)>,
}

impl Dataset {
    /// Opens what `spec` names: a .parquet or .jsonl file, a folder of them, or a name on the hub; `path@split` picks the
    /// files whose names start with `split`; several with commas between are one data set, `=WEIGHT` behind one says how
    /// often an epoch visits its rows (see [`Dataset::parts`]). Reads footers and counts lines, no rows.
    ///
    /// # Errors
    /// No such path or split; a malformed file; a file beyond the limits; a missing column; no rows.
    pub fn open(spec: &str, limits: &DatasetLimits) -> Result<Self> {
        Self::open_with(spec, &DataKeys::default(), limits)
    }

    /// The same with columns of other names.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_with(spec: &str, keys: &DataKeys, limits: &DatasetLimits) -> Result<Self> {
        let mut dataset = Self {
            keys: keys.clone(),
            limits: *limits,
            parts: Vec::new(),
            blocks: Vec::new(),
            files: Vec::new(),
            len: 0,
            cache: Mutex::default(),
        };
        let hub = Hub::from_env();
        let mut num_visits = 0;
        for source in spec::parse(spec)? {
            let start = dataset.len;
            match locate(&source, &hub, limits)? {
                Found::Files(files) => files.into_iter().try_for_each(|file| dataset.add(file))?,
                Found::Folder(folder) => dataset.add_folder(folder)?,
            }
            let rows = dataset.len - start;
            if rows == 0 {
                return Err(Error::NotFound {
                    path: source.text,
                    reason: "its files have no rows".to_owned(),
                });
            }
            let visits = visits(rows, source.weight);
            num_visits += visits;
            if num_visits > limits.max_rows {
                return Err(Error::NotFound {
                    path: spec.to_owned(),
                    reason: format!(
                        "its weights make an epoch of more than {} rows",
                        limits.max_rows
                    ),
                });
            }
            dataset.parts.push(Part {
                source: source.text,
                start,
                rows,
                visits,
            });
        }
        Ok(dataset)
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let is_parquet = path
            .extension()
            .is_some_and(|extension| extension == "parquet");
        let (content, groups) = if is_parquet {
            let file = ParquetFile::open(&path, &self.keys, &self.limits)?;
            let groups = file.group_rows().to_vec();
            (Content::Parquet(Box::new(file)), groups)
        } else {
            let file = JsonLines::open(&path, &self.keys, &self.limits)?;
            let rows = file.len();
            (Content::JsonLines(file), vec![rows])
        };
        self.add_blocks(path, content, groups)
    }

    fn add_folder(&mut self, path: PathBuf) -> Result<()> {
        let folder = InterGps::open(&path, &self.limits)?.ok_or_else(|| Error::NotFound {
            path: path.display().to_string(),
            reason:
                "the folder holds no .parquet or .jsonl file, nor numbered folders with a data.json"
                    .to_owned(),
        })?;
        let rows = folder.len();
        self.add_blocks(path, Content::InterGps(folder), vec![rows])
    }

    fn add_blocks(&mut self, path: PathBuf, content: Content, groups: Vec<usize>) -> Result<()> {
        let mut start_in_file = 0;
        for (group, rows) in groups.into_iter().enumerate() {
            if rows > self.limits.max_rows - self.len {
                return Err(Error::limit(
                    &path,
                    "rows of the data set",
                    "more",
                    self.limits.max_rows,
                ));
            }
            if rows > 0 {
                self.blocks.push(Block {
                    start: self.len,
                    start_in_file,
                    rows,
                    file: self.files.len(),
                    group,
                });
            }
            self.len += rows;
            start_in_file += rows;
        }
        let images = ImageFolder::new(&path, self.keys.image_dir.as_deref());
        self.files.push(DataFile {
            path,
            images,
            content,
        });
        Ok(())
    }

    /// Number of rows, the bad ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a data set without rows does not open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sources, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The files, with their columns.
    #[must_use]
    pub fn files(&self) -> Vec<FileSummary> {
        let files = self.files.iter().enumerate();
        files
            .map(|(number, file)| {
                let blocks = self.blocks.iter().filter(|block| block.file == number);
                let (format, columns) = match &file.content {
                    Content::Parquet(parquet) => ("parquet", parquet.summary()),
                    Content::JsonLines(lines) => {
                        ("json lines", lines.columns(&self.keys, &self.limits))
                    }
                    Content::InterGps(_) => ("folders", Vec::new()),
                };
                FileSummary {
                    path: file.path.clone(),
                    format,
                    rows: blocks.map(|block| block.rows).sum(),
                    columns,
                }
            })
            .collect()
    }

    /// What a message calls a row: its id, and `FILE#ROW` behind it where the id is one of its own.
    #[must_use]
    pub fn label(&self, index: usize, id: &str) -> String {
        match self.place(index) {
            Ok((_, _, _, name)) if name != id => format!("{id} ({name})"),
            _ => id.to_owned(),
        }
    }

    /// Reads row `index`.
    ///
    /// # Errors
    /// [`Error::Sample`] when only this row is bad (see [`Error::is_sample`]): skip it, count it, name it.
    pub fn get(&self, index: usize) -> Result<Sample> {
        let (block, file, row, name) = self.place(index)?;
        let sample = match &file.content {
            Content::JsonLines(lines) => {
                lines.get(row, name, (&self.keys, &file.images, &self.limits))
            }
            Content::InterGps(folders) => folders.get(row, &self.limits),
            Content::Parquet(parquet) => {
                let group = self.group(block, parquet)?;
                let row = group.rows.get(row).ok_or_else(|| self.outside(index))?;
                row.sample(name, &file.images, &self.limits)
            }
        };
        let sample = sample.and_then(|sample| check(sample, &self.limits));
        sample.map_err(|error| match error {
            Error::Sample { id, reason } => Error::Sample {
                id: self.label(index, &id),
                reason,
            },
            other => other,
        })
    }

    /// Block, file, row in its block, and name of a row.
    fn place(&self, index: usize) -> Result<(usize, &DataFile, usize, String)> {
        let block_index = self
            .blocks
            .partition_point(|block| block.start <= index)
            .checked_sub(1);
        let found = block_index.and_then(|at| Some((at, self.blocks.get(at)?)));
        let (at, block) = found.ok_or_else(|| self.outside(index))?;
        let row = index - block.start;
        let file = self.files.get(block.file).filter(|_| row < block.rows);
        let file = file.ok_or_else(|| self.outside(index))?;
        let name = match &file.content {
            Content::InterGps(folders) => folders.name(row),
            _ => name_of(&file.path, block.start_in_file + row),
        };
        Ok((at, file, row, name))
    }

    fn outside(&self, index: usize) -> Error {
        Error::Index {
            index,
            len: self.len,
        }
    }

    fn group(&self, block: usize, file: &ParquetFile) -> Result<Arc<RowGroup>> {
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().find(block) {
            return Ok(found);
        }
        let group = self.blocks.get(block).map_or(0, |block| block.group);
        // Not under the lock: other threads may find theirs meanwhile. Two may read the same group; both copies are right.
        let loaded = Arc::new(file.load(group, &self.limits)?);
        lock().insert(block, Arc::clone(&loaded), self.limits.cache_bytes);
        Ok(loaded)
    }
}

impl Cache {
    fn find(&mut self, block: usize) -> Option<Arc<RowGroup>> {
        let position = self
            .groups
            .iter()
            .position(|(cached, _)| *cached == block)?;
        let entry = self.groups.remove(position)?;
        let group = Arc::clone(&entry.1);
        self.groups.push_back(entry);
        Some(group)
    }

    fn insert(&mut self, block: usize, group: Arc<RowGroup>, most_bytes: usize) {
        self.groups.retain(|(cached, _)| *cached != block);
        self.groups.push_back((block, group));
        let mut bytes: usize = self.groups.iter().map(|(_, group)| group.bytes).sum();
        while bytes > most_bytes && self.groups.len() > 1 {
            bytes -= self.groups.pop_front().map_or(0, |(_, group)| group.bytes);
        }
    }
}

/// Rows of an epoch. A weight is at most 1000 and so is its product with the rows below 2^53.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a positive number of at most 10^10, rounded"
)]
fn visits(rows: usize, weight: f64) -> usize {
    ((rows as f64 * weight).round() as usize).max(1)
}

/// `FILE#ROW`.
fn name_of(path: &Path, row: usize) -> String {
    let file = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    format!("{file}#{row}")
}
