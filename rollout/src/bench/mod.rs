//! `rollout bench`: how fast the engine makes records of a checkpoint on this machine, and where the time goes.
//!
//! # Layout
//! - `args`: the command line
//! - `workload`: prompts made up for it
//! - `floor`: what the matrix products alone take
//! - `curve`: a step's time by rows and by context
//! - `swap`: what new weights cost while the engine decodes
//! - `report`: the table and the JSON

mod args;
mod curve;
mod floor;
mod report;
mod swap;
mod workload;

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use models::processor::Processor;
use shared::ids::PolicyVersion;
use shared::telemetry::Telemetry;

pub use args::BenchArgs;
pub use report::Report;

use crate::engine::{Engine, EngineKind, EngineLoader, EngineSettings, Haste, Spent, Threads};
use crate::sampler::{EntropyKind, Sampling};
use crate::setup::{cache_blocks, to_f32};
use crate::stop::Stop;
use crate::weights_file::WeightsFile;
use floor::Floor;
use workload::Workload;

/// Measures, and writes the report to `out`.
///
/// # Errors
/// A model that cannot be read, or an engine that does not run it.
pub fn bench(
    args: &BenchArgs,
    telemetry: &Telemetry,
    stop: &Stop,
    out: &mut dyn Write,
) -> Result<()> {
    let processor = Processor::from_dir(&args.shape.model)?;
    let progress = telemetry.progress(None);
    let weights = WeightsFile::of(&args.shape.model, &processor.config, &progress, stop)?;
    let threads = Threads::new(args.shape.threads, args.pin_threads);
    let loader = EngineLoader::new(&processor.config, threads, EngineKind::Cpu, args.precision)?;
    let _enlisted = threads.enlist_caller();
    let bench = Bench {
        args,
        workload: Workload::new(args, &processor)?,
        loader,
        weights,
        processor,
        stop,
        note: &|text| progress.note(text),
    };
    let mut report = bench.measure()?;
    if args.curve {
        report.curve = Some(curve::measure(&bench)?);
    }
    if args.swap {
        report.swap = Some(swap::measure(&bench)?);
    }
    drop(progress);
    report.write(out)?;
    if let Some(path) = &args.shape.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// What there is to measure with.
struct Bench<'a> {
    args: &'a BenchArgs,
    processor: Processor,
    workload: Workload,
    loader: EngineLoader,
    weights: WeightsFile,
    stop: &'a Stop,
    note: &'a dyn Fn(&str),
}

/// One round of the workload.
#[derive(Debug, Clone, Copy)]
struct Round {
    time: Duration,
    tokens: u64,
    spent: Spent,
}

impl Bench<'_> {
    /// Rounds of generation alone and of whole records in turn, so that whatever else the machine does falls on both.
    fn measure(&self) -> Result<Report> {
        let args = self.args;
        (self.note)("warming up");
        let mut floor = Floor::new(self)?;
        let mut engine = self.engine_for(&self.workload, args.rows)?;
        self.round(&mut engine, true)?;
        let (mut generation, mut records, mut floors) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=args.shape.rounds {
            (self.note)(&format!(
                "round {round} of {}: generation",
                args.shape.rounds
            ));
            generation.push(self.round(&mut engine, false)?);
            (self.note)(&format!(
                "round {round} of {}: whole records",
                args.shape.rounds
            ));
            records.push(self.round(&mut engine, true)?);
            (self.note)(&format!(
                "round {round} of {}: the floor",
                args.shape.rounds
            ));
            floors.push(floor.measure()?);
        }
        Ok(Report::new(
            args,
            &self.processor.config,
            &generation,
            &records,
            &floors,
        ))
    }

    /// An idle engine for such work.
    fn engine_for(&self, workload: &Workload, rows: usize) -> Result<Engine> {
        let args = self.args;
        let new_tokens = workload.new_tokens();
        let text = &self.processor.config.text;
        let settings = EngineSettings {
            rows,
            max_response_tokens: new_tokens,
            cache_blocks: cache_blocks(text, rows, [workload.prompt_tokens(), new_tokens], None)?,
            eos: Vec::new(), // responses of exactly this length
            run_seed: args.shape.seed,
            sampling: Sampling {
                temperature: to_f32(args.temperature),
                top_p: to_f32(args.top_p),
                top_k: 0,
                entropy: EntropyKind::Renormalised,
                nucleus_p: 0.95,
                banned: self.processor.config.tokens.banned(),
                num_tokens: self.processor.tokenizer.num_ids(),
            },
        };
        let model = self.loader.load(self.weights.path(), Haste::Now)?;
        Ok(Engine::new(settings, model, PolicyVersion::default())?)
    }

    fn round(&self, engine: &mut Engine, is_scored: bool) -> Result<Round> {
        let (tokens, spent) = (engine.num_tokens(), engine.spent());
        let start = Instant::now();
        for job in self.workload.jobs(is_scored) {
            engine.submit(job)?;
        }
        while !engine.is_idle() {
            engine.step()?;
            self.check_stop()?;
        }
        engine.take_finished();
        Ok(Round {
            time: start.elapsed(),
            tokens: engine.num_tokens() - tokens,
            spent: engine.spent().since(&spent),
        })
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.is_raised() {
            bail!("stopped before the end; nothing was measured");
        }
        Ok(())
    }
}
