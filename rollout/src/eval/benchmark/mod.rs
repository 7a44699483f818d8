//! The published benchmarks, a file each: how its file is read, how it asks, how it scores, which figures it is reported by.
//!
//! # Layout
//! - [`Benchmark`]: which; `table`: the rows of its file and its images

mod geometry3k;
mod hallusionbench;
mod mathverse;
mod mathvision;
mod mathvista;
mod table;
mod wemath;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod figures_tests;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::question::Question;
use super::rules::{self, Verdict};
use crate::reward::Verifier;

pub use table::ImageSource;
pub(super) use table::Table;

/// A benchmark.
#[derive(ValueEnum, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Benchmark {
    /// testmini.json or parquet; by problem version, subject, subfield
    MathVerse,
    /// MathVision.tsv or parquet; by subject and level
    MathVision,
    /// testmini.json or parquet; by task and skill
    MathVista,
    /// testmini.json or parquet; strict and loose scores with IK, IG, CM, RM
    WeMath,
    /// HallusionBench.json or parquet; aAcc, fAcc, qAcc
    HallusionBench,
    /// InterGPS's folders or parquet
    Geometry3k,
}

/// What changes the questions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options<'a> {
    /// Where image paths start.
    pub(super) image_dir: Option<&'a Path>,
    /// Word for word as the paper's evaluation code asks.
    pub(super) as_paper: bool,
    /// HallusionBench's questions without an image, too.
    pub(super) with_text_rows: bool,
}

/// A question with the verdict on one response to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Graded<'a> {
    pub(super) question: &'a Question,
    pub(super) is_right: bool,
}

/// A number that the benchmark is reported by.
#[derive(Serialize, Debug, Clone, PartialEq)]
pub struct Figure {
    /// As its authors call it.
    pub name: String,
    /// A share in [0, 1], or a count.
    pub value: f64,
    /// Whether it is a share.
    pub is_share: bool,
}

impl Figure {
    fn share(name: &str, part: f64, whole: f64) -> Self {
        Self {
            name: name.to_owned(),
            value: if whole > 0.0 { part / whole } else { 0.0 },
            is_share: true,
        }
    }

    fn count(name: &str, value: f64) -> Self {
        Self {
            name: name.to_owned(),
            value,
            is_share: false,
        }
    }
}

impl Benchmark {
    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MathVerse => "mathverse",
            Self::MathVision => "mathvision",
            Self::MathVista => "mathvista",
            Self::WeMath => "wemath",
            Self::HallusionBench => "hallusionbench",
            Self::Geometry3k => "geometry3k",
        }
    }

    /// Whether its files are a plain data set.
    pub(super) fn is_data_set(self) -> bool {
        self == Self::Geometry3k
    }

    /// Reads its file.
    pub(super) fn open(self, spec: &str, options: Options) -> Result<(Table, Vec<Question>)> {
        let names: &[&str] = match self {
            Self::MathVerse => mathverse::FILES,
            Self::MathVision => mathvision::FILES,
            Self::MathVista => mathvista::FILES,
            Self::WeMath => wemath::FILES,
            Self::HallusionBench => hallusionbench::FILES,
            Self::Geometry3k => bail!("geometry3k is read as a data set"),
        };
        let table = Table::open(spec, names, options.image_dir)?;
        let mut questions = Vec::with_capacity(table.rows.len());
        for row in &table.rows {
            let question = match self {
                Self::MathVerse => mathverse::read(row).map(Some),
                Self::MathVision => mathvision::read(row, options.as_paper).map(Some),
                Self::MathVista => mathvista::read(row).map(Some),
                Self::WeMath => wemath::read(row).map(Some),
                Self::HallusionBench => hallusionbench::read(row, options.with_text_rows),
                Self::Geometry3k => Ok(None),
            };
            let question =
                question.with_context(|| format!("{} is no file of {}", spec, self.name()))?;
            if let Some(mut question) = question {
                question.index = questions.len() as u64;
                questions.push(question);
            }
        }
        if questions.is_empty() {
            bail!("{spec} has no question with an image");
        }
        Ok((table, questions))
    }

    /// What the rules say of a response.
    pub(super) fn score(self, question: &Question, response: &str, verifier: &Verifier) -> Verdict {
        match self {
            Self::Geometry3k => geometry3k::score(question, response, verifier),
            Self::MathVista => mathvista::score(question, response, verifier),
            Self::MathVerse | Self::MathVision | Self::WeMath | Self::HallusionBench => {
                rules::score(question, response, verifier)
            }
        }
    }

    /// Whether the verifier has a say: some ask for letters, or yes and no, alone.
    pub(super) fn has_free_answers(self) -> bool {
        !matches!(self, Self::WeMath | Self::HallusionBench)
    }

    /// The groups that its accuracy is shown by.
    pub(super) fn axes(self) -> &'static [&'static str] {
        match self {
            Self::MathVerse => mathverse::AXES,
            Self::MathVision => mathvision::AXES,
            Self::MathVista => mathvista::AXES,
            Self::WeMath => wemath::AXES,
            Self::HallusionBench => hallusionbench::AXES,
            Self::Geometry3k => &[],
        }
    }

    /// The figures that are no plain accuracy, of one response to each question.
    pub(super) fn figures(self, graded: &[Graded]) -> Vec<Figure> {
        match self {
            Self::WeMath => wemath::figures(graded),
            Self::HallusionBench => hallusionbench::figures(graded),
            _ => Vec::new(),
        }
    }
}
