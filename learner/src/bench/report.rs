//! What was measured, as a table and as JSON.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use shared::measure::{median, peak_memory_mib};

use super::args::BenchArgs;
use super::floor::Work;
use crate::device;
use crate::update::Stages;

/// One update.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) seconds: f64,
    pub(super) stages: Stages,
}

/// Everything that was measured; times are medians over the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    model: String,
    dtype: String,
    prompts: usize,
    group_size: usize,
    work: Work,
    /// One update: forward, backward, optimizer.
    update_s: f64,
    response_tokens_per_second: f64,
    /// Counted operations by the update's time.
    gflops: f64,
    /// What products alone reach.
    products_gflops: f64,
    /// The counted operations at that rate.
    floor_s: f64,
    of_floor: f64,
    /// The same update with a prompt for each response.
    #[serde(skip_serializing_if = "Option::is_none")]
    one_by_one_s: Option<f64>,
    shares: Shares,
    peak_memory_mib: f64,
    /// What `learner plan` would have said of it.
    planned_memory_mib: f64,
}

/// Parts of the update's time.
#[derive(Debug, Clone, Copy, Serialize)]
struct Shares {
    images: f64,
    forward: f64,
    loss: f64,
    backward: f64,
    optimizer: f64,
}

impl Report {
    pub(super) fn new(
        args: &BenchArgs,
        work: &Work,
        rounds: &[Round],
        alone: &[Round],
        (rates, planned): (Vec<f64>, u64),
    ) -> Self {
        let seconds = |rounds: &[Round]| median(rounds.iter().map(|round| round.seconds).collect());
        let (update_s, rate) = (seconds(rounds), median(rates));
        let floor_s = work.flops / rate;
        let share = |part: fn(&Stages) -> f64| {
            median(
                rounds
                    .iter()
                    .map(|round| part(&round.stages) / round.seconds)
                    .collect(),
            )
        };
        Self {
            model: args.shape.model.display().to_string(),
            prompts: args.shape.prompts,
            group_size: args.shape.group_size,
            work: *work,
            update_s,
            response_tokens_per_second: work.response_tokens as f64 / update_s,
            gflops: work.flops / update_s / 1e9,
            products_gflops: rate / 1e9,
            floor_s,
            of_floor: floor_s / update_s,
            one_by_one_s: (!alone.is_empty()).then(|| seconds(alone)),
            shares: Shares {
                images: share(|stages| stages.images),
                forward: share(|stages| stages.forward),
                loss: share(|stages| stages.loss),
                backward: share(|stages| stages.backward),
                optimizer: share(|stages| stages.optimizer),
            },
            dtype: device::dtype(args.dtype, args.device).to_string(),
            peak_memory_mib: peak_memory_mib(),
            planned_memory_mib: planned as f64 / f64::from(1 << 20),
        }
    }

    /// The table.
    pub(super) fn write(&self, out: &mut dyn Write) -> Result<()> {
        let Work {
            response_tokens,
            weighted_tokens,
            decoder_tokens,
            patches,
            flops,
        } = self.work;
        writeln!(
            out,
            "{}: {} prompts x {} responses, {response_tokens} response tokens, {weighted_tokens} with a gradient",
            self.model, self.prompts, self.group_size
        )?;
        writeln!(
            out,
            "the decoder computes {decoder_tokens} tokens, the vision tower {patches} patches: {:.2} TFLOP; medians",
            flops / 1e12
        )?;
        writeln!(
            out,
            "\n{:<22} {:>9.2} s {:>9.0} tokens/s {:>7.0} GFLOP/s",
            "update", self.update_s, self.response_tokens_per_second, self.gflops
        )?;
        writeln!(
            out,
            "{:<22} {:>9.2} s   {:.0} GFLOP/s; the update at {:.1} % of its speed",
            format!("floor: {} products", self.dtype),
            self.floor_s,
            self.products_gflops,
            100.0 * self.of_floor
        )?;
        if let Some(one_by_one_s) = self.one_by_one_s {
            writeln!(
                out,
                "{:<22} {:>9.2} s   {:.2} times as long",
                "one by one",
                one_by_one_s,
                one_by_one_s / self.update_s
            )?;
        }
        let Shares {
            images,
            forward,
            loss,
            backward,
            optimizer,
        } = self.shares;
        writeln!(
            out,
            "shares of the update   images {:.1} %  forward {:.1} %  loss {:.1} %  backward {:.1} %  optimizer {:.1} %",
            100.0 * images,
            100.0 * forward,
            100.0 * loss,
            100.0 * backward,
            100.0 * optimizer
        )?;
        writeln!(
            out,
            "peak resident memory   {:.0} MiB; planned on the device {:.0} MiB",
            self.peak_memory_mib, self.planned_memory_mib
        )?;
        Ok(())
    }
}
