//! What is asked: the rows of a data set, or the questions of a benchmark.

use anyhow::{Context as _, Result};
use shared::dataset::{DataKeys, Dataset, DatasetLimits, Error, Sample};

use super::args::EvalArgs;
use super::benchmark::{Benchmark, Options, Table};
use super::prompts::Protocol;
use super::question::Question;

/// All questions, in order; read when they are asked for.
pub(super) enum Questions {
    /// `counts_all`: a row that cannot be asked is wrong, as of a benchmark.
    Data { dataset: Dataset, counts_all: bool },
    /// A benchmark's own files.
    Table(Table, Vec<Question>),
}

/// A question, or why there is none.
pub(super) enum Asked {
    /// With the sample that the prompt is made of.
    Whole(Question, Sample),
    /// It counts as wrong.
    Broken(Question, String),
    /// It does not count.
    Skipped(String),
}

impl Questions {
    pub(super) fn open(args: &EvalArgs) -> Result<Self> {
        let data = args.data.as_deref().context("--data is needed")?;
        match args.benchmark {
            Some(benchmark) if !benchmark.is_data_set() => {
                let options = Options {
                    image_dir: args.source.image_dir.as_deref(),
                    as_paper: args.protocol != Protocol::Model,
                    with_text_rows: args.with_text_rows,
                };
                let (table, questions) = benchmark.open(data, options)?;
                Ok(Self::Table(table, questions))
            }
            benchmark => Ok(Self::Data {
                dataset: Dataset::open_with(data, &args.source.keys(), &DatasetLimits::default())?,
                counts_all: benchmark.is_some(),
            }),
        }
    }

    /// Of a data set, as a run is trained on.
    pub(super) fn of_data(data: &str, keys: &DataKeys) -> Result<Self> {
        Ok(Self::Data {
            dataset: Dataset::open_with(data, keys, &DatasetLimits::default())?,
            counts_all: false,
        })
    }

    /// Whether a question that cannot be asked is wrong: of a benchmark nothing is left out.
    pub(super) fn counts_all(&self) -> bool {
        match self {
            Self::Data { counts_all, .. } => *counts_all,
            Self::Table(..) => true,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data { dataset, .. } => dataset.len(),
            Self::Table(_, questions) => questions.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Result<Asked> {
        match self {
            Self::Data {
                dataset,
                counts_all,
            } => from_data(dataset, *counts_all, index),
            Self::Table(table, questions) => {
                let question = questions.get(index).context("no such question")?.clone();
                Ok(match table.images(&question) {
                    Ok(images) => {
                        let sample = sample(&question, images);
                        Asked::Whole(question, sample)
                    }
                    Err(reason) => Asked::Broken(question, reason),
                })
            }
        }
    }
}

fn from_data(dataset: &Dataset, counts_all: bool, index: usize) -> Result<Asked> {
    let mut question = Question {
        index: index as u64,
        cluster: index.to_string(),
        ..Question::default()
    };
    match dataset.get(index) {
        Ok(sample) => {
            question.id.clone_from(&sample.id);
            question.question.clone_from(&sample.problem);
            question.answer.clone_from(&sample.answer);
            Ok(Asked::Whole(question, sample))
        }
        Err(Error::Sample { id, reason }) if counts_all => {
            question.id = id;
            Ok(Asked::Broken(question, reason))
        }
        Err(error) if error.is_sample() => Ok(Asked::Skipped(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Images first, as the field asks; marks that the text has of its own are none.
fn sample(question: &Question, images: Vec<Vec<u8>>) -> Sample {
    const MARK: &str = "<image>";
    Sample {
        id: question.id.clone(),
        problem: MARK.repeat(images.len()) + &question.text.replace(MARK, ""),
        answer: question.answer.clone(),
        solution: None,
        images,
    }
}

/// How a benchmark is called in a message.
pub(super) fn name(benchmark: Option<Benchmark>) -> &'static str {
    benchmark.map_or("data set", Benchmark::name)
}
