//! `geo-mini`: makes the shipped data set and everything of the shipped model but its weights, from seeds.
//!
//! # Layout
//!
//! | module | what it holds |
//! |---|---|
//! | `family` | the questions, the right way to each answer and a wrong one |
//! | `figure`, `layout`, `canvas`, `font` | drawing |
//! | `sample` | one row from its random numbers; the split |
//! | `table` | parquet |
//! | `baseline` | what the question alone gives away |
//! | `skeleton`, `vocabulary` | the model folder without weights, its tokenizer |

// The literal of config.json is one long macro call.
#![recursion_limit = "256"]

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use rand::RngExt;

use crate::sample::{Sample, Source, Split};
use crate::table::{Extra, Table};

mod baseline;
mod canvas;
mod family;
mod figure;
mod font;
mod layout;
mod sample;
mod skeleton;
mod table;
mod vocabulary;

/// Makes the shipped data set and model folder (without weights), the same bytes for the same arguments.
#[derive(Parser)]
#[command(name = "geo-mini", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// train.parquet and test.parquet: images, problem, answer.
    Data {
        /// Folder to write to.
        #[arg(long)]
        out: PathBuf,
        /// Rows of train.parquet.
        #[arg(long, default_value_t = 1600)]
        train_rows: usize,
        /// Rows of test.parquet.
        #[arg(long, default_value_t = 500)]
        test_rows: usize,
        /// Seed of both files; the splits share no figure and no combination of values.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Rows with worked solutions, of the training split's value combinations.
    Sft {
        /// Number of rows.
        #[arg(long, default_value_t = 40_000)]
        rows: usize,
        /// Seed; another one than that of the data set, so that no figure is shared with it.
        #[arg(long, default_value_t = 2)]
        seed: u64,
        /// Share of solutions that read the labels right but go a wrong way.
        #[arg(long, default_value_t = 0.0)]
        wrong_method_share: f64,
        /// File to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Rows that say which label each image token holds (`token_labels`), to teach the vision tower to read.
    Read {
        /// Number of rows.
        #[arg(long, default_value_t = 50_000)]
        rows: usize,
        /// Seed; another one than those of the other files.
        #[arg(long, default_value_t = 3)]
        seed: u64,
        /// File to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// The model folder without weights: configuration, tokenizer, chat template.
    Skeleton {
        /// Folder to write to.
        #[arg(long)]
        out: PathBuf,
    },
    /// What a reader of the question alone gets right, on the test split.
    Baseline {
        /// Folder with train.parquet and test.parquet.
        #[arg(long)]
        data: PathBuf,
    },
    /// Single figures as PNG files, to look at.
    Show {
        /// Number of figures.
        #[arg(long, default_value_t = 16)]
        rows: usize,
        /// Seed of the figures.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Folder to write to.
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Data {
            out,
            train_rows,
            test_rows,
            seed,
        } => {
            for (name, split, rows) in [
                ("train", Split::Train, train_rows),
                ("test", Split::Test, test_rows),
            ] {
                let path = out.join(format!("{name}.parquet"));
                write(
                    &path,
                    Extra::None,
                    &Source::new(split, seed),
                    rows,
                    |sample, _| sample.work.solution(),
                )?;
            }
        }
        Command::Sft {
            rows,
            seed,
            wrong_method_share,
            out,
        } => {
            ensure!(
                (0.0..=1.0).contains(&wrong_method_share),
                "--wrong-method-share must lie in 0..=1"
            );
            write(
                &out,
                Extra::Solution,
                &Source::new(Split::Train, seed),
                rows,
                |sample, draw| {
                    if draw < wrong_method_share {
                        sample.wrong.solution()
                    } else {
                        sample.work.solution()
                    }
                },
            )?;
        }
        Command::Read { rows, seed, out } => {
            write(
                &out,
                Extra::TokenLabels,
                &Source::new(Split::Train, seed),
                rows,
                |_, _| String::new(),
            )?;
        }
        Command::Skeleton { out } => skeleton::write(&out)?,
        Command::Baseline { data } => writeln!(stdout(), "{}", baseline::measure(&data)?)?,
        Command::Show { rows, seed, out } => {
            std::fs::create_dir_all(&out)?;
            let source = Source::new(Split::Train, seed);
            for row in 0..rows {
                let (sample, _) = source.sample(row)?;
                std::fs::write(out.join(format!("{row}.png")), &sample.png)?;
                writeln!(
                    stdout(),
                    "{row}\t{}\t{}\t{:?}",
                    sample.problem,
                    sample.work.solution(),
                    sample.token_labels()
                )?;
            }
        }
    }
    Ok(())
}

/// Rows 0 to `rows` of a source; `solution` gets the sample and a number in 0..1 of its row's stream.
fn write(
    path: &Path,
    extra: Extra,
    source: &Source,
    rows: usize,
    solution: impl Fn(&Sample, f64) -> String,
) -> Result<()> {
    let mut table = Table::create(path, extra)?;
    for row in 0..rows {
        let (sample, mut rng) = source.sample(row)?;
        let solution = solution(&sample, rng.random());
        table
            .push(&sample, &format!("{row}.png"), &solution)
            .with_context(|| format!("row {row}"))?;
    }
    let rows = table.finish()?;
    writeln!(
        stdout(),
        "{}: {rows} rows, {} bytes",
        path.display(),
        std::fs::metadata(path)?.len()
    )?;
    Ok(())
}
