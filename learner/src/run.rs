//! A whole run: open or resume, train step by step, save, say how it went.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::image::ImageProcessor;
use rustix::fs::Mode;
use shared::config::{self, Device, KlIn, RunConfig};
use shared::control::LearnerControl;
use shared::ids::PolicyVersion;
use shared::run_dir;
use shared::telemetry::{Metrics, Source as MetricsSource, Telemetry};

use crate::adapter;
use crate::after_sync::AfterSync;
use crate::bench::floor::Floor;
use crate::best;
use crate::checkpoint::{self, Saved, Snapshot};
use crate::device;
use crate::loss::LossSettings;
use crate::memory::{self, Room};
use crate::metrics::StepReport;
use crate::model::Model;
use crate::model::selection::Selection;
use crate::opening::{discard_rings, find_saved, report_start};
use crate::optimizer::{AdamW, OptimizerSettings};
use crate::plan;
use crate::publish::Publisher;
use crate::reference_kl::KlController;
use crate::sampling::Sampling;
use crate::source::{Source, SourceState};
use crate::summary::Summary;
use crate::tally::Tally;
use crate::train::{Stepped, Trainer};
use crate::update::{Policy, UpdateSettings};
use crate::validation::{self, Standing, Validations};

/// Tokens of the matrix products whose speed utilisation is measured by: a second or two of the largest models on a CPU.
const MEASURED_TOKENS: usize = 512;

/// Trains until all steps are done or `stop` goes up; both end with a checkpoint.
pub fn run(config: &RunConfig, stop: &AtomicBool, telemetry: &Telemetry) -> Result<()> {
    let mut run = Run::open(config)?;
    let progress = telemetry.progress(Some(config.learner.steps));
    let is_stopping = || stop.load(Ordering::SeqCst);
    let note = |text: &str| progress.note(text);

    let weights = run.trainer.publish(run.validations.is_open())?;
    run.published(&weights);
    run.validate(&is_stopping, &note)?;
    while run.trainer.step < config.learner.steps && !is_stopping() {
        match run.step(&is_stopping, &note)? {
            Stepped::Trained(weights, report) => {
                run.published(&weights);
                progress.step(report.step, &report.line());
                run.validations.expect(report.step);
                // Before the wait, which may be long: a crash in it loses no step.
                run.log(&report)?;
                run.report_memory();
                run.save_if_due()?;
                run.validate(&is_stopping, &note)?;
            }
            Stepped::Starved(tally) => return run.starved(&tally),
            Stepped::Stopped => break,
        }
    }
    run.after_sync.finish();
    run.save()?;
    drop(progress);
    run.end()
}

/// A run in progress.
struct Run<'a> {
    config: &'a RunConfig,
    trainer: Trainer,
    metrics: Metrics,
    validations: Validations,
    summary: Summary,
    after_sync: AfterSync,
    /// What the device had left before anything was loaded; taken by the report on memory after the first step.
    room: Option<Room>,
    /// The newest publication.
    weights: PathBuf,
    /// What the newest checkpoint is of: a step, and how much had come in for the next one.
    saved: Option<(u64, Tally)>,
}

impl<'a> Run<'a> {
    fn open(config: &'a RunConfig) -> Result<Self> {
        let (run_dir, args) = (&config.run.run_dir, &config.learner);
        // Before anything is made: a wrong model folder leaves no run behind.
        config.check_group_size()?;
        let model_config = ModelConfig::from_dir(&config.run.model)?;
        let images = ImageProcessor::from_dir(&config.run.model, &model_config.vision)?;
        let initial = Checkpoint::open(&config.run.model)?;
        initial.check(&model_config)?;
        let selection = Selection::new(&model_config, args, config.run.seed)?;
        let kind = device::kind(device::dtype(args.dtype, args.device), args.device)?;
        let device = device::open(args.device)?;
        plan::check(config, &model_config)?;
        let room = memory::room(args.device);
        if let Some(threads) = args.threads {
            tch::set_num_threads(i32::try_from(threads)?);
        }

        // Everything a run writes is its owner's alone, whoever writes it.
        rustix::process::umask(Mode::from_raw_mode(0o077));
        run_dir::create(run_dir)?;
        // Refused before the control page is touched: a finished run stays finished.
        let saved = find_saved(run_dir, args.resume)?;
        if let Some(saved) = &saved {
            adapter::check(&saved.dir, saved.adapter().as_deref(), selection.lora())?;
        }
        let mut control = LearnerControl::create_or_open(run_dir)?;
        if saved.is_none() && !args.resume {
            discard_rings(&control)?;
        }
        config::save(config)?;
        let step = saved.as_ref().map_or(0, |saved| saved.step);
        let mut metrics = Metrics::open(run_dir, MetricsSource::Learner)?;
        // Only a validation has a row of step 0: a run that begins anew forgets it too.
        metrics.rewind(saved.as_ref().map_or(0, |_| step + 1))?;
        let validations = Validations::open(run_dir, args, saved.as_ref().map(|_| step))?;

        let resolved = config.resolved();
        let loss = loss_settings(config);
        let mut model = match &saved {
            Some(saved) => {
                let base = (&initial, config.run.model.as_path());
                saved.model(&selection, &model_config, base, (device, kind))?
            }
            None => selection.load(&model_config, &initial, device, kind)?,
        };
        model.checkpoint_layers(args.checkpoint_layers);
        let reference = match (resolved.kl_coef > 0.0, selection.lora()) {
            (false, _) => None,
            // The base is there already, and stays as it is.
            (true, Some(_)) => Some(model.base()?),
            (true, None) => Some(Model::load_frozen(&model_config, &initial, device, kind)?),
        };
        let updates_per_step =
            args.batch_prompts.div_ceil(resolved.mini_batch_prompts) * args.update_epochs;
        let optimizer = OptimizerSettings::new(args, updates_per_step);
        let optimizer = match &saved {
            Some(saved) => AdamW::load(optimizer, &saved.optimizer(), model.parameters())?,
            None => AdamW::new(optimizer),
        };
        let settings = UpdateSettings {
            num_epochs: args.update_epochs,
            mini_batch_prompts: resolved.mini_batch_prompts,
            micro_batch_tokens: device::micro_batch_tokens(args.micro_batch_tokens, args.device),
            mask_truncated: args.objective.mask_truncated,
            loss,
        };
        let policy = Policy {
            model,
            reference,
            images,
            optimizer,
            settings,
        };

        let floor = Floor::new(&model_config, MEASURED_TOKENS, device, kind);
        let products_per_second = floor.rate()?;
        let sampling = Sampling {
            batch_prompts: args.batch_prompts,
            max_rounds: args.sampling_rounds,
            max_staleness: args.max_staleness,
            group_filter: resolved.group_filter,
            needs_greedy: resolved.has_greedy_baseline(),
            compares_responses: resolved.compares_responses(),
        };
        let saved_at = saved.as_ref().map(|saved| (saved.step, saved.source.tally));
        let kl = kl_controller(config, saved.as_ref());
        report_start(config, saved.as_ref(), &policy);
        let state = saved.map_or_else(SourceState::default, |saved| saved.source);
        let trainer = Trainer {
            run_dir: run_dir.clone(),
            seed: config.run.seed,
            args: args.clone(),
            resolved,
            publisher: Publisher::new(run_dir),
            is_followed: args.after_sync.is_some(),
            source: Source::new(model_config, sampling, state, &mut control)?,
            control,
            policy,
            kl,
            step,
            products_per_second,
        };
        Ok(Self {
            config,
            trainer,
            metrics,
            validations,
            summary: Summary::new(step),
            after_sync: AfterSync::new(args.after_sync.clone()),
            room,
            weights: PathBuf::new(),
            saved: saved_at,
        })
    }

    fn step(&mut self, is_stopping: &dyn Fn() -> bool, note: &dyn Fn(&str)) -> Result<Stepped> {
        let is_due = |step| self.validations.is_due(step);
        self.trainer.step(is_stopping, note, &is_due)
    }

    fn published(&mut self, weights: &Path) {
        self.weights = weights.to_owned();
        self.after_sync.start(
            &self.trainer.run_dir,
            PolicyVersion(self.trainer.step),
            weights,
        );
    }

    /// Waits for the answer about the version published last, where one was asked for, and keeps the checkpoint of the best version so
    /// far beside the newest ones.
    fn validate(&mut self, is_stopping: &dyn Fn() -> bool, note: &dyn Fn(&str)) -> Result<()> {
        if !self.validations.is_open() {
            return Ok(());
        }
        note("waiting for the validation");
        let answer = self.trainer.validated(&mut self.validations, is_stopping)?;
        let Some(validation) = answer else {
            return Ok(()); // stopped before it came
        };
        let step = self.trainer.step;
        let row = validation::metrics(&validation);
        let standing = self.validations.add(validation)?;
        if standing != Standing::OtherProblems {
            self.log_row(step, &row)?;
        }
        if standing == Standing::Best {
            // What has come in since a checkpoint of this step does not make it another.
            if self.saved.is_none_or(|(saved, _)| saved != step) {
                self.save()?;
            }
            let run_dir = &self.trainer.run_dir;
            best::link(run_dir, step)?;
            checkpoint::prune(run_dir, self.config.learner.keep_checkpoints)?;
        }
        Ok(())
    }

    fn log(&mut self, report: &StepReport) -> Result<()> {
        for (index, update) in report
            .update
            .updates
            .iter()
            .enumerate()
            .filter(|(_, update)| update.is_skipped)
        {
            tracing::error!(
                "step {}, update {}: the gradient norm is {}; update skipped",
                report.step,
                index + 1,
                update.grad_norm
            );
        }
        // The progress line says how many were kept; a thin batch deserves its reasons.
        let (kept, wanted) = (report.batch.groups.len(), self.config.learner.batch_prompts);
        if kept < wanted.div_ceil(2) {
            tracing::warn!(
                "step {}: {kept} of {wanted} groups kept, {}",
                report.step,
                report.tally.reasons()
            );
        }
        self.summary.add(report);
        let mut metrics = report.metrics();
        metrics.push(("sync/failed_commands", self.after_sync.num_failed() as f64));
        self.log_row(report.step, &metrics)
    }

    /// On a GPU, once.
    fn report_memory(&mut self) {
        let device = self.config.learner.device;
        let (Some(before), Device::Cuda(_)) = (self.room.take(), device) else {
            return;
        };
        if let Some(line) = memory::report(&self.trainer.policy, device, before) {
            tracing::info!("{line}");
        }
    }

    fn log_row(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        self.metrics
            .log(step, values)
            .context("cannot write metrics.jsonl")
    }

    fn save_if_due(&mut self) -> Result<()> {
        let every = self.config.learner.save_every;
        if every > 0 && self.trainer.step.is_multiple_of(every) {
            self.save()
        } else {
            Ok(())
        }
    }

    fn save(&mut self) -> Result<()> {
        // A checkpoint takes the published file.
        self.trainer.publisher.finish()?;
        let now = (self.trainer.step, *self.trainer.source.tally());
        if self.saved == Some(now) {
            return Ok(());
        }
        let source = self.trainer.source.state();
        let config = config_now(self.config, &self.trainer.kl);
        let snapshot = Snapshot {
            step: self.trainer.step,
            weights: &self.weights,
            lora: self.trainer.policy.model.parameters().lora(),
            optimizer: &self.trainer.policy.optimizer,
            source: &source,
            config: &config,
        };
        let path = checkpoint::save(
            &self.trainer.run_dir,
            &snapshot,
            self.config.learner.keep_checkpoints,
        )?;
        tracing::info!("saved {}", path.display());
        self.saved = Some(now);
        Ok(())
    }

    /// Nothing left to train on: the run cannot go on by itself.
    fn starved(mut self, tally: &Tally) -> Result<()> {
        self.after_sync.finish();
        self.save()?;
        self.trainer.control.stop();
        let step = self.trainer.step + 1;
        bail!(
            "step {step}: no group was kept, {}; raise --group-size, --temperature or --sampling-rounds, or use --group-filter off, and --resume",
            tally.reasons()
        )
    }

    fn end(self) -> Result<()> {
        let steps = self.config.learner.steps;
        if self.trainer.step >= steps {
            self.trainer.control.stop();
        } else {
            tracing::info!(
                "stopped at step {} of {steps}; --resume goes on, the rollouts wait for it",
                self.trainer.step
            );
        }
        for line in self
            .summary
            .lines(&self.trainer, self.after_sync.num_failed())
        {
            tracing::info!("{line}");
        }
        if let Some(line) = self.validations.line() {
            tracing::info!("{line}");
        }
        Ok(())
    }
}

pub(crate) fn loss_settings(config: &RunConfig) -> LossSettings {
    let (args, resolved) = (&config.learner, config.resolved());
    LossSettings {
        surrogate: resolved.surrogate,
        clip_low: resolved.clip_low,
        clip_high: resolved.clip_high,
        dual_clip: args.objective.dual_clip,
        sapo_tau_positive: resolved.sapo_tau_positive,
        sapo_tau_negative: resolved.sapo_tau_negative,
        kl_coef: match resolved.kl_in {
            KlIn::Loss => resolved.kl_coef,
            KlIn::Reward => 0.0,
        },
        kl_estimator: resolved.kl_estimator,
        kl_weighted: args.objective.kl_weighted,
        perception_kl_coef: args.objective.perception_kl_coef,
        entropy_coef: args.objective.entropy_coef,
        aggregation: resolved.aggregation,
        aggregation_length: resolved.aggregation_length,
        normaliser: args.tokens.tor_normaliser,
    }
}

/// The KL term's coefficient; an adaptive one goes on from where the checkpoint's configuration has it.
fn kl_controller(config: &RunConfig, saved: Option<&Saved>) -> KlController {
    let resolved = config.resolved();
    let Some(target) = config.learner.objective.kl_target else {
        return KlController::new(resolved.kl_coef, None);
    };
    let before = saved.and_then(|saved| saved.config["learner"]["kl_coef"].as_f64());
    KlController::new(
        before.unwrap_or(resolved.kl_coef),
        Some((target, resolved.kl_horizon)),
    )
}

/// The configuration of a checkpoint: an adaptive coefficient stands in it as it is now.
fn config_now(config: &RunConfig, kl: &KlController) -> RunConfig {
    let mut config = config.clone();
    if kl.is_adaptive() {
        config.learner.objective.kl_coef = Some(kl.coefficient());
    }
    config
}
