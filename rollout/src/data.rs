//! `rollout data`: what is in a data set, and what a run would skip of it and why.
//!
//! # Layout
//! - `args`: the command line
//! - `measure`: a row -> its figures, with a model's tokenizer or without one
//! - `report`: the figures of all rows; `distribution`: of many numbers a few
//! - `show`: one row as the model would get it
//! - `clean`: text of strangers for a terminal

mod args;
mod clean;
mod distribution;
mod measure;
mod report;
mod show;

pub use args::{DataCommand, EXAMPLES};

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use shared::dataset::{Dataset, DatasetLimits};
use shared::telemetry::Telemetry;

use crate::stop::Stop;
use measure::{Measured, Reader};
use report::Report;

/// Rows that are in memory together.
const ROWS_AT_A_TIME: usize = 64;
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Reads the data set and writes what is in it to `out`.
///
/// # Errors
/// A data set or model that cannot be read, or no row that a run could use.
pub fn data(
    args: &DataCommand,
    telemetry: &Telemetry,
    stop: &Stop,
    out: &mut dyn Write,
) -> Result<()> {
    let dataset = Dataset::open_with(&args.data, &args.source.keys(), &DatasetLimits::default())?;
    let reader = Reader::new(args)?;
    if let Some(row) = args.show {
        return show::show(&dataset, &reader, row, args.json, out);
    }
    let num_rows = args.num_rows(&dataset);
    let progress = telemetry.progress(Some(num_rows as u64));
    let mut shown = Instant::now();
    let report = scan(&dataset, &reader, num_rows, stop, &mut |report| {
        if shown.elapsed() >= PROGRESS_EVERY {
            let skipped = format!("{} skipped", report.num_skipped());
            progress.step(report.num_rows() as u64, &skipped);
            shown = Instant::now();
        }
    })?;
    drop(progress);
    write(report, args, out)
}

/// Measures the first rows, many at a time.
fn scan(
    dataset: &Dataset,
    reader: &Reader,
    num_rows: usize,
    stop: &Stop,
    progress: &mut dyn FnMut(&Report),
) -> Result<Report> {
    let mut report = Report::new(dataset, reader);
    for start in (0..num_rows).step_by(ROWS_AT_A_TIME) {
        if stop.is_raised() {
            bail!("stopped after {start} of {num_rows} rows");
        }
        let end = (start + ROWS_AT_A_TIME).min(num_rows);
        let rows: Vec<Result<Measured>> = (start..end)
            .into_par_iter()
            .map(|index| reader.measure(dataset, index))
            .collect();
        for row in rows {
            report.add(row?);
        }
        progress(&report);
    }
    Ok(report)
}

fn write(mut report: Report, args: &DataCommand, out: &mut dyn Write) -> Result<()> {
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report.json())?;
        writeln!(out)?;
    } else {
        report.write(out)?;
    }
    if report.num_used() == 0 {
        bail!("no row of {} can be used", clean::line(&args.data));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
