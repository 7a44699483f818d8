//! `--validate-every N`: the question to the rollouts, their answer, and which version was the best so far.
//!
//! The next step waits for the answer: the checkpoint of a version that turns out to be the best is then still what the
//! trainer holds. Groups for that step are read meanwhile, so that only an optimizer that has them already loses time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use shared::config::LearnerArgs;
use shared::control::{LearnerControl, SeatStatus, ValidationState};
use shared::ids::PolicyVersion;
use shared::telemetry::{Source, read_metrics};
use shared::validation::{self, Validation};

use crate::best;

/// The metric that an answered validation is known by.
const SCORE: &str = "val/score";
/// A validation whose file cannot be read so often ends the run.
const MAX_ATTEMPTS: u32 = 3;
/// When to say first what is being waited for, and how often then.
const SAY_FIRST: Duration = Duration::from_secs(10);
const SAY_EVERY: Duration = Duration::from_secs(30);

/// What was asked and answered.
#[derive(Debug)]
pub struct Validations {
    run_dir: PathBuf,
    every: u64,
    num_steps: u64,
    /// Whether an answer about the version published last is awaited.
    is_open: bool,
    num_attempts: u32,
    /// Since when it has been awaited in silence, and for how long.
    said: (Instant, Duration),
    /// What counts, lowest version first; that of before a resume too.
    answers: Vec<Validation>,
    /// How many of them are from before a resume.
    num_before: usize,
    /// Of the checkpoint that `checkpoints/best` names.
    best: Option<Validation>,
}

impl Validations {
    /// Goes on behind the checkpoint of the step `saved`, if there is one: what was answered later is forgotten.
    pub fn open(run_dir: &Path, args: &LearnerArgs, saved: Option<u64>) -> Result<Self> {
        validation::forget(run_dir, PolicyVersion(saved.map_or(0, |step| step + 1)))?;
        let mut validations = Self {
            run_dir: run_dir.to_owned(),
            every: args.validate_every,
            num_steps: args.steps,
            is_open: false,
            num_attempts: 0,
            said: (Instant::now(), SAY_FIRST),
            answers: Vec::new(),
            num_before: 0,
            best: None,
        };
        let Some(step) = saved else {
            validations.expect(0);
            return Ok(validations);
        };
        if args.validate_every > 0 {
            validations.remember(step)?;
        }
        Ok(validations)
    }

    /// Takes in what was answered up to the checkpoint of a step; its own answer is asked for where it is missing.
    fn remember(&mut self, step: u64) -> Result<()> {
        // A file alone may be the answer to a learner that died before it took it.
        let is_answered = is_logged(&self.run_dir, step)?;
        self.answers = validation::read_all(&self.run_dir)?;
        self.answers
            .retain(|answer| answer.version.0 < step || is_answered);
        self.num_before = self.answers.len();
        let of = |step: u64| {
            let mut answers = self.answers.iter();
            answers.find(|answer| answer.version.0 == step).cloned()
        };
        self.best = best::step(&self.run_dir).and_then(of);
        match of(step) {
            None => self.expect(step),
            // Killed between the checkpoint and the link to it. What was asked other problems was not to count.
            Some(answer) => {
                let is_alike = self.best.as_ref().is_none_or(|b| b.is_comparable(&answer));
                if step > 0 && is_alike && self.is_better(&answer) {
                    best::link(&self.run_dir, step)?;
                    self.best = Some(answer);
                }
            }
        }
        Ok(())
    }

    /// Whether the version of a step is to be validated: every so many, the first and the last.
    #[must_use]
    pub fn is_due(&self, step: u64) -> bool {
        self.every > 0 && (step.is_multiple_of(self.every) || step == self.num_steps)
    }

    /// The version of a step is published now, with the question if it is due.
    pub fn expect(&mut self, step: u64) {
        self.is_open = self.is_due(step);
        self.num_attempts = 0;
        self.said = (Instant::now(), SAY_FIRST);
    }

    /// Whether an answer is awaited.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Looks for the answer about `version`; says now and then that there is none.
    ///
    /// # Errors
    /// An answer that cannot be read, again and again.
    pub fn look(
        &mut self,
        control: &LearnerControl,
        version: PolicyVersion,
    ) -> Result<Option<Validation>> {
        match control.validation() {
            Some(ValidationState::Done) => {}
            state => {
                if state.is_none() {
                    control.validate_again(); // the page was lost, or an attempt before failed
                }
                self.say_waiting(control, version, state);
                return Ok(None);
            }
        }
        match self.read(control, version) {
            Ok(validation) => {
                self.is_open = false;
                Ok(Some(validation))
            }
            Err(error) if self.num_attempts + 1 < MAX_ATTEMPTS => {
                tracing::warn!("{error:#}; {version} is validated again");
                self.num_attempts += 1;
                control.validate_again();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn read(&self, control: &LearnerControl, version: PolicyVersion) -> Result<Validation> {
        let validation = Validation::read(&self.run_dir, version)?;
        let (got, expected) = (validation.publication, control.publications());
        anyhow::ensure!(
            got == expected,
            "{} answers publication {got}, not {expected}",
            validation::path(&self.run_dir, version).display()
        );
        Ok(validation)
    }

    /// Takes an answer in; true when its version is the best so far of those that have a checkpoint.
    pub fn add(&mut self, validation: Validation) -> bool {
        // The first answer after a resume may be to other problems: the user changed them.
        let is_alike = self.answers[self.num_before..]
            .first()
            .is_none_or(|first| first.is_comparable(&validation));
        if !is_alike {
            tracing::warn!(
                "{} was asked other problems than the versions before: its validation counts for nothing; give every rollout the \
                 same --validation-data and --validation-limit",
                validation.version
            );
        }
        // The model that the run began with needs no checkpoint.
        let is_best = is_alike && validation.version.0 > 0 && self.is_better(&validation);
        let remark = match self.start(&validation) {
            _ if !is_best => String::new(),
            Some(start) if validation.accuracy <= start.accuracy => format!(
                "; the best checkpoint so far, but not above the {:.1} % of step 0",
                100.0 * start.accuracy
            ),
            _ => "; the best checkpoint so far".to_owned(),
        };
        tracing::info!(
            "validation of {}: {}{remark}",
            validation.version,
            validation.line()
        );
        if is_best {
            self.best = Some(validation.clone());
        }
        if is_alike {
            self.answers.push(validation);
        }
        is_best
    }

    /// Whether it goes before the best one. Where that one was asked other problems (it is of before a resume), the new ones count.
    fn is_better(&self, validation: &Validation) -> bool {
        self.best.as_ref().is_none_or(|best| {
            !best.is_comparable(validation) || validation.accuracy > best.accuracy
        })
    }

    /// What the model that the run began with made of the same problems.
    fn start(&self, validation: &Validation) -> Option<&Validation> {
        self.first_alike(validation)
            .filter(|first| first.version.0 == 0)
    }

    /// The first answer to the same problems.
    fn first_alike(&self, validation: &Validation) -> Option<&Validation> {
        let mut answers = self.answers.iter();
        answers.find(|answer| answer.is_comparable(validation))
    }

    fn say_waiting(
        &mut self,
        control: &LearnerControl,
        version: PolicyVersion,
        state: Option<ValidationState>,
    ) {
        let (since, silence) = self.said;
        if since.elapsed() < silence {
            return;
        }
        self.said = (Instant::now(), SAY_EVERY);
        match state {
            Some(ValidationState::Held { seat }) => {
                tracing::info!(
                    "waiting for the validation of {version}, which rollout {seat} is at"
                );
            }
            _ => {
                let is_alive = |seat: &shared::control::SeatInfo| seat.status == SeatStatus::Live;
                let num_alive = control.seats().into_iter().filter(is_alive).count();
                tracing::info!(
                    "waiting for a rollout to validate {version}; {num_alive} rollout processes; start `rollout` with the same \
                     --run-dir and --validation-data"
                );
            }
        }
    }

    /// For the end of the run: where it began, where it is, and the best of it; what was before a resume is part of the run.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let last = self.answers.last()?;
        let first = self.first_alike(last)?;
        let at = |validation: &Validation| {
            format!(
                "{:.1} % at step {}",
                100.0 * validation.accuracy,
                validation.version.0
            )
        };
        let mut line = format!("validation: {}", at(first));
        if last.version > first.version {
            line += &format!(", {} at the end", at(last));
        }
        let Some(best) = &self.best else {
            return Some(line);
        };
        match self.start(best) {
            Some(start) if best.accuracy <= start.accuracy => {
                line += "; no checkpoint is above step 0, the best one:";
            }
            _ => line += "; best:",
        }
        line += &format!(" {}, checkpoints/best", at(best));
        Some(line)
    }
}

/// Under the names of a row of metrics.
#[must_use]
pub fn metrics(validation: &Validation) -> Vec<(&'static str, f64)> {
    let num_problems = validation.num_problems as f64;
    vec![
        (SCORE, validation.accuracy),
        ("val/score_low", validation.interval[0]),
        ("val/score_high", validation.interval[1]),
        ("val/problems", num_problems),
        ("val/skipped", validation.num_skipped as f64),
        ("val/format", validation.well_formed),
        ("val/response_length/mean", validation.mean_response_tokens),
        (
            "val/response_length/clip_ratio",
            validation.finished_length as f64 / num_problems,
        ),
        ("timing_s/testing", validation.seconds),
    ]
}

/// Whether the answer about a step has come to the metrics.
fn is_logged(run_dir: &Path, step: u64) -> Result<bool> {
    let path = Source::Learner.path(run_dir);
    let rows = match read_metrics(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        rows => rows.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let is_score = |(name, _): &(String, f64)| name == SCORE;
    Ok(rows
        .iter()
        .any(|row| row.step == step && row.values.iter().any(is_score)))
}

#[cfg(test)]
mod tests;
