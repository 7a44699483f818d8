//! One line that says where a program stands: updated in place in a terminal, a plain line per step elsewhere.

use std::sync::{Mutex, PoisonError};

use indicatif::ProgressStyle;
use tracing::Span;
use tracing_indicatif::span_ext::IndicatifSpanExt as _;

/// Spans of this target are progress lines; nothing else is shown as one.
pub(super) const PROGRESS_TARGET: &str = "progress";

/// See [`super::Telemetry::progress`]. The line disappears when this is dropped.
#[derive(Debug)]
pub struct Progress {
    total: Option<u64>,
    /// The line in a terminal.
    span: Option<Span>,
    /// The last step's figures: a note stands behind them, not in their place.
    figures: Mutex<String>,
}

impl Progress {
    pub(super) fn new(program: &'static str, is_terminal: bool, total: Option<u64>) -> Self {
        let span = is_terminal.then(|| {
            let span = tracing::info_span!(target: PROGRESS_TARGET, "progress");
            // The template is ours; were it ever wrong, the layer's own style still shows the line.
            if let Ok(style) = ProgressStyle::with_template(&template(program, total.is_some())) {
                span.pb_set_style(&style);
            }
            if let Some(total) = total {
                span.pb_set_length(total);
            }
            span.pb_start();
            span
        });
        Self {
            total,
            span,
            figures: Mutex::default(),
        }
    }

    /// Step `step` is done, counted from 1; `message` is the step's figures on one line.
    pub fn step(&self, step: u64, message: &str) {
        match (&self.span, self.total) {
            (Some(span), _) => {
                span.pb_set_position(step);
                span.pb_set_message(message);
                message
                    .clone_into(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner));
            }
            (None, Some(total)) => tracing::info!("step {step}/{total}  {message}"),
            (None, None) => tracing::info!("step {step}  {message}"),
        }
    }

    /// What the program does now, between two steps. A terminal shows it until the next call; elsewhere it is a debug line.
    pub fn note(&self, message: &str) {
        match &self.span {
            Some(span) => {
                let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
                span.pb_set_message(&format!("{figures}  {message}"));
            }
            None => tracing::debug!("{message}"),
        }
    }
}

fn template(program: &'static str, has_total: bool) -> String {
    let place = if has_total {
        "step {pos}/{len} [{bar:20}] {eta}"
    } else {
        "step {pos}"
    };
    format!("{program:8} {{spinner}} {{elapsed}} {place}  {{wide_msg}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid() {
        for has_total in [true, false] {
            assert!(ProgressStyle::with_template(&template("learner", has_total)).is_ok());
        }
    }

    #[test]
    fn without_a_subscriber_nothing_breaks() {
        for is_terminal in [true, false] {
            for total in [None, Some(3)] {
                let progress = Progress::new("learner", is_terminal, total);
                progress.note("waiting");
                progress.step(1, "reward 0.5");
            }
        }
    }
}
