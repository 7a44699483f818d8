//! `rollout`: the stages of a run and the bounded channels between them.
//!
//! ```text
//!  control page: tickets ──► claim ──prepared──► generate ──outcomes──► emit ──► ring ──► learner
//!                versions ──► reload ──models──────┘  (claim ──skipped──┘)  └──► validation/
//!                validation asked ─────────────────┘
//! ```
//!
//! Every stage is a thread. Whichever fails or is told to stop first takes the others along; what is unfinished goes back to
//! the board when the seat is left.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use crossbeam_channel::bounded;
use models::processor::Processor;
use shared::config::RunConfig;
use shared::control::{Seat, Waiting};
use shared::dataset::{Dataset, DatasetLimits};
use shared::ring::Producer;
use shared::run_dir;
use shared::telemetry::{Metrics, Source, Telemetry};

use crate::claim::Claims;
use crate::emit::{Emitter, Summary};
use crate::engine::Threads;
use crate::eval::validation::unasked;
use crate::generate::{Generator, TakeWeights};
use crate::load::probe_engine;
use crate::reload::follow;
use crate::setup::Setup;
use crate::stats::Counters;
use crate::stop::Stop;

/// Prompts made ready ahead of the engine. Few: another rollout may be free sooner.
const PREPARED: usize = 2;
/// Finished groups ahead of the verifier.
const OUTCOMES: usize = 16;

/// What stands on the command line: settled whatever the learner's configuration will say.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// `--model`
    pub model: bool,
    /// `--data`
    pub data: bool,
}

/// Takes part in the run until it is over or `stop` is raised.
///
/// `load_config` is asked again once the learner is there: what it wrote into the run folder is then known.
///
/// # Errors
/// What the user must mend, in one line.
pub fn run(
    load_config: &dyn Fn() -> Result<RunConfig>,
    given: Given,
    telemetry: &Telemetry,
    stop: &Stop,
) -> Result<()> {
    let config = load_config()?;
    check_early(&config, given)?;
    let run_dir = config.run.run_dir;
    run_dir::create(&run_dir)?;
    let Some(seat) = Seat::join(&run_dir, &|| stop.is_raised(), &mut |waiting| {
        say_waiting(waiting, &run_dir);
    })?
    else {
        return Ok(());
    };
    if !first_version(&seat, stop)? {
        return Ok(());
    }
    let config = load_config()?;
    config.check_group_size()?;
    if let Some(line) = unasked(&config) {
        tracing::warn!("{line}");
    }
    let setup = Setup::new(&config)?;
    tracing::info!(
        "rollout {} of the run in {}: {} samples, prompt template {}",
        seat.index(),
        run_dir.display(),
        setup.samples.len(),
        setup.prompts.template().name()
    );
    let summary = stages(&config, setup, &seat, telemetry, stop)?;
    let reason = if seat.stopping() {
        "the run is over"
    } else {
        "stopped"
    };
    let Summary { sums, counted } = summary;
    tracing::info!("{reason}; {}  {}", sums.line(&counted), counted.busy_line());
    Ok(())
}

/// Finds what is wrong already now, rather than when a learner has come.
fn check_early(config: &RunConfig, given: Given) -> Result<()> {
    probe_engine(config.rollout.engine)?;
    let is_saved = config.run.run_dir.join(shared::config::FILE_NAME).exists();
    if given.model || is_saved {
        Processor::from_dir(&config.run.model)?;
    }
    if given.data || is_saved {
        let keys = config.rollout.source.keys();
        Dataset::open_with(&config.rollout.data, &keys, &DatasetLimits::default())?;
    }
    if let Some(data) = &config.rollout.validation_data {
        let keys = config.rollout.source.keys();
        Dataset::open_with(data, &keys, &DatasetLimits::default()).context("--validation-data")?;
    } else if config.rollout.validation_limit.is_some() {
        bail!(
            "--validation-limit has no effect without --validation-data: give that, or leave it out"
        );
    }
    Ok(())
}

/// Runs the stages; returns when all have ended.
fn stages(
    config: &RunConfig,
    setup: Setup,
    seat: &Seat,
    telemetry: &Telemetry,
    stop: &Stop,
) -> Result<Summary> {
    let run_dir = &config.run.run_dir;
    let ring = Producer::open_or_create(&seat.ring_path(), config.rollout.ring_mib << 20)?;
    let metrics =
        Metrics::open(run_dir, Source::Rollout(seat.index())).context("the metrics file")?;
    let Setup {
        mut loader,
        engine,
        records,
        samples,
        prompts,
        validator,
    } = setup;
    let may_be_stale = config.learner.max_staleness > 0;
    let (counters, loaded) = (Counters::default(), AtomicU64::new(0));
    let is_validating = AtomicBool::new(false);

    let (prepared_out, prepared_in) = bounded(PREPARED);
    let (outcomes_out, outcomes_in) = bounded(OUTCOMES);
    let (models_out, models_in) = bounded(1);
    let (wake_out, wake_in) = bounded(1);
    let claims = Claims {
        seat,
        samples,
        prompts,
        may_be_stale,
        loaded: &loaded,
        is_validating: &is_validating,
        wake: wake_out,
        prepared: prepared_out,
        outcomes: outcomes_out.clone(),
        clocks: &counters.clocks,
    };
    let generator = Generator {
        seat,
        settings: engine,
        validator,
        group_size: config.rollout.group_size,
        threads: Threads::new(config.rollout.threads, config.rollout.pin_threads),
        when: TakeWeights::from(config),
        prepared: prepared_in,
        models: models_in,
        outcomes: outcomes_out,
        loaded: &loaded,
        is_validating: &is_validating,
        counters: &counters,
    };
    let emitter = Emitter {
        seat,
        run_dir,
        ring,
        outcomes: outcomes_in,
        records,
        counters: &counters,
        metrics,
        progress: telemetry.progress(None),
    };

    let is_stopping = || stop.is_raised() || seat.stopping();
    thread::scope(|scope| {
        let stages = [
            spawn(scope, "reload", stop, || {
                follow(
                    seat,
                    run_dir,
                    &mut loader,
                    &wake_in,
                    &models_out,
                    &counters.clocks,
                    &is_stopping,
                )
            }),
            spawn(scope, "claim", stop, || claims.run(&is_stopping)),
            spawn(scope, "generate", stop, || generator.run(&is_stopping)),
        ];
        let summary = emitter.run(&is_stopping).inspect_err(|_| stop.raise());
        let ended: Vec<Result<()>> = stages
            .into_iter()
            .map(|stage| stage.and_then(join))
            .collect();
        ended.into_iter().collect::<Result<()>>()?;
        summary
    })
}

/// Starts a stage. A stage that fails stops the others.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    stop: &Stop,
    stage: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, Result<T>>> {
    let (failed, stop) = (stop, stop.clone());
    let run = move || {
        let _raise = RaiseOnPanic(stop.clone());
        stage().inspect_err(|_| stop.raise())
    };
    let started = thread::Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, run);
    started
        .inspect_err(|_| failed.raise())
        .context("cannot start a thread")
}

/// A stage that dies must not leave the others waiting for it.
struct RaiseOnPanic(Stop);

impl Drop for RaiseOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.raise();
        }
    }
}

fn join<T>(stage: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let name = stage.thread().name().unwrap_or_default().to_owned();
    stage
        .join()
        .unwrap_or_else(|_| Err(anyhow!("the stage `{name}` died, which is a bug")))
}

/// Waits until there are weights to run; false when stopped first.
fn first_version(seat: &Seat, stop: &Stop) -> Result<bool> {
    while seat.version().is_none() {
        if stop.is_raised() || seat.stopping() {
            return Ok(false);
        }
        seat.heartbeat()?;
        seat.wait_work(std::time::Duration::from_millis(200))?;
    }
    Ok(true)
}

fn say_waiting(waiting: Waiting, run_dir: &Path) {
    let run_dir = run_dir.display();
    let line = match waiting {
        Waiting::NoLearner => format!("waiting for a learner: start `learner --run-dir {run_dir}`"),
        Waiting::Finished => {
            format!("the run in {run_dir} is over; waiting for a learner that goes on with it")
        }
        Waiting::OtherMachine => format!(
            "the run in {run_dir} was left by another machine or boot; waiting for a learner here to take it over"
        ),
    };
    tracing::info!("{line}");
}
