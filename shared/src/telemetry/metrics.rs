//! The numbers of a run: a JSON object per step in metrics.jsonl, and the same as TensorBoard events.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};

use super::tensorboard::{EventFile, wall_time};

/// Whose numbers these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// metrics.jsonl
    Learner,
    /// metrics-rollout-K.jsonl of seat K
    Rollout(usize),
}

impl Source {
    /// The file in a run folder.
    #[must_use]
    pub fn path(self, run_dir: &Path) -> PathBuf {
        match self {
            Self::Learner => run_dir.join("metrics.jsonl"),
            Self::Rollout(seat) => run_dir.join(format!("metrics-rollout-{seat}.jsonl")),
        }
    }

    fn tensorboard(self, run_dir: &Path) -> PathBuf {
        match self {
            Self::Learner => run_dir.join("tensorboard/learner"),
            Self::Rollout(seat) => run_dir.join(format!("tensorboard/rollout-{seat}")),
        }
    }
}

/// Writer of one program's numbers. A row is `{"step": k, "time": seconds since 1970, NAME: value, ...}`;
/// a value that is not finite is null.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    rows: File,
    events: EventFile,
}

/// One row of [`read_metrics`].
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsRow {
    /// The step.
    pub step: u64,
    /// Seconds since 1970.
    pub time: f64,
    /// Names and values in the order of the file; NaN where the file has null.
    pub values: Vec<(String, f64)>,
}

impl Metrics {
    /// Opens the files of `source` in an existing run folder and goes on behind their last whole row.
    ///
    /// # Errors
    /// When a file cannot be opened or written.
    pub fn open(run_dir: &Path, source: Source) -> io::Result<Self> {
        let path = source.path(run_dir);
        let rows = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)?;
        drop_torn_row(&path, &rows)?;
        let events = EventFile::create(&source.tensorboard(run_dir))?;
        Ok(Self { path, rows, events })
    }

    /// Forgets the rows of `next_step` and later ones: the run goes on from a checkpoint older than they are.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn rewind(&mut self, next_step: u64) -> io::Result<()> {
        let text = fs::read(&self.path)?;
        let keep: usize = lines(&text)
            .take_while(|line| parse(line).is_none_or(|row| row.step < next_step))
            .map(<[u8]>::len)
            .sum();
        self.rows.set_len(keep as u64)?;
        self.events.restart(next_step)
    }

    /// Writes one row.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn log(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let time = wall_time();
        let mut row = Map::new();
        row.insert("step".to_owned(), step.into());
        row.insert("time".to_owned(), number(time));
        for &(name, value) in values {
            row.entry(name).or_insert_with(|| number(value));
        }
        let mut line = serde_json::to_vec(&Value::Object(row))?;
        line.push(b'\n');
        // One write per row: a kill leaves at most one torn row, at the end.
        self.rows.write_all(&line)?;
        self.events.scalars(step, time, values)
    }
}

/// The rows of a metrics file. A torn last row (its writer was killed) and lines that are no rows are left out.
///
/// # Errors
/// When the file cannot be read.
pub fn read_metrics(path: &Path) -> io::Result<Vec<MetricsRow>> {
    let text = fs::read(path)?;
    Ok(lines(&text).filter_map(parse).collect())
}

/// Whole lines with their line feed.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&byte| byte == b'\n')
        .filter(|line| line.ends_with(b"\n"))
}

fn parse(line: &[u8]) -> Option<MetricsRow> {
    let mut row: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let step = row.shift_remove("step")?.as_u64()?;
    let time = row.shift_remove("time")?.as_f64()?;
    let values = row
        .into_iter()
        .map(|(name, value)| (name, value.as_f64().unwrap_or(f64::NAN)))
        .collect();
    Some(MetricsRow { step, time, values })
}

fn number(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Cuts the file behind its last line feed, so that the next row does not continue a torn one.
fn drop_torn_row(path: &Path, rows: &File) -> io::Result<()> {
    const BLOCK: u64 = 1 << 16;
    let mut file = File::open(path)?;
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        io::Read::read_to_end(&mut io::Read::take(&mut file, end - start), &mut block)?;
        if let Some(position) = block.iter().rposition(|&byte| byte == b'\n') {
            end = start + position as u64 + 1;
            break;
        }
        end = start;
    }
    if end < file.metadata()?.len() {
        rows.set_len(end)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_and_resumed_run_has_every_row_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = Source::Learner.path(folder.path());
        let mut metrics = Metrics::open(folder.path(), Source::Learner).unwrap();
        for step in 1..=5 {
            metrics
                .log(step, &[("train/loss", 0.25), ("train/odd", f64::INFINITY)])
                .unwrap();
        }
        drop(metrics);
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"step\":6,\"ti").unwrap();
        assert_eq!(read_metrics(&path).unwrap().len(), 5);

        let mut metrics = Metrics::open(folder.path(), Source::Learner).unwrap();
        metrics.rewind(4).unwrap();
        metrics.log(4, &[("train/loss", 0.5)]).unwrap();
        let rows = read_metrics(&path).unwrap();
        assert_eq!(
            rows.iter().map(|row| row.step).collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        assert_eq!(rows[3].values, [("train/loss".to_owned(), 0.5)]);
        assert!(rows[0].values[1].1.is_nan());
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.lines()
                .next()
                .unwrap()
                .ends_with(r#""train/loss":0.25,"train/odd":null}"#),
            "{text}"
        );
    }

    #[test]
    fn a_torn_row_longer_than_a_block_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = Source::Rollout(2).path(folder.path());
        let whole = "{\"step\":1,\"time\":2.0}\n";
        fs::write(&path, format!("{whole}{}", "x".repeat(200_000))).unwrap();
        Metrics::open(folder.path(), Source::Rollout(2)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        fs::write(&path, "x".repeat(200_000)).unwrap();
        Metrics::open(folder.path(), Source::Rollout(2)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}
