//! `learner bench`: what one update of the policy takes, and how near that is to its matrix products alone.
//!
//! - `args`: the command line
//! - `workload`: groups of a given shape, made up
//! - `floor`: the products that no update can leave out, and how fast this machine does them
//! - `report`: the table and the JSON file

mod args;
pub(crate) mod floor;
mod report;
mod workload;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use models::checkpoint::Checkpoint;
use models::processor::Processor;
use shared::config::Device;
use shared::telemetry::Telemetry;

use crate::batch::Batch;
use crate::device;
use crate::memory;
use crate::model::Model;
use crate::model::selection::Selection;
use crate::optimizer::{AdamW, OptimizerSettings};
use crate::plan::Plan;
use crate::run::loss_settings;
use crate::token_weights::TokenWeights;
use crate::update::{Policy, Targets, UpdateSettings};
pub use args::BenchArgs;
use floor::{Floor, Work};
use report::{Report, Round};

/// Measures, and writes the table to `out`.
///
/// # Errors
/// A model that cannot be read or does not fit the device.
pub fn bench(
    args: &BenchArgs,
    telemetry: &Telemetry,
    stop: &AtomicBool,
    out: &mut dyn Write,
) -> Result<()> {
    let config = args.config();
    config.check()?;
    let resolved = config.resolved();
    let processor = Processor::from_dir(&args.shape.model)?;
    let kind = device::kind(device::dtype(args.dtype, args.device), args.device)?;
    let device = device::open(args.device)?;
    let before = memory::room(args.device);
    if let Some(threads) = args.shape.threads {
        tch::set_num_threads(i32::try_from(threads)?);
    }
    let progress = telemetry.progress(None);
    progress.note("loading the model");
    let checkpoint = Checkpoint::open(&args.shape.model)?;
    let selection = Selection::new(&processor.config, &config.learner, config.run.seed)?;
    let mut model = selection.load(&processor.config, &checkpoint, device, kind)?;
    model.checkpoint_layers(args.checkpoint_layers);
    let mut optimizer = OptimizerSettings::new(&config.learner, 1);
    optimizer.lr = 0.0; // every round finds the same policy
    optimizer.weight_decay = 0.0;
    let reference = match resolved.kl_coef > 0.0 {
        true => Some(Model::load_frozen(
            &processor.config,
            &checkpoint,
            device,
            kind,
        )?),
        false => None,
    };
    drop(checkpoint); // its mapped pages are none of the update's memory
    let mut policy = Policy {
        model,
        reference,
        images: processor.images.clone(),
        optimizer: AdamW::new(optimizer),
        settings: UpdateSettings {
            num_epochs: 1,
            mini_batch_prompts: usize::MAX,
            micro_batch_tokens: device::micro_batch_tokens(args.micro_batch_tokens, args.device),
            mask_truncated: false,
            loss: loss_settings(&config),
        },
    };

    progress.note("making the groups");
    let mut batch = workload::batch(args, &processor)?;
    // On policy, as the first update of a step is.
    batch.rollout_logprobs = policy.logprobs(&policy.model, &batch)?;
    let reference_logprobs = policy.reference_logprobs(&batch)?;
    let advantages = workload::advantages(&batch);
    let tor = TokenWeights::of(&batch, &config.learner.tokens, &resolved, args.shape.seed);
    let targets = Targets {
        advantages: &advantages,
        weights: &tor.weights,
        reference_logprobs: &reference_logprobs,
        importance: None,
    };
    let work = Work::new(
        &processor.config,
        policy.model.parameters(),
        &batch,
        &|response, token| policy.has_gradient(&batch, &targets, response, token),
    );
    let floor = Floor::new(&processor.config, work.decoder_tokens, device, kind);
    let load = workload::largest(&batch, policy.settings.micro_batch_tokens, &processor);
    let plan = Plan::new(
        &config.learner,
        &processor.config,
        &selection,
        policy.reference.is_some(),
        load,
    );
    let one_by_one = args.one_by_one.then(|| workload::one_by_one(&batch));

    let mut round = |batch: &Batch| -> Result<Round> {
        if stop.load(Ordering::SeqCst) {
            bail!("stopped before the end; nothing was measured");
        }
        let start = Instant::now();
        let stages = policy.update(batch, targets)?.stages;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Round { seconds, stages })
    };
    progress.note("warming up");
    round(&batch)?;
    let (mut rounds, mut alone, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for index in 1..=args.shape.rounds {
        progress.note(&format!(
            "round {index} of {}: the update",
            args.shape.rounds
        ));
        rounds.push(round(&batch)?);
        if let Some(batch) = &one_by_one {
            progress.note(&format!(
                "round {index} of {}: one by one",
                args.shape.rounds
            ));
            alone.push(round(batch)?);
        }
        progress.note(&format!(
            "round {index} of {}: the floor",
            args.shape.rounds
        ));
        rates.push(floor.rate()?);
    }
    drop(progress);
    let report = Report::new(args, &work, &rounds, &alone, (rates, plan.total()));
    report.write(out)?;
    if let (Device::Cuda(_), Some(before)) = (args.device, before)
        && let Some(line) = memory::report(&policy, args.device, before)
    {
        writeln!(out, "{line}")?;
    }
    if let Some(path) = &args.shape.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
