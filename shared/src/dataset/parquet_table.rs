//! All columns of a parquet file: benchmarks are published with columns of their own. Texts and numbers come as JSON, images as bytes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::basic::Type as Physical;
use parquet::data_type::ByteArrayType;
use serde_json::{Map, Number, Value};

use super::columns::{Leaf, is_text, leaf_of};
use super::error::{Error, Result};
use super::hub::Hub;
use super::limits::DatasetLimits;
use super::locate::{Found, locate};
use super::parquet_file::{Loading, RawFile};
use super::spec;

/// Levels that writers put between a list and its entries; no part of a name.
const LIST_LEVELS: [&str; 4] = ["list", "element", "item", "array"];

/// The data files that a source without a weight names, as `rollout --data` finds them: a file, a folder, a name on the hub.
///
/// # Errors
/// No such path or split, more than one source, or a folder without data files.
pub fn files_of(source: &str, limits: &DatasetLimits) -> Result<Vec<PathBuf>> {
    let not_found = |reason: &str| Error::NotFound {
        path: source.to_owned(),
        reason: reason.to_owned(),
    };
    let sources = spec::parse(source)?;
    let [one] = sources.as_slice() else {
        return Err(not_found("one source is expected here"));
    };
    match locate(one, &Hub::from_env(), limits)? {
        Found::Files(files) => Ok(files),
        Found::Folder(_) => Err(not_found("the folder holds no .parquet or .jsonl file")),
    }
}

/// An open parquet file. Texts are read at once, images a row group at a time.
pub struct ParquetTable {
    path: PathBuf,
    file: RawFile,
    texts: Vec<Named>,
    images: Vec<Named>,
    limits: DatasetLimits,
    /// The images of one row group, and which.
    cache: Mutex<Option<(usize, Arc<Images>)>>,
}

/// By row of a group.
type Images = Vec<Vec<Vec<u8>>>;

struct Named {
    name: String,
    leaf: Leaf,
    is_list: bool,
}

impl ParquetTable {
    /// Opens a file, whatever its columns are.
    ///
    /// # Errors
    /// A file that is malformed or beyond the limits.
    pub fn open(path: &Path, limits: &DatasetLimits) -> Result<Self> {
        let file = RawFile::open(path, limits)?;
        let schema = file.metadata().file_metadata().schema_descr();
        let (mut texts, mut images) = (Vec::new(), Vec::new());
        for (index, column) in schema.columns().iter().enumerate() {
            let is_binary = column.physical_type() == Physical::BYTE_ARRAY && !is_text(column);
            let is_read = matches!(
                column.physical_type(),
                Physical::BYTE_ARRAY
                    | Physical::INT32
                    | Physical::INT64
                    | Physical::FLOAT
                    | Physical::DOUBLE
            );
            if !is_read || column.max_rep_level() > 1 {
                continue;
            }
            let parts = column.path().parts().iter().map(String::as_str);
            let parts: Vec<&str> = parts.filter(|part| !LIST_LEVELS.contains(part)).collect();
            let named = Named {
                name: parts.join("."),
                leaf: leaf_of(schema, index, column),
                is_list: column.max_rep_level() == 1,
            };
            if is_binary {
                images.push(named);
            } else {
                texts.push(named);
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            texts,
            images,
            limits: *limits,
            cache: Mutex::default(),
        })
    }

    /// Texts, numbers and lists of texts of every row; field `b` of column `a` is `a.b`. Nulls are left out.
    ///
    /// # Errors
    /// A row group that is malformed or beyond the limits; a text that is too long.
    pub fn rows(&self) -> Result<Vec<Map<String, Value>>> {
        let mut rows = Vec::new();
        for (group, num_rows) in self.file.group_rows().iter().enumerate() {
            let start = rows.len();
            if *num_rows > self.limits.max_rows - start {
                return Err(Error::limit(
                    &self.path,
                    "rows",
                    "more",
                    self.limits.max_rows,
                ));
            }
            rows.resize_with(start + num_rows, Map::new);
            let mut loading = Loading::new(&self.file, group, &self.limits);
            for column in &self.texts {
                let values = self.values(column, &mut loading)?;
                for (row, value) in rows.iter_mut().skip(start).zip(values) {
                    if let Some(value) = value {
                        row.insert(column.name.clone(), value);
                    }
                }
            }
        }
        Ok(rows)
    }

    fn values(&self, column: &Named, loading: &mut Loading) -> Result<Vec<Option<Value>>> {
        let is_bytes = column.leaf.physical == Physical::BYTE_ARRAY;
        if column.is_list && is_bytes {
            let rows = loading.entries::<ByteArrayType>(column.leaf)?;
            let list = |row: Vec<Option<_>>| -> Result<Option<Value>> {
                let texts = row.into_iter().flatten();
                let texts = texts.map(|bytes: parquet::data_type::ByteArray| {
                    self.text(bytes.data()).map(Value::String)
                });
                Ok(Some(Value::Array(texts.collect::<Result<_>>()?)))
            };
            return rows.into_iter().map(list).collect();
        }
        if column.is_list {
            return Ok(Vec::new()); // lists of numbers: boxes and sizes that nobody asks for
        }
        let value = |bytes: parquet::data_type::ByteArray| -> Result<Value> {
            let text = self.text(bytes.data())?;
            let number = (!is_bytes).then(|| text.parse::<Number>().ok()).flatten();
            Ok(number.map_or(Value::String(text), Value::Number))
        };
        let rows = loading.texts(column.leaf)?;
        rows.into_iter()
            .map(|cell| cell.map(value).transpose())
            .collect()
    }

    fn text(&self, bytes: &[u8]) -> Result<String> {
        if bytes.len() > self.limits.max_text_bytes {
            return Err(Error::limit(
                &self.path,
                "bytes of a text",
                bytes.len(),
                self.limits.max_text_bytes,
            ));
        }
        String::from_utf8(bytes.to_vec())
            .map_err(|_| Error::malformed(&self.path, "a text is not UTF-8"))
    }

    /// The encoded images of a row, of all columns that hold bytes.
    ///
    /// # Errors
    /// A row group that is malformed or beyond the limits; no such row.
    pub fn images(&self, row: usize) -> Result<Vec<Vec<u8>>> {
        let mut start = 0;
        for (group, num_rows) in self.file.group_rows().iter().enumerate() {
            if row < start + num_rows {
                let images = self.group(group)?;
                return Ok(images.get(row - start).cloned().unwrap_or_default());
            }
            start += num_rows;
        }
        Err(Error::Index {
            index: row,
            len: start,
        })
    }

    fn group(&self, group: usize) -> Result<Arc<Images>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cached, images)) = cache.as_ref()
            && *cached == group
        {
            return Ok(Arc::clone(images));
        }
        let num_rows = self.file.group_rows().get(group).copied();
        let mut rows: Images = vec![Vec::new(); num_rows.unwrap_or_default()];
        let mut loading = Loading::new(&self.file, group, &self.limits);
        for column in &self.images {
            let cells = loading.entries::<ByteArrayType>(column.leaf)?;
            for (row, cells) in rows.iter_mut().zip(cells) {
                let filled = cells.into_iter().flatten().filter(|cell| !cell.is_empty());
                row.extend(filled.map(|cell| cell.data().to_vec()));
            }
        }
        let images = Arc::new(rows);
        *cache = Some((group, Arc::clone(&images)));
        Ok(images)
    }
}
