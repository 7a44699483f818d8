//! The least that a round can take: its matrix products and nothing else, measured on the same threads.
//!
//! Generation: the prompts in one pass, then as many passes over all rows as there are new tokens. The blank pass: prompts
//! and responses in passes as wide as the engine's.

use std::time::Duration;

use anyhow::Result;
use shared::measure::median;

use super::Bench;
use crate::engine::{PASS_TOKENS, Products};

/// Passes that are measured at each width.
const REPEATS: usize = 5;

/// Times of the products, for the report.
#[derive(Debug, Clone, Copy)]
pub(super) struct FloorTimes {
    /// Of generation.
    pub(super) generation: Duration,
    /// Of the blank pass.
    pub(super) blank: Duration,
}

/// The products, and how often each width occurs.
pub(super) struct Floor<'a> {
    bench: &'a Bench<'a>,
    products: Products,
}

impl<'a> Floor<'a> {
    pub(super) fn new(bench: &'a Bench<'a>) -> Result<Self> {
        Ok(Self {
            products: bench.loader.load_products(bench.weights.path())?,
            bench,
        })
    }

    pub(super) fn measure(&mut self) -> Result<FloorTimes> {
        let args = self.bench.args;
        let responses = args.shape.prompts * args.shape.group_size;
        let rows = args.rows.min(responses);
        // The first token comes from the prompt's pass.
        let steps = (args.shape.new_tokens - 1) as f64 * responses as f64 / rows as f64;
        let prompt_tokens = args.shape.prompts * self.bench.workload.prompt_tokens();
        let step = self.pass(rows, rows)?;
        let prompts = self.wide(prompt_tokens, args.shape.prompts)?;
        let blank_tokens =
            args.shape.prompts * args.shape.prompt_tokens + responses * (args.shape.new_tokens - 1);
        let blank = self.wide(blank_tokens, responses * args.shape.new_tokens)?;
        Ok(FloorTimes {
            generation: Duration::from_secs_f64(step * steps + prompts),
            blank: Duration::from_secs_f64(blank),
        })
    }

    /// Seconds of one pass.
    pub(super) fn pass(&mut self, tokens: usize, logit_rows: usize) -> Result<f64> {
        let mut times = Vec::with_capacity(REPEATS);
        self.products.run(tokens, logit_rows)?;
        for _ in 0..REPEATS {
            times.push(self.products.run(tokens, logit_rows)?.as_secs_f64());
            self.bench.check_stop()?;
        }
        Ok(median(times))
    }

    /// Seconds of passes of at most `PASS_TOKENS`, in proportion.
    fn wide(&mut self, tokens: usize, logit_rows: usize) -> Result<f64> {
        let passes = tokens as f64 / PASS_TOKENS as f64;
        if passes <= 1.0 {
            return self.pass(tokens, logit_rows);
        }
        let rows = (logit_rows as f64 / passes).round();
        let rows = num_traits::cast::<f64, usize>(rows).unwrap_or(1);
        Ok(self.pass(PASS_TOKENS, rows)? * passes)
    }
}
