//! A step's time by rows and by context, beside what its matrix products and its cache cost.

use anyhow::Result;
use models::made_up::ImageSize;
use serde::Serialize;
use shared::measure::median;

use super::Bench;
use super::floor::Floor;
use super::workload::Workload;

/// Steps that are measured at each point.
const STEPS: usize = 12;
/// Contexts, in tokens of the prompt.
const CONTEXTS: [usize; 5] = [128, 256, 512, 1024, 2048];

/// One point of the curve.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    /// Rows in the step.
    pub rows: usize,
    /// Prompt tokens of each row.
    pub context: usize,
    /// Median time of a decoding step, sampling included.
    pub step_ms: f64,
    /// Of its matrix products alone.
    pub products_ms: f64,
    /// Step time per row.
    pub ms_per_token: f64,
    /// Keys and values that the step reads, each once.
    pub cache_mib: f64,
}

/// By rows (powers of two up to `--rows`) after a short prompt, then by context at `--rows` rows; groups as in the workload.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Vec<Point>> {
    let args = bench.args;
    let mut floor = Floor::new(bench)?;
    let mut points = Vec::new();
    let powers = std::iter::successors(Some(1_usize), |rows| Some(rows * 2));
    for rows in powers.take_while(|&rows| rows <= args.rows) {
        points.push(point(bench, &mut floor, rows, CONTEXTS[0])?);
    }
    for &context in CONTEXTS.iter().skip(1) {
        points.push(point(bench, &mut floor, args.rows, context)?);
    }
    Ok(points)
}

fn point(bench: &Bench<'_>, floor: &mut Floor<'_>, rows: usize, context: usize) -> Result<Point> {
    (bench.note)(&format!("curve: {rows} rows after {context} tokens"));
    let text = &bench.processor.config.text;
    let group_size = bench.args.shape.group_size.min(rows);
    let prompts = rows.div_ceil(group_size);
    let workload = Workload::of_size(
        bench.args,
        &bench.processor,
        prompts,
        context,
        ImageSize::NONE,
    )?
    .with_group_size(group_size)
    .with_new_tokens(STEPS + 2);
    let mut engine = bench.engine_for(&workload, rows)?;
    workload
        .jobs(false)
        .try_for_each(|job| engine.submit(job))?;
    engine.step()?; // prompts, and a step to warm up
    let mut times = Vec::with_capacity(STEPS);
    for _ in 0..STEPS {
        let start = std::time::Instant::now();
        engine.step()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        bench.check_stop()?;
    }
    let step_ms = median(times);
    let token_bytes = 2 * text.num_layers * text.num_kv_heads * text.head_dim * size_of::<f32>();
    let cached = prompts * context + rows * STEPS / 2;
    Ok(Point {
        rows,
        context,
        step_ms,
        products_ms: floor.pass(rows, rows)? * 1e3,
        ms_per_token: step_ms / rows as f64,
        cache_mib: (cached * token_bytes) as f64 / f64::from(1 << 20),
    })
}
