//! What new weights cost: their session made while nothing else runs, and while the engine decodes.

use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;
use shared::ids::PolicyVersion;
use shared::measure::median;

use super::Bench;
use crate::engine::Haste;

/// Sessions that are made with nothing else running.
const REPEATS: usize = 3;

/// Times of a change of weights.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Swap {
    /// Size of the weights file.
    pub weights_gib: f64,
    /// Median time to make the sessions with nothing else running.
    pub idle_s: f64,
    /// Time to make them while the engine decodes.
    pub busy_s: f64,
    /// Median step before.
    pub step_ms: f64,
    /// Longest step while the sessions were made and handed over.
    pub longest_step_ms: f64,
}

/// Decodes with all rows while the same weights are loaded again on another thread, then goes on with them.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Swap> {
    (bench.note)("new weights");
    let path = bench.weights.path();
    let seconds = |_| -> Result<f64> {
        let start = Instant::now();
        drop(bench.loader.load(path, Haste::Now)?);
        Ok(start.elapsed().as_secs_f64())
    };
    let idle_s = median((0..REPEATS).map(seconds).collect::<Result<_>>()?);

    let workload = bench.workload.with_new_tokens(4096);
    let mut engine = bench.engine_for(&workload, bench.args.rows)?;
    workload
        .jobs(false)
        .try_for_each(|job| engine.submit(job))?;
    let mut step = || -> Result<f64> {
        let start = Instant::now();
        engine.step()?;
        bench.check_stop()?;
        if engine.is_idle() {
            bail!(
                "the responses ended before the new weights were ready: raise --rows or --prompts"
            );
        }
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    step()?; // the prompts
    let before: Vec<f64> = (0..8).map(|_| step()).collect::<Result<_>>()?;
    let loader = &bench.loader;
    let mut longest = 0.0_f64;
    let (made, busy_s) = std::thread::scope(|scope| -> Result<_> {
        let loading = scope.spawn(|| {
            let start = Instant::now();
            let made = loader.load(path, Haste::Background);
            (made, start.elapsed().as_secs_f64())
        });
        while !loading.is_finished() {
            longest = longest.max(step()?);
        }
        let (made, seconds) = loading
            .join()
            .map_err(|_| anyhow::anyhow!("the thread that loads died"))?;
        Ok((made?, seconds))
    })?;
    let start = Instant::now();
    engine.set_weights(made, PolicyVersion(1))?;
    engine.step()?;
    longest = longest.max(start.elapsed().as_secs_f64() * 1e3);
    Ok(Swap {
        weights_gib: std::fs::metadata(path)?.len() as f64 / f64::from(1 << 30),
        idle_s,
        busy_s,
        step_ms: median(before),
        longest_step_ms: longest,
    })
}
