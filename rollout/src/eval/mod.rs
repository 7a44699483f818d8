//! `rollout eval`: accuracy of a checkpoint on a data set or a published benchmark, greedy or sampled.
//!
//! # Layout
//! - `args`: the command line; `source`: which weights with which processor
//! - [`benchmark`]: a file per benchmark; `questions`, `question`: what is asked, of a data set or a benchmark
//! - `prompts`: how it is put; `asker`: questions -> predictions; `generate`: all of them, scored as they come
//! - [`validation`]: the same within a run, between two of its batches
//! - `rules`: the verdict on a response; `grading`: by which verifier; `judge`: a second opinion on what the rules hold wrong
//! - `predictions`: the file of all responses, which an evaluation goes on from
//! - `problems`: figures and groups; `report`: how all is shown; `interval`: how sure they are, pass@k

mod args;
mod asker;
pub mod benchmark;
mod generate;
mod grading;
mod interval;
mod judge;
mod predictions;
mod problems;
mod prompts;
mod question;
mod questions;
mod report;
mod rules;
mod source;
pub mod validation;

pub use args::{EXAMPLES, EvalArgs, JudgeArgs};
pub use benchmark::Benchmark;
pub use interval::{interval, pass_at_k};
pub use predictions::Settings;
pub use prompts::{ImageRule, Protocol};
pub use report::Report;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use models::config::ModelConfig;
use models::processor::Processor;
use shared::ids::PolicyVersion;
use shared::telemetry::Telemetry;

use crate::device::DeviceLoad;
use crate::engine::{Engine, EngineSettings, Haste, Threads};
use crate::load::ModelLoader;
use crate::memory::{Load, MemoryPlan};
use crate::reward::Verifier;
use crate::sampler::{EntropyKind, Sampling};
use crate::setup::{cache_blocks, to_f32};
use crate::stop::Stop;
use crate::weights_file::WeightsFile;
use asker::Skipped;
use generate::Generation;
use judge::Judge;
use predictions::Predictions;
use prompts::Prompts;
use questions::Questions;
use source::EvalSource;

/// How often a line says where it stands.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Evaluates, and writes the report to `out`.
///
/// # Errors
/// A model or data that cannot be read, an engine that does not load, predictions that were made otherwise, a judge or a
/// verifier's command that refuses, or nothing to evaluate; also when it was stopped.
pub fn eval(
    args: &EvalArgs,
    telemetry: &Telemetry,
    stop: &Stop,
    out: &mut dyn Write,
) -> Result<()> {
    args.check()?;
    let judge = Judge::new(&args.judge)?;
    let (mut predictions, skipped, num_failed) = match &args.rescore {
        Some(path) => {
            let (predictions, num_failed) = rescored(args, path)?;
            (predictions, Skipped::default(), num_failed)
        }
        None => {
            let verifier = grading::of_command_line(args)?;
            let (predictions, skipped) = generated(args, &verifier, telemetry, stop)?;
            (predictions, skipped, verifier.take_counts().failed)
        }
    };
    if let Some(judge) = judge {
        judge.judge(&mut predictions, telemetry, stop)?;
    }
    predictions.finish()?;
    let report = Report::new(&predictions, args.limit, skipped, num_failed);
    if let Some(path) = &args.json {
        std::fs::write(path, report.to_json()?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if report.num_problems() == 0 {
        bail!("no problem has all its responses: let the evaluation go on first");
    }
    report.write(out)?;
    if let Some(path) = predictions.path() {
        writeln!(out, "\npredictions  {}", path.display())?;
    }
    Ok(())
}

/// The same responses with the verdicts of today's rules, and how many of them the verifier's command gave none on.
fn rescored(args: &EvalArgs, path: &Path) -> Result<(Predictions, u64)> {
    let mut predictions = Predictions::open(path)?;
    let verifier = grading::of_file(args, &mut predictions.settings)
        .with_context(|| path.display().to_string())?;
    let benchmark = predictions.settings.benchmark;
    for line in predictions.lines.values_mut() {
        line.score(benchmark, &verifier);
    }
    let target = args.predictions.as_deref();
    if let Some(target) = target.filter(|target| *target != path) {
        predictions.move_to(target)?;
    }
    // At once: a judge may be stopped, and what it has said by then is kept behind a head that is true.
    predictions.rewrite()?;
    Ok((predictions, verifier.take_counts().failed))
}

/// What is in the file already, and what is missing there.
fn generated(
    args: &EvalArgs,
    verifier: &Verifier,
    telemetry: &Telemetry,
    stop: &Stop,
) -> Result<(Predictions, Skipped)> {
    let source = EvalSource::open(args)?;
    let questions = Questions::open(args)?;
    let num_questions = args
        .limit
        .map_or(questions.len(), |limit| limit.min(questions.len()));
    let prompts = Prompts::new(
        Arc::clone(&source.processor),
        args.prompt_template.as_deref(),
        args.max_prompt_tokens,
        args.protocol,
        args.image_rule(),
    )?;
    let settings = settings(args, &source, &prompts);
    let mut predictions = match args.predictions_path() {
        Some(path) => Predictions::resume(&path, settings)?,
        None => Predictions::nowhere(settings),
    };
    if (0..num_questions).all(|index| predictions.has(index)) {
        return Ok((predictions, Skipped::default()));
    }
    let engine = engine(args, &source, num_questions, telemetry, stop)?;
    tracing::info!(
        "evaluating {} on the {} {}",
        predictions.settings.model,
        questions::name(args.benchmark),
        predictions.settings.data
    );
    let progress = telemetry.progress(Some(num_questions as u64));
    let generation = Generation::new(
        &questions,
        &prompts,
        engine,
        &mut predictions,
        verifier,
        num_questions,
    );
    let skipped = generation.run(&progress, stop)?;
    drop(progress);
    if predictions.lines.is_empty() {
        bail!(
            "no sample of {} could be evaluated; {} were skipped",
            predictions.settings.data,
            skipped.count
        );
    }
    Ok((predictions, skipped))
}

fn engine(
    args: &EvalArgs,
    source: &EvalSource,
    num_questions: usize,
    telemetry: &Telemetry,
    stop: &Stop,
) -> Result<Engine> {
    let processor = &source.processor;
    let threads = Threads::new(args.threads, false);
    let settings = engine_settings(args, processor)?;
    let mut loader = ModelLoader::new(
        &processor.config,
        args.engine,
        threads,
        args.precision,
        &DeviceLoad {
            folder: DeviceLoad::users_folder(),
            attention: args.trt_attention,
            rows: args.rows,
            longest: [args.max_prompt_tokens, args.max_response_tokens],
            kv_cache_mib: args.kv_cache_mib,
            sampling: settings.sampling.clone(),
        },
    )?;
    if loader.is_on_cpu() {
        check_memory(args, num_questions, &processor.config)?;
    }
    let weights = WeightsFile::of(
        &source.checkpoint,
        &processor.config,
        &telemetry.progress(None),
        stop,
    )?;
    let ready = loader.load(weights.path(), Haste::Now)?;
    drop(weights); // mapped by now: a copy leaves nothing behind, however this ends
    Ok(Engine::new(settings, ready, PolicyVersion::default())?)
}

fn engine_settings(args: &EvalArgs, processor: &Processor) -> Result<EngineSettings> {
    Ok(EngineSettings {
        rows: args.rows,
        max_response_tokens: args.max_response_tokens,
        cache_blocks: cache_blocks(
            &processor.config.text,
            args.rows,
            [args.max_prompt_tokens, args.max_response_tokens],
            args.kv_cache_mib,
        )?,
        eos: processor.config.tokens.eos.clone(),
        run_seed: args.seed,
        sampling: Sampling {
            temperature: to_f32(args.temperature()),
            top_p: to_f32(args.top_p),
            top_k: args.top_k,
            ..greedy(processor)
        },
    })
}

/// The most likely token at each step.
fn greedy(processor: &Processor) -> Sampling {
    Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        entropy: EntropyKind::Full,
        nucleus_p: 1.0,
        banned: processor.config.tokens.banned(),
        num_tokens: processor.tokenizer.num_ids(),
    }
}

fn settings(args: &EvalArgs, source: &EvalSource, prompts: &Prompts) -> Settings {
    Settings {
        benchmark: args.benchmark,
        data: args.data.clone().unwrap_or_default(),
        model: source.checkpoint.display().to_string(),
        protocol: args.protocol,
        prompt_template: prompts.template().to_owned(),
        image_rule: args.image_rule(),
        min_pixels: args.source.min_pixels,
        max_pixels: args.source.max_pixels,
        with_text_rows: args.with_text_rows,
        max_prompt_tokens: args.max_prompt_tokens,
        max_response_tokens: args.max_response_tokens,
        precision: args.precision.to_string(),
        temperature: args.temperature(),
        top_p: args.top_p,
        top_k: args.top_k,
        seed: args.seed,
        samples_per_problem: args.samples,
        verifier: args.verifier.mode,
        verifier_command: args.verifier.command.clone(),
        format_rule: args.verifier.format_rule,
    }
}

/// Refuses weights that do not fit, and warns of responses that may not.
fn check_memory(args: &EvalArgs, num_samples: usize, config: &ModelConfig) -> Result<()> {
    let load = Load {
        rows: args.rows.min(num_samples.saturating_mul(args.samples)),
        group_size: args.samples,
        max_prompt_tokens: args.max_prompt_tokens,
        max_response_tokens: args.max_response_tokens,
        is_scored: false,
        is_updated: false,
        precision: args.precision,
    };
    MemoryPlan::new(config, load).check_now()
}
