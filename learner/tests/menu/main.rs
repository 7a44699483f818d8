//! Every choice of the command line against its formula, written down once more: f64, one number at a time, nothing shared with
//! the code under test. The loss's own choices are compared like this beside them, gradients included (`src/loss/tests`).
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary")]

mod advantages;
mod weights;

use clap::{CommandFactory, Parser};
use shared::config::{LearnerArgs, Program, RunArgs, RunConfig, load};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    _run: RunArgs,
    #[command(flatten)]
    _learner: LearnerArgs,
}

/// What a run is told by these arguments.
fn config(args: &[&str]) -> RunConfig {
    let mut line = vec!["learner", "--run-dir", "/nowhere"];
    line.extend(args);
    let matches = Line::command().get_matches_from(line);
    load(&matches, Program::Learner).unwrap()
}

/// A stream of numbers in [0, 1) that depends on nothing but its seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1 << 24)
    }

    /// The same, as an f32 holds it.
    #[expect(clippy::cast_possible_truncation, reason = "24 bits")]
    fn small(&mut self) -> f32 {
        self.next() as f32
    }

    /// From 1 to `most`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number"
    )]
    fn count(&mut self, most: usize) -> usize {
        1 + (self.next() * most as f64) as usize
    }
}
