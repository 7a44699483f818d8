//! The rows of a benchmark's published file, whatever its format: `.json`, `.jsonl`, `.tsv`, `.parquet`; and its images.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use serde_json::{Map, Value};
use shared::dataset::{DatasetLimits, ImageFolder, ParquetTable, files_of};

use super::super::question::Question;

/// Largest JSON or TSV file; one with its images in it has some hundred MiB.
const MAX_FILE_BYTES: u64 = 1 << 30;
const MAX_ROWS: usize = 1_000_000;
/// Base64 of an image is longer than any path.
const MAX_PATH: usize = 512;

/// Where the image of a question is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ImageSource {
    /// It has none.
    #[default]
    None,
    /// A file, from the folder of images or its subfolder `images`.
    File(String),
    /// In base64.
    Base64(String),
    /// In this row of this parquet file.
    Parquet(usize, usize),
}

/// A file's rows.
pub(crate) struct Table {
    path: PathBuf,
    pub(super) rows: Vec<Row>,
    parquet: Vec<ParquetTable>,
    images: ImageFolder,
    limits: DatasetLimits,
}

/// One row.
pub(super) struct Row {
    /// `FILE#ROW`.
    name: String,
    values: Map<String, Value>,
    /// File and row.
    parquet: Option<(usize, usize)>,
}

impl Table {
    /// `spec` is a file, a folder with one of the files `names`, or what `--data` names elsewhere.
    pub(super) fn open(spec: &str, names: &[&str], image_dir: Option<&Path>) -> Result<Self> {
        let limits = DatasetLimits::default();
        let path = Path::new(spec);
        let in_folder = names
            .iter()
            .map(|name| path.join(name))
            .find(|file| file.is_file());
        let files = match (in_folder, extension(path)) {
            (Some(file), _) => vec![file],
            (None, "json" | "tsv" | "jsonl") if path.is_file() => vec![path.to_owned()],
            _ => files_of(spec, &limits)
                .with_context(|| format!("looking for {} or parquet files", names.join(", ")))?,
        };
        let first = files.first().context("no file")?.clone();
        let mut table = Self {
            images: ImageFolder::new(&first, image_dir),
            path: first,
            rows: Vec::new(),
            parquet: Vec::new(),
            limits,
        };
        for file in files {
            table
                .add(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
        }
        if table.rows.is_empty() {
            bail!("{} has no rows", table.path.display());
        }
        Ok(table)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let rows = match extension(path) {
            "parquet" => {
                let file = ParquetTable::open(path, &self.limits)?;
                let rows = file.rows()?;
                self.parquet.push(file);
                rows
            }
            "tsv" => tsv(&read(path)?)?,
            "jsonl" => {
                let text = read(path)?;
                let lines = text.lines().filter(|line| !line.trim().is_empty());
                lines
                    .map(|line| Ok(serde_json::from_str(line)?))
                    .collect::<Result<_>>()?
            }
            _ => json(&read(path)?)?,
        };
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let number = self.parquet.len().checked_sub(1);
        let number = number.filter(|_| extension(path) == "parquet");
        if rows.len() > MAX_ROWS - self.rows.len() {
            bail!("more than {MAX_ROWS} rows");
        }
        self.rows
            .extend(rows.into_iter().enumerate().map(|(row, values)| Row {
                name: format!("{file}#{row}"),
                values,
                parquet: number.map(|file| (file, row)),
            }));
        Ok(())
    }

    /// The encoded images of a question; why there are none, in a few words.
    pub(crate) fn images(&self, question: &Question) -> Result<Vec<Vec<u8>>, String> {
        let one = |image: Result<Vec<u8>, String>| image.map(|image| vec![image]);
        match &question.image {
            ImageSource::None => Ok(Vec::new()),
            ImageSource::File(path) => one(self.file(path)),
            ImageSource::Base64(text) => one(decode(text, self.limits.max_image_bytes)),
            ImageSource::Parquet(file, row) => {
                let file = self.parquet.get(*file).ok_or("no such file")?;
                let images = file.images(*row).map_err(|error| error.to_string())?;
                match images.len() {
                    0 => Err("no image in its row".to_owned()),
                    // The same picture may be in several columns: the first is meant.
                    _ => Ok(images.into_iter().take(1).collect()),
                }
            }
        }
    }

    fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        let read = |path: &str| self.images.read(path, &self.limits);
        let found =
            read(path).or_else(|reason| read(&format!("images/{path}")).map_err(|_| reason));
        found.map_err(|reason| format!("image {path}: {reason}"))
    }
}

impl Row {
    /// The first of the names that has a value.
    pub(super) fn text(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| match self.value(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        })
    }

    pub(super) fn need(&self, names: &[&str]) -> Result<String> {
        self.text(names).with_context(|| {
            let there: Vec<&str> = self.values.keys().take(20).map(String::as_str).collect();
            format!(
                "{} has no {}; it has {}",
                self.name,
                names.join(" nor "),
                there.join(", ")
            )
        })
    }

    /// An answer, which a split without published answers leaves empty.
    pub(super) fn answer(&self, names: &[&str]) -> Result<String> {
        let answer = self.need(names)?;
        if answer.trim().is_empty() {
            bail!(
                "{} has an empty answer: take the split whose answers are published, testmini",
                self.name
            );
        }
        Ok(answer.trim().to_owned())
    }

    /// A list of texts; also one that is written as Python writes it.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::Array(values)) => values.iter().filter_map(plain).collect(),
            Some(Value::String(text)) => python_list(text),
            _ => Vec::new(),
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.values.get(name) {
            return Some(value);
        }
        let (first, rest) = name.split_once('.')?;
        self.values.get(first)?.get(rest)
    }

    /// Its image: in the parquet row, in a column as base64, or a file.
    pub(super) fn image(
        &self,
        names: &[&str],
        file: impl FnOnce() -> Option<String>,
    ) -> ImageSource {
        if let Some((file, row)) = self.parquet {
            return ImageSource::Parquet(file, row);
        }
        match self.text(names).filter(|text| !text.trim().is_empty()) {
            Some(text) if text.len() > MAX_PATH => ImageSource::Base64(text),
            Some(path) => ImageSource::File(path),
            None => file().map_or(ImageSource::None, ImageSource::File),
        }
    }
}

fn extension(path: &Path) -> &str {
    path.extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default()
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = File::open(path)?.take(MAX_FILE_BYTES + 1);
    { file }.read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        bail!("it has more than {} MiB", MAX_FILE_BYTES >> 20);
    }
    Ok(text)
}

/// A list of objects, or an object of them.
fn json(text: &str) -> Result<Vec<Map<String, Value>>> {
    let rows = match serde_json::from_str(text)? {
        Value::Array(rows) => rows,
        Value::Object(rows) => rows
            .into_iter()
            .map(|(key, mut row)| {
                if let Some(row) = row.as_object_mut() {
                    row.entry("pid").or_insert(Value::String(key));
                }
                row
            })
            .collect(),
        _ => bail!("it is no list of rows"),
    };
    rows.into_iter()
        .map(|row| match row {
            Value::Object(row) => Ok(row),
            _ => bail!("one of its rows is no object"),
        })
        .collect()
}

/// As pandas writes it; an empty field is no value.
fn tsv(text: &str) -> Result<Vec<Map<String, Value>>> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(b'\t')
        .from_reader(text.as_bytes());
    let names = reader.headers()?.clone();
    let row = |record: csv::StringRecord| {
        let cells = names
            .iter()
            .zip(&record)
            .filter(|(_, cell)| !cell.is_empty());
        cells
            .map(|(name, cell)| (name.to_owned(), Value::String(cell.to_owned())))
            .collect()
    };
    reader.records().map(|record| Ok(row(record?))).collect()
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// `['3', "it's", 4]`; of anything else nothing.
fn python_list(text: &str) -> Vec<String> {
    if let Ok(Value::Array(values)) = serde_json::from_str(text) {
        return values.iter().filter_map(plain).collect();
    }
    let inner = text
        .trim()
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let (mut items, mut item, mut quote) = (Vec::new(), String::new(), None);
    let mut characters = inner.unwrap_or_default().chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(_), '\\') => match characters.next() {
                Some('n') => item.push('\n'),
                Some(escaped) => item.push(escaped),
                None => {}
            },
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => item.push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, ',') => items.push(std::mem::take(&mut item)),
            (None, c) if c.is_whitespace() => {}
            (None, c) => item.push(c),
        }
    }
    if !item.is_empty() {
        items.push(item);
    }
    items
}

fn decode(text: &str, max_bytes: usize) -> Result<Vec<u8>, String> {
    if text.len() / 4 * 3 > max_bytes {
        return Err(format!("its image has more than {max_bytes} bytes"));
    }
    let engine = base64::engine::general_purpose::STANDARD;
    let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    engine
        .decode(plain)
        .map_err(|error| format!("its image is no base64: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_python_writes_them() {
        assert_eq!(
            python_list(r#"['3', "it's", 4.5, 'a\'b']"#),
            ["3", "it's", "4.5", "a'b"]
        );
        assert_eq!(python_list(r#"["x, y", "z"]"#), ["x, y", "z"]);
        assert_eq!(python_list("[]"), Vec::<String>::new());
        assert_eq!(python_list("none"), Vec::<String>::new());
    }

    #[test]
    fn tables_as_pandas_writes_them() {
        let rows = tsv("index\tquestion\tanswer\n7\t\"a \"\"b\"\"\n\tc\"\t\n").unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["question"], "a \"b\"\n\tc");
        assert!(
            !rows[0].contains_key("answer"),
            "an empty field is no value"
        );
    }
}
