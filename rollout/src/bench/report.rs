//! What was measured, as a table and as JSON.

use std::io::Write;

use anyhow::Result;
use models::config::ModelConfig;
use serde::Serialize;
use shared::measure::{median, peak_memory_mib};

use super::Round;
use super::args::BenchArgs;
use super::curve::Point;
use super::floor::FloorTimes;
use super::swap::Swap;
use crate::engine::Spent;

/// Medians over the rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The checkpoint.
    pub model: String,
    /// Parameters of the language model.
    pub text_parameters: usize,
    /// What the engine computed in.
    pub precision: String,
    /// Responses of a round.
    pub responses: usize,
    /// New tokens of a round.
    pub new_tokens: u64,
    /// Generation with logprobs and entropies.
    pub generation: Timing,
    /// The same with the blank pass.
    pub records: Timing,
    /// Time of the matrix products of generation alone, in f32.
    pub generation_floor_s: f64,
    /// Of the blank pass.
    pub blank_floor_s: f64,
    /// Share of generation's time that its products alone would take.
    pub of_floor: f64,
    /// Time of whole records by time of generation alone.
    pub records_by_generation: f64,
    /// Parts of the time of whole records.
    pub shares: Shares,
    /// Largest resident memory of the process so far.
    pub peak_memory_mib: f64,
    /// With `--curve`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curve: Option<Vec<Point>>,
    /// With `--swap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<Swap>,
}

/// Median time of a round.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Timing {
    /// Seconds.
    pub seconds: f64,
    /// New tokens per second.
    pub tokens_per_second: f64,
}

/// Parts of the engine's time, each the median over the rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Shares {
    /// Embedding images.
    pub vision: f64,
    /// Reading prompts.
    pub prefill: f64,
    /// Passes with one token per row.
    pub decode: f64,
    /// Drawing and measuring.
    pub sampling: f64,
    /// Scoring with the image blanked.
    pub blank: f64,
}

impl Report {
    pub(super) fn new(
        args: &BenchArgs,
        config: &ModelConfig,
        generation: &[Round],
        records: &[Round],
        floors: &[FloorTimes],
    ) -> Self {
        let new_tokens = generation.first().map_or(0, |round| round.tokens);
        let timing = |rounds: &[Round]| {
            let seconds = median(
                rounds
                    .iter()
                    .map(|round| round.time.as_secs_f64())
                    .collect(),
            );
            Timing {
                seconds,
                tokens_per_second: new_tokens as f64 / seconds,
            }
        };
        let floor = |of: fn(&FloorTimes) -> std::time::Duration| {
            median(floors.iter().map(|floor| of(floor).as_secs_f64()).collect())
        };
        let (alone, whole) = (timing(generation), timing(records));
        let generation_floor_s = floor(|floor| floor.generation);
        let text = models::names::tensors(config);
        let text = text.iter().filter(|spec| !spec.name.starts_with("visual."));
        Self {
            model: args.shape.model.display().to_string(),
            text_parameters: text.map(models::names::TensorSpec::len).sum(),
            precision: args.precision.to_string(),
            responses: args.shape.prompts * args.shape.group_size,
            new_tokens,
            generation: alone,
            records: whole,
            generation_floor_s,
            blank_floor_s: floor(|floor| floor.blank),
            of_floor: generation_floor_s / alone.seconds,
            records_by_generation: whole.seconds / alone.seconds,
            shares: Shares::new(records),
            peak_memory_mib: peak_memory_mib(),
            curve: None,
            swap: None,
        }
    }

    /// The table.
    pub(super) fn write(&self, out: &mut dyn Write) -> Result<()> {
        writeln!(
            out,
            "{}: {:.1} M parameters (language model), {}",
            self.model,
            self.text_parameters as f64 / 1e6,
            self.precision
        )?;
        writeln!(
            out,
            "{} responses, {} new tokens a round; medians",
            self.responses, self.new_tokens
        )?;
        writeln!(out)?;
        let row = |out: &mut dyn Write, name: &str, timing: &Timing| {
            writeln!(
                out,
                "{name:<22} {:>9.2} s {:>9.0} tokens/s",
                timing.seconds, timing.tokens_per_second
            )
        };
        row(out, "generation alone", &self.generation)?;
        row(out, "whole records", &self.records)?;
        writeln!(
            out,
            "{:<22} {:>9.2} s   generation {:.1} % of its speed",
            "floor: f32 products",
            self.generation_floor_s,
            100.0 * self.of_floor
        )?;
        writeln!(
            out,
            "{:<22} {:>9.2} s   whole records take {:.2} times generation alone",
            "floor: blank pass", self.blank_floor_s, self.records_by_generation
        )?;
        let Shares {
            vision,
            prefill,
            decode,
            sampling,
            blank,
        } = self.shares;
        writeln!(
            out,
            "shares of records      vision {:.1} %  prefill {:.1} %  decode {:.1} %  sampling {:.1} %  blank pass {:.1} %",
            100.0 * vision,
            100.0 * prefill,
            100.0 * decode,
            100.0 * sampling,
            100.0 * blank
        )?;
        writeln!(
            out,
            "peak resident memory   {:.0} MiB",
            self.peak_memory_mib
        )?;
        if let Some(points) = &self.curve {
            writeln!(
                out,
                "\n{:>5} {:>8} {:>10} {:>12} {:>14} {:>10}",
                "rows", "context", "step ms", "products ms", "ms per token", "cache MiB"
            )?;
            for point in points {
                writeln!(
                    out,
                    "{:>5} {:>8} {:>10.2} {:>12.2} {:>14.3} {:>10.1}",
                    point.rows,
                    point.context,
                    point.step_ms,
                    point.products_ms,
                    point.ms_per_token,
                    point.cache_mib
                )?;
            }
        }
        if let Some(swap) = &self.swap {
            writeln!(
                out,
                "\nnew weights ({:.2} GiB)  {:.2} s alone, {:.2} s beside decoding; step {:.1} ms, longest meanwhile {:.1} ms",
                swap.weights_gib, swap.idle_s, swap.busy_s, swap.step_ms, swap.longest_step_ms
            )?;
        }
        Ok(())
    }
}

impl Shares {
    fn new(rounds: &[Round]) -> Self {
        let share = |part: fn(&Spent) -> std::time::Duration| {
            let shares = rounds
                .iter()
                .map(|round| part(&round.spent).as_secs_f64() / round.spent.total().as_secs_f64());
            median(shares.collect())
        };
        Self {
            vision: share(|spent| spent.vision),
            prefill: share(|spent| spent.prefill),
            decode: share(|spent| spent.decode),
            sampling: share(|spent| spent.sampling),
            blank: share(|spent| spent.blank),
        }
    }
}
