//! What is said at the end of a run.

use std::time::Instant;

use crate::metrics::{StepReport, resident_mib};
use crate::numbers::max_or_nan;
use crate::train::Trainer;

/// Steps at either end of the run that the comparison takes.
const ENDS: usize = 5;

/// Figures over the steps of this start of the program.
#[derive(Debug)]
pub struct Summary {
    started: Instant,
    first_step: u64,
    accuracies: Vec<f64>,
    num_tokens: usize,
    num_groups: usize,
    num_trained_groups: usize,
    num_refused: usize,
    num_reopened: usize,
    max_difference: f64,
}

impl Summary {
    /// A summary of what comes after `step`.
    #[must_use]
    pub fn new(step: u64) -> Self {
        Self {
            started: Instant::now(),
            first_step: step,
            accuracies: Vec::new(),
            num_tokens: 0,
            num_groups: 0,
            num_trained_groups: 0,
            num_refused: 0,
            num_reopened: 0,
            max_difference: 0.0,
        }
    }

    /// Counts a step in.
    pub fn add(&mut self, report: &StepReport) {
        let tally = &report.tally;
        self.accuracies.push(tally.accuracy());
        self.num_tokens += tally.num_tokens;
        self.num_groups += tally.num_groups;
        self.num_trained_groups += report.batch.groups.len();
        self.num_refused +=
            tally.num_stale + tally.num_lacking + tally.num_damaged + tally.num_unexpected;
        self.num_reopened += tally.num_reopened;
        self.max_difference =
            max_or_nan(self.max_difference, report.update.mismatch.max_difference);
    }

    /// The summary, line by line.
    #[must_use]
    pub fn lines(&self, trainer: &Trainer, num_failed_commands: u64) -> Vec<String> {
        let (step, seconds) = (trainer.step, self.started.elapsed().as_secs_f64());
        let num_steps = step - self.first_step;
        let mut lines = vec![format!(
            "{num_steps} steps to step {step} in {:.1} minutes: {} of {} groups trained on, {} response tokens, {:.0} MiB resident",
            seconds / 60.0,
            self.num_trained_groups,
            self.num_groups,
            self.num_tokens,
            resident_mib()
        )];
        if self.accuracies.len() >= 2 * ENDS {
            let first = mean(&self.accuracies[..ENDS]);
            let last = mean(&self.accuracies[self.accuracies.len() - ENDS..]);
            lines.push(format!(
                "accuracy of the sampled responses: {:.1} % in the first {ENDS} steps, {:.1} % in the last {ENDS}",
                100.0 * first,
                100.0 * last
            ));
        }
        if num_steps > 0 {
            lines.push(format!(
                "largest |rollout logprob - policy logprob|: {:.1e}",
                self.max_difference
            ));
        }
        let troubles = [
            (
                trainer.policy.optimizer.num_skipped(),
                "updates skipped (gradient not finite)",
            ),
            (self.num_refused as u64, "records refused"),
            (self.num_reopened as u64, "groups generated again"),
            (num_failed_commands, "--after-sync commands failed"),
        ];
        lines.extend(
            troubles
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{count} {what}")),
        );
        lines
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
