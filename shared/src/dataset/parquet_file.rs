//! One parquet file of problems. The schema of hiyouga/geometry3k is
//! `images: list<struct<bytes: binary, path: string>>`, `problem: string`, `answer: string`; that of TIGER-Lab/ViRL39K has `question`
//! and `image: list<string>`, paths of files.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Type as Physical;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::SerializedPageReader;

use super::columns::{Columns, Leaf};
use super::error::{Error, Result};
use super::footer::{check_footer, read_footer};
use super::keys::DataKeys;
use super::limits::DatasetLimits;
use super::pages::{ChunkSize, check_chunk};
use super::row::{ImageCell, Row};
use super::summary::Column;
use super::window::Window;

/// An open file of problems.
pub(super) struct ParquetFile {
    raw: RawFile,
    columns: Columns,
}

/// An open file of whatever columns, whose footer was checked.
pub(super) struct RawFile {
    path: PathBuf,
    file: File,
    file_bytes: u64,
    metadata: ParquetMetaData,
    /// Rows of each row group.
    group_rows: Vec<usize>,
}

/// The rows of one row group; texts and images are slices of its unpacked pages.
pub(super) struct RowGroup {
    pub(super) rows: Vec<Row>,
    /// What its pages take in memory.
    pub(super) bytes: usize,
}

impl RawFile {
    pub(super) fn open(path: &Path, limits: &DatasetLimits) -> Result<Self> {
        let file = File::open(path).map_err(Error::read(path))?;
        let file_bytes = file.metadata().map_err(Error::read(path))?.len();
        let footer = read_footer(path, &file, file_bytes, limits)?;
        check_footer(&footer).map_err(|reason| Error::malformed(path, reason))?;
        let metadata = guard(path, || {
            ParquetMetaDataReader::decode_metadata(&footer).map_err(|e| e.to_string())
        })?;
        let mut group_rows = Vec::with_capacity(metadata.num_row_groups());
        for group in metadata.row_groups() {
            let rows = usize::try_from(group.num_rows())
                .map_err(|_| Error::malformed(path, "a row group has a negative size"))?;
            if rows > limits.max_rows {
                return Err(Error::limit(path, "rows", rows, limits.max_rows));
            }
            group_rows.push(rows);
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            file_bytes,
            metadata,
            group_rows,
        })
    }

    pub(super) fn group_rows(&self) -> &[usize] {
        &self.group_rows
    }

    pub(super) fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

impl ParquetFile {
    pub(super) fn open(path: &Path, keys: &DataKeys, limits: &DatasetLimits) -> Result<Self> {
        let raw = RawFile::open(path, limits)?;
        let columns = guard(path, || Ok(Columns::find(path, &raw.metadata, keys)))??;
        Ok(Self { raw, columns })
    }

    pub(super) fn group_rows(&self) -> &[usize] {
        self.raw.group_rows()
    }

    pub(super) fn summary(&self) -> Vec<Column> {
        self.columns.summary(&self.raw.metadata)
    }

    /// Reads and unpacks a row group.
    pub(super) fn load(&self, group: usize, limits: &DatasetLimits) -> Result<RowGroup> {
        let mut loading = Loading::new(&self.raw, group, limits);
        let columns = &self.columns;
        let images = loading.images(columns)?;
        let problems = loading.texts(columns.problem)?;
        let answers = loading.texts(columns.answer)?;
        let solutions = columns
            .solution
            .map(|leaf| loading.texts(leaf))
            .transpose()?;
        let ids = columns.id.map(|leaf| loading.texts(leaf)).transpose()?;
        let mut rows: Vec<Row> = problems
            .into_iter()
            .zip(answers)
            .map(|(problem, answer)| Row {
                problem,
                answer,
                ..Row::default()
            })
            .collect();
        for (row, images) in rows.iter_mut().zip(images) {
            row.images = images;
        }
        for (row, solution) in rows.iter_mut().zip(solutions.into_iter().flatten()) {
            row.solution = solution;
        }
        for (row, id) in rows.iter_mut().zip(ids.into_iter().flatten()) {
            row.id = id;
        }
        Ok(RowGroup {
            rows,
            bytes: loading.bytes,
        })
    }
}

/// One row group on its way into memory.
pub(super) struct Loading<'a> {
    file: &'a RawFile,
    group: usize,
    limits: &'a DatasetLimits,
    bytes: usize,
}

impl<'a> Loading<'a> {
    pub(super) fn new(file: &'a RawFile, group: usize, limits: &'a DatasetLimits) -> Self {
        Self {
            file,
            group,
            limits,
            bytes: 0,
        }
    }

    /// The images of each row. Paths are read where bytes are missing.
    fn images(&mut self, columns: &Columns) -> Result<Vec<Vec<ImageCell>>> {
        let (images, image_paths) = (columns.images, columns.image_paths);
        let (bytes, paths) = match (images, image_paths) {
            (None, None) => return Ok(Vec::new()),
            (Some(leaf), _) => (Some(self.entries::<ByteArrayType>(leaf)?), image_paths),
            (None, paths) => (None, paths),
        };
        // Of a struct without a list a null in one field is no entry, not an empty one.
        let is_whole = bytes.as_ref().is_some_and(|rows| {
            let mut rows = rows.iter();
            rows.all(|row| !row.is_empty() && row.iter().all(Option::is_some))
        });
        let paths = match paths {
            Some(leaf) if !is_whole => Some(self.entries::<ByteArrayType>(leaf)?),
            _ => None,
        };
        let cell = |bytes: Option<ByteArray>, path: Option<ByteArray>| match (bytes, path) {
            (Some(bytes), _) => ImageCell::Bytes(bytes),
            (None, Some(path)) => ImageCell::Path(path),
            (None, None) => ImageCell::Null,
        };
        let by_bytes =
            |row: Vec<Option<ByteArray>>| row.into_iter().map(|b| cell(b, None)).collect();
        let by_path =
            |row: Vec<Option<ByteArray>>| row.into_iter().map(|p| cell(None, p)).collect();
        Ok(match (bytes, paths) {
            (Some(bytes), None) => bytes.into_iter().map(by_bytes).collect(),
            (None, paths) => paths.into_iter().flatten().map(by_path).collect(),
            (Some(bytes), Some(paths)) => bytes
                .into_iter()
                .zip(paths)
                .map(|(bytes, paths)| {
                    let num = bytes.len().max(paths.len());
                    let bytes = bytes.into_iter().chain(std::iter::repeat(None));
                    let paths = paths.into_iter().chain(std::iter::repeat(None));
                    let cells = bytes.zip(paths).take(num);
                    cells.map(|(bytes, path)| cell(bytes, path)).collect()
                })
                .collect(),
        })
    }

    /// One value per row.
    pub(super) fn texts(&mut self, leaf: Leaf) -> Result<Vec<Option<ByteArray>>> {
        fn first<T>(rows: Vec<Vec<Option<T>>>) -> impl Iterator<Item = Option<T>> {
            rows.into_iter().map(|row| row.into_iter().next().flatten())
        }
        let text = |number: String| ByteArray::from(number.into_bytes());
        Ok(match leaf.physical {
            Physical::INT32 => first(self.entries::<Int32Type>(leaf)?)
                .map(|n| n.map(|n| text(n.to_string())))
                .collect(),
            Physical::INT64 => first(self.entries::<Int64Type>(leaf)?)
                .map(|n| n.map(|n| text(n.to_string())))
                .collect(),
            Physical::FLOAT => first(self.entries::<FloatType>(leaf)?)
                .map(|n| n.map(|n| text(n.to_string())))
                .collect(),
            Physical::DOUBLE => first(self.entries::<DoubleType>(leaf)?)
                .map(|n| n.map(|n| text(n.to_string())))
                .collect(),
            _ => first(self.entries::<ByteArrayType>(leaf)?).collect(),
        })
    }

    /// The entries of each row.
    pub(super) fn entries<D: DataType>(&mut self, leaf: Leaf) -> Result<Vec<Vec<Option<D::T>>>> {
        let RawFile {
            path,
            metadata,
            group_rows,
            ..
        } = self.file;
        let malformed = |reason: &str| Error::malformed(path, reason);
        let group = metadata
            .row_groups()
            .get(self.group)
            .ok_or_else(|| malformed("no such row group"))?;
        let column = group
            .columns()
            .get(leaf.index)
            .ok_or_else(|| malformed("a row group lacks a column"))?;
        let rows = group_rows.get(self.group).copied().unwrap_or_default();

        let start = column
            .dictionary_page_offset()
            .unwrap_or_else(|| column.data_page_offset());
        let range = u64::try_from(start)
            .ok()
            .zip(usize::try_from(column.compressed_size()).ok());
        let Some((start, length)) = range else {
            return Err(malformed("a column chunk lies outside of the file"));
        };
        let chunk = self.read(start, length)?;
        let size = check_chunk(&chunk, column.compression(), self.limits)
            .map_err(|reason| malformed(&reason))?;
        self.add(size)?;

        let window = Arc::new(Window::new(start, Bytes::from(chunk)));
        let descriptor = column.column_descr_ptr();
        let (max_definition, max_repetition) =
            (descriptor.max_def_level(), descriptor.max_rep_level());
        guard(path, || {
            let pages =
                SerializedPageReader::new(window, column, rows, None).map_err(|e| e.to_string())?;
            let mut reader = ColumnReaderImpl::<D>::new(descriptor, Box::new(pages));
            let (mut definitions, mut repetitions, mut values) =
                (Vec::new(), Vec::new(), Vec::new());
            let mut levels = 0;
            let mut left = rows;
            while left > 0 {
                let definitions = (max_definition > 0).then_some(&mut definitions);
                let repetitions = (max_repetition > 0).then_some(&mut repetitions);
                let (records, _, more) = reader
                    .read_records(left, definitions, repetitions, &mut values)
                    .map_err(|e| e.to_string())?;
                if records == 0 || records > left {
                    return Err("a column chunk has not as many rows as its row group".to_owned());
                }
                levels += more;
                left -= records;
            }
            definitions.resize(levels, max_definition);
            repetitions.resize(levels, 0);
            assemble(
                leaf,
                max_definition,
                &definitions,
                &repetitions,
                values,
                rows,
            )
        })
    }

    fn add(&mut self, size: ChunkSize) -> Result<()> {
        // 64 bytes: a value's handle, its levels, its share of its row.
        self.bytes = self
            .bytes
            .saturating_add(size.bytes)
            .saturating_add(size.values.saturating_mul(64));
        let most = self.limits.max_row_group_bytes;
        if self.bytes > most {
            Err(Error::limit(
                &self.file.path,
                "bytes of a row group",
                self.bytes,
                most,
            ))
        } else {
            Ok(())
        }
    }

    fn read(&self, start: u64, length: usize) -> Result<Vec<u8>> {
        let RawFile {
            path,
            file,
            file_bytes,
            ..
        } = self.file;
        if length > self.limits.max_row_group_bytes {
            return Err(Error::limit(
                path,
                "bytes of a column chunk",
                length,
                self.limits.max_row_group_bytes,
            ));
        }
        if start
            .checked_add(length as u64)
            .is_none_or(|end| end > *file_bytes)
        {
            return Err(Error::malformed(
                path,
                "a column chunk lies outside of the file",
            ));
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, start)
            .map_err(Error::read(path))?;
        Ok(bytes)
    }
}

/// Dremel levels to rows: repetition 0 starts a row.
fn assemble<T>(
    leaf: Leaf,
    max_definition: i16,
    definitions: &[i16],
    repetitions: &[i16],
    values: Vec<T>,
    num_rows: usize,
) -> Result<Vec<Vec<Option<T>>>, String> {
    let mut values = values.into_iter();
    let mut rows: Vec<Vec<Option<T>>> = Vec::with_capacity(num_rows);
    for (&definition, &repetition) in definitions.iter().zip(repetitions) {
        if repetition == 0 {
            rows.push(Vec::new());
        }
        let row = rows
            .last_mut()
            .ok_or("a column chunk starts in the middle of a row")?;
        if definition == max_definition {
            row.push(Some(
                values
                    .next()
                    .ok_or("a column chunk has fewer values than it declares")?,
            ));
        } else if definition >= leaf.entry_level {
            row.push(None);
        }
    }
    if rows.len() == num_rows {
        Ok(rows)
    } else {
        Err("a column chunk has not as many rows as its row group".to_owned())
    }
}

/// Turns what the parquet crate says into our error; were it to panic on a file that passed our checks, that as well.
fn guard<T>(path: &Path, work: impl FnOnce() -> Result<T, String>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|reason| Error::malformed(path, reason)),
        Err(_) => Err(Error::malformed(path, "the parquet decoder gave up")),
    }
}
