//! `rollout eval`: accuracy of a checkpoint on a data set, greedy or sampled.
//!
//! # Layout
//! - `args`: the command line
//! - `source`: which weights with which processor
//! - `report`: accuracy, pass@k, and how they are shown

mod args;
mod report;
mod source;

pub use args::EvalArgs;
pub use report::{Report, SampleResult, pass_at_k};

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use models::config::ModelConfig;
use shared::dataset::{Dataset, DatasetLimits};
use shared::ids::{PolicyVersion, Ticket};
use shared::telemetry::Telemetry;

use crate::engine::{Engine, EngineSettings, FinishedGroup, Haste, Job, Threads};
use crate::load::ModelLoader;
use crate::memory::{Load, MemoryPlan};
use crate::prompt::PromptBuilder;
use crate::reward::{boxed, equivalent, is_well_formed};
use crate::sampler::{EntropyKind, Sampling};
use crate::setup::{cache_blocks, to_f32};
use crate::stop::Stop;
use crate::weights_file::WeightsFile;
use source::EvalSource;

/// Evaluates, and writes the report to `out`.
///
/// # Errors
/// A model or data set that cannot be read, an engine that does not load, or no sample left to evaluate.
pub fn eval(
    args: &EvalArgs,
    telemetry: &Telemetry,
    stop: &Stop,
    out: &mut dyn Write,
) -> Result<()> {
    args.check()?;
    let source = EvalSource::open(args)?;
    let processor = Arc::clone(&source.processor);
    let dataset = Dataset::open(&args.data, &DatasetLimits::default())?;
    let num_samples = args
        .limit
        .map_or(dataset.len(), |limit| limit.min(dataset.len()));
    let prompts = PromptBuilder::new(
        Arc::clone(&processor),
        args.prompt_template.as_deref(),
        None,
        args.max_prompt_tokens,
    )?;
    let threads = Threads::new(args.threads, false);
    let mut loader = ModelLoader::new(&processor.config, args.engine, threads, args.precision)?;
    if loader.is_on_cpu() {
        check_memory(args, num_samples, &processor.config)?;
    }
    let progress = telemetry.progress(None);
    let weights = WeightsFile::of(&source.checkpoint, &processor.config, &progress, stop)?;
    let model = loader.load(weights.path(), Haste::Now)?;
    drop(weights); // mapped by now: a copy leaves nothing behind, however this ends
    let name = source.checkpoint.display().to_string();
    let settings = EngineSettings {
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
            entropy: EntropyKind::Full,
            nucleus_p: 1.0,
            banned: processor.config.tokens.banned(),
            num_tokens: processor.tokenizer.num_ids(),
        },
    };
    tracing::info!("evaluating {name} on {}", args.data);
    let engine = Engine::new(settings, model, PolicyVersion::default())?;
    let mut evaluation = Evaluation {
        num_samples,
        next: 0,
        engine,
        prompts,
        dataset,
        samples_each: args.samples,
        waiting: HashMap::new(),
        report: Report::new(args, &name),
    };
    while evaluation.advance()? {
        progress.note(&evaluation.report.line(num_samples));
        if stop.is_raised() {
            bail!(
                "stopped after {} of {} samples",
                evaluation.report.samples.len(),
                evaluation.num_samples
            );
        }
    }
    drop(progress);
    let report = evaluation.report.finish();
    if report.samples.is_empty() {
        bail!(
            "no sample of {} could be evaluated; {} were skipped",
            args.data,
            report.num_skipped()
        );
    }
    if let Some(path) = &args.json {
        std::fs::write(path, report.to_json()?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    report.write(out)
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

/// An evaluation under way.
struct Evaluation {
    dataset: Dataset,
    prompts: PromptBuilder,
    engine: Engine,
    num_samples: usize,
    samples_each: usize,
    /// The next row to submit.
    next: usize,
    /// Id and answer of rows under way.
    waiting: HashMap<Ticket, (String, String)>,
    report: Report,
}

impl Evaluation {
    /// Fills the rows and takes one step; false when everything is done.
    fn advance(&mut self) -> Result<bool> {
        while self.next < self.num_samples && self.engine.has_room() {
            self.submit(self.next)?;
            self.next += 1;
        }
        if self.engine.is_idle() {
            return Ok(self.next < self.num_samples);
        }
        self.engine.step()?;
        for group in self.engine.take_finished() {
            self.judge(group)?;
        }
        Ok(true)
    }

    fn submit(&mut self, index: usize) -> Result<()> {
        let sample = match self.dataset.get(index) {
            Ok(sample) => sample,
            Err(error) if error.is_sample() => {
                self.report.skip(error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        match self.prompts.build(&sample) {
            Ok(built) => {
                let ticket = Ticket(index as u64);
                self.engine.submit(Job {
                    ticket,
                    group_size: self.samples_each,
                    prompt: built.inputs,
                    blank: None,
                })?;
                self.waiting.insert(ticket, (sample.id, sample.answer));
            }
            Err(error) => self.report.skip(format!("sample {}: {error:#}", sample.id)),
        }
        Ok(())
    }

    fn judge(&mut self, group: FinishedGroup) -> Result<()> {
        let Some((id, answer)) = self.waiting.remove(&group.ticket) else {
            return Ok(());
        };
        let mut result = SampleResult::new(group.ticket.0, id, answer);
        for response in &group.responses {
            let text = self
                .prompts
                .processor()
                .tokenizer
                .decode(&response.token_ids, true)?;
            let is_right = boxed(&text).is_some_and(|given| equivalent(&given, &result.answer));
            result.add(text.clone(), is_right, is_well_formed(&text), response);
        }
        self.report.add(result);
        Ok(())
    }
}
