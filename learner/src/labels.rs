//! The `token_labels` column of a data set of figures: which number is written at each merged image token.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const COLUMN: &str = "token_labels";
/// Larger numbers than a figure shows.
const MAX_LABEL: i64 = 999;

/// Reads the column of one parquet file: per row a list of integers, one per merged image token in the order of the
/// tokens; negative or null where no label is centred.
pub fn token_labels(path: &Path) -> Result<Vec<Vec<Option<u32>>>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .with_context(|| format!("{} is no parquet file", path.display()))?;
    ensure!(
        builder.schema().column_with_name(COLUMN).is_some(),
        "{} has no column {COLUMN}: use the data set made for reading",
        path.display()
    );
    let mask = ProjectionMask::columns(builder.parquet_schema(), [COLUMN]);
    let mut rows = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        let batch = batch.with_context(|| format!("{}: damaged", path.display()))?;
        let column = batch
            .column_by_name(COLUMN)
            .context("the projected column is missing")?;
        let lists = column
            .as_list_opt::<i32>()
            .with_context(|| format!("{}: {COLUMN} must be a list of integers", path.display()))?;
        for row in 0..lists.len() {
            let labels = labels(&lists.value(row))
                .with_context(|| format!("{}: row {}", path.display(), rows.len()))?;
            rows.push(labels);
        }
    }
    Ok(rows)
}

/// One row.
fn labels(values: &ArrayRef) -> Result<Vec<Option<u32>>> {
    let numbers: Vec<Option<i64>> = match values.data_type() {
        DataType::Int32 => values
            .as_primitive::<Int32Type>()
            .iter()
            .map(|value| value.map(i64::from))
            .collect(),
        DataType::Int64 => values.as_primitive::<Int64Type>().iter().collect(),
        other => bail!("{COLUMN} must be a list of integers, got {other}"),
    };
    let label = |number: Option<i64>| match number {
        None => Ok(None),
        Some(number) if number < 0 => Ok(None),
        Some(number) if number <= MAX_LABEL => Ok(u32::try_from(number).ok()),
        Some(number) => bail!("label {number} is above {MAX_LABEL}"),
    };
    numbers.into_iter().map(label).collect()
}
