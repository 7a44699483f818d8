//! The rows of all files of a split, read when they are asked for.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::data_type::ByteArray;

use super::error::{Error, Result};
use super::json_lines::JsonLines;
use super::limits::DatasetLimits;
use super::locate::locate;
use super::parquet_file::{ParquetFile, Row, RowGroup};

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
    limits: DatasetLimits,
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
    content: Content,
}

enum Content {
    Parquet(Box<ParquetFile>),
    JsonLines(JsonLines),
}

/// Unpacked row groups by block, the newest last.
#[derive(Default)]
struct Cache {
    groups: VecDeque<(usize, Arc<RowGroup>)>,
}

impl Dataset {
    /// Opens a .parquet or .jsonl file, or a folder of them; `path@split` picks the files whose names start with `split`.
    /// Reads footers and counts lines, no rows.
    ///
    /// # Errors
    /// No such path or split; a malformed file; a file beyond the limits; a missing column; no rows.
    pub fn open(spec: &str, limits: &DatasetLimits) -> Result<Self> {
        let mut dataset = Self {
            limits: *limits,
            blocks: Vec::new(),
            files: Vec::new(),
            len: 0,
            cache: Mutex::default(),
        };
        for path in locate(spec, limits)? {
            dataset.add(path)?;
        }
        if dataset.len == 0 {
            return Err(Error::NotFound {
                path: spec.to_owned(),
                reason: "its files have no rows".to_owned(),
            });
        }
        Ok(dataset)
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let is_parquet = path
            .extension()
            .is_some_and(|extension| extension == "parquet");
        let (content, groups) = if is_parquet {
            let file = ParquetFile::open(&path, &self.limits)?;
            let groups = file.group_rows().to_vec();
            (Content::Parquet(Box::new(file)), groups)
        } else {
            let file = JsonLines::open(&path, &self.limits)?;
            let rows = file.len();
            (Content::JsonLines(file), vec![rows])
        };
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
        self.files.push(DataFile { path, content });
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

    /// Reads row `index`.
    ///
    /// # Errors
    /// [`Error::Sample`] when only this row is bad (see [`Error::is_sample`]): skip it, count it, name it.
    pub fn get(&self, index: usize) -> Result<Sample> {
        let outside = Error::Index {
            index,
            len: self.len,
        };
        let block_index = self
            .blocks
            .partition_point(|block| block.start <= index)
            .checked_sub(1);
        let Some((block_index, block)) =
            block_index.and_then(|at| Some((at, self.blocks.get(at)?)))
        else {
            return Err(outside);
        };
        let row = index - block.start;
        let Some(file) = self.files.get(block.file).filter(|_| row < block.rows) else {
            return Err(outside);
        };
        let name = name_of(&file.path, block.start_in_file + row);
        let sample = match &file.content {
            Content::JsonLines(lines) => lines.get(row, name, &self.limits)?,
            Content::Parquet(parquet) => {
                let group = self.group(block_index, parquet, block.group)?;
                let row = group.rows.get(row).ok_or(outside)?;
                sample(row, name, &self.limits)?
            }
        };
        check(sample, &self.limits)
    }

    fn group(&self, block: usize, file: &ParquetFile, group: usize) -> Result<Arc<RowGroup>> {
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().find(block) {
            return Ok(found);
        }
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

fn name_of(path: &Path, row: usize) -> String {
    let file = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    format!("{file}#{row}")
}

fn sample(row: &Row, name: String, limits: &DatasetLimits) -> Result<Sample> {
    let id = match &row.id {
        Some(id) if id.len() <= 200 => String::from_utf8_lossy(id.data()).into_owned(),
        _ => name,
    };
    let text = |column: &str, value: Option<&ByteArray>| match value {
        None => Err(Error::sample(&id, format!("its {column} is null"))),
        Some(value) if value.len() > limits.max_text_bytes => Err(Error::sample(
            &id,
            format!(
                "its {column} has {} bytes, at most {} allowed",
                value.len(),
                limits.max_text_bytes
            ),
        )),
        Some(value) => String::from_utf8(value.data().to_vec())
            .map_err(|_| Error::sample(&id, format!("its {column} is not UTF-8"))),
    };
    if row.images.len() > limits.max_images {
        return Err(Error::sample(
            &id,
            format!(
                "{} images, at most {} allowed",
                row.images.len(),
                limits.max_images
            ),
        ));
    }
    let image = |(number, image): (usize, &Option<ByteArray>)| match image {
        None => Err(Error::sample(&id, format!("image {number} has no bytes"))),
        Some(image) if image.len() > limits.max_image_bytes => Err(Error::sample(
            &id,
            format!(
                "image {number} has {} bytes, at most {} allowed",
                image.len(),
                limits.max_image_bytes
            ),
        )),
        Some(image) => Ok(image.data().to_vec()),
    };
    let problem = text("problem", row.problem.as_ref())?;
    let answer = text("answer", row.answer.as_ref())?;
    let solution = row
        .solution
        .as_ref()
        .map(|solution| text("solution", Some(solution)))
        .transpose()?;
    let images = row
        .images
        .iter()
        .enumerate()
        .map(image)
        .collect::<Result<_>>()?;
    Ok(Sample {
        id,
        problem,
        answer,
        solution,
        images,
    })
}

fn check(sample: Sample, limits: &DatasetLimits) -> Result<Sample> {
    let texts = [
        Some(&sample.problem),
        Some(&sample.answer),
        sample.solution.as_ref(),
    ];
    if texts
        .into_iter()
        .flatten()
        .any(|text| text.len() > limits.max_text_bytes)
    {
        return Err(Error::sample(
            &sample.id,
            format!("a text has more than {} bytes", limits.max_text_bytes),
        ));
    }
    if sample.answer.trim().is_empty() {
        return Err(Error::sample(&sample.id, "its answer is empty"));
    }
    Ok(sample)
}
