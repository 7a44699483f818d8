//! Parquet files in the schema of hiyouga/geometry3k, with one more column where training needs it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow_array::builder::{
    BinaryBuilder, Int32Builder, ListBuilder, StringBuilder, StructBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::sample::Sample;

/// Rows that are held in memory before they are written.
const ROWS_PER_GROUP: usize = 1000;

/// The column beside `images`, `problem` and `answer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    None,
    /// `solution` string: the worked solution, `<think> ... </think> \boxed{answer}`; its answer may be a wrong one.
    Solution,
    /// `token_labels` list<int32> of length 16: for each image token (four by four cells of 28 pixels, row by row) the
    /// value of the label whose centre lies in the cell, `0..200`, or -1 where there is none.
    TokenLabels,
}

/// Writes rows one by one.
pub(crate) struct Table {
    writer: ArrowWriter<File>,
    schema: Arc<Schema>,
    extra: Extra,
    images: ListBuilder<StructBuilder>,
    problems: StringBuilder,
    answers: StringBuilder,
    solutions: StringBuilder,
    token_labels: ListBuilder<Int32Builder>,
    num_rows: usize,
}

impl Table {
    pub(crate) fn create(path: &Path, extra: Extra) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let file =
            File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let schema = Arc::new(schema(extra));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(19)?))
            .set_created_by("geo-mini".to_owned())
            .build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
        let fields: Vec<Box<dyn arrow_array::builder::ArrayBuilder>> = vec![
            Box::new(BinaryBuilder::new()),
            Box::new(StringBuilder::new()),
        ];
        Ok(Self {
            writer,
            schema,
            extra,
            images: ListBuilder::new(StructBuilder::new(image_fields(), fields))
                .with_field(image_item()),
            problems: StringBuilder::new(),
            answers: StringBuilder::new(),
            solutions: StringBuilder::new(),
            token_labels: ListBuilder::new(Int32Builder::new()),
            num_rows: 0,
        })
    }

    /// Appends a row. `solution` is what the column of that name holds.
    pub(crate) fn push(&mut self, sample: &Sample, path: &str, solution: &str) -> Result<()> {
        let image = self.images.values();
        image
            .field_builder::<BinaryBuilder>(0)
            .context("bytes column")?
            .append_value(&sample.png);
        image
            .field_builder::<StringBuilder>(1)
            .context("path column")?
            .append_value(path);
        image.append(true);
        self.images.append(true);
        self.problems.append_value(&sample.problem);
        self.answers.append_value(&sample.work.answer);
        match self.extra {
            Extra::None => {}
            Extra::Solution => self.solutions.append_value(solution),
            Extra::TokenLabels => {
                self.token_labels
                    .values()
                    .append_slice(&sample.token_labels());
                self.token_labels.append(true);
            }
        }
        self.num_rows += 1;
        if self.num_rows.is_multiple_of(ROWS_PER_GROUP) {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes what is left and closes the file.
    pub(crate) fn finish(mut self) -> Result<usize> {
        self.flush()?;
        self.writer.close()?;
        Ok(self.num_rows)
    }

    fn flush(&mut self) -> Result<()> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.images.finish()),
            Arc::new(self.problems.finish()),
            Arc::new(self.answers.finish()),
        ];
        match self.extra {
            Extra::None => {}
            Extra::Solution => columns.push(Arc::new(self.solutions.finish())),
            Extra::TokenLabels => columns.push(Arc::new(self.token_labels.finish())),
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        if batch.num_rows() > 0 {
            self.writer.write(&batch)?;
            self.writer.flush()?;
        }
        Ok(())
    }
}

fn image_fields() -> Fields {
    Fields::from(vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ])
}

fn image_item() -> Field {
    Field::new("item", DataType::Struct(image_fields()), true)
}

fn schema(extra: Extra) -> Schema {
    let mut fields = vec![
        Field::new("images", DataType::List(Arc::new(image_item())), true),
        Field::new("problem", DataType::Utf8, true),
        Field::new("answer", DataType::Utf8, true),
    ];
    match extra {
        Extra::None => {}
        Extra::Solution => fields.push(Field::new("solution", DataType::Utf8, true)),
        Extra::TokenLabels => {
            let item = Field::new("item", DataType::Int32, true);
            fields.push(Field::new(
                "token_labels",
                DataType::List(Arc::new(item)),
                true,
            ));
        }
    }
    Schema::new(fields)
}
