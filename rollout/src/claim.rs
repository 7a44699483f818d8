//! First stage: claims tickets and turns them into prompts, just ahead of the engine.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossbeam_channel::Sender;
use shared::control::Seat;
use shared::dataset;
use shared::ids::Ticket;

use crate::channel::send;
use crate::dataset::Samples;
use crate::emit::{Outcome, Skipped};
use crate::occupancy::{Stage, StageClocks};
use crate::prompt::{BuiltPrompt, PromptBuilder};

/// Longest sleep without work.
const WAIT: Duration = Duration::from_millis(200);
/// How often the seat shows that it is alive.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// A prompt on its way to the engine.
#[derive(Debug)]
pub struct Prepared {
    /// The group's number.
    pub ticket: Ticket,
    /// The sample's name.
    pub sample_id: String,
    /// The right answer.
    pub answer: String,
    /// Tokens, images, blanked twin.
    pub prompt: BuiltPrompt,
    /// The oldest announcement whose weights may generate this group.
    pub publication: u64,
}

/// Where the first stage takes from and gives to.
pub struct Claims<'a> {
    /// The place in the run.
    pub seat: &'a Seat,
    /// The data set.
    pub samples: Samples,
    /// Makes the prompts.
    pub prompts: PromptBuilder,
    /// Whether weights may be older than the newest.
    pub may_be_stale: bool,
    /// The announcement whose weights the engine runs.
    pub loaded: &'a AtomicU64,
    /// Whether the engine is taken by a validation.
    pub is_validating: &'a AtomicBool,
    /// Rung when the learner did something.
    pub wake: Sender<()>,
    /// To the engine.
    pub prepared: Sender<Prepared>,
    /// Past the engine.
    pub outcomes: Sender<Outcome>,
    /// What this stage does.
    pub clocks: &'a StageClocks,
}

impl Claims<'_> {
    /// Works until told to stop.
    ///
    /// # Errors
    /// The seat was lost, or the data set cannot be read.
    pub fn run(mut self, is_stopping: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        let mut beat = None::<Instant>;
        while !is_stopping() {
            if beat.is_none_or(|last| last.elapsed() >= BEAT_EVERY) {
                self.seat.heartbeat()?;
                beat = Some(Instant::now());
            }
            // A ticket is worth claiming once its weights are here and the engine is free; until then another rollout may be
            // quicker.
            let is_loaded = self.may_be_stale
                || self.loaded.load(Ordering::Acquire) >= self.seat.publications();
            let is_ready = is_loaded && !self.is_validating.load(Ordering::Acquire);
            let Some(ticket) = is_ready.then(|| self.seat.claim()).flatten() else {
                let wait = if is_ready { WAIT } else { WAIT / 20 };
                let has_news = self
                    .clocks
                    .waiting(Stage::Claim, || self.seat.wait_work(wait))?;
                if has_news {
                    // A bell that is still ringing needs no second pull.
                    let _ = self.wake.try_send(());
                }
                continue;
            };
            // Tickets open after their version is announced, so what is announced now is what the learner means.
            let publication = if self.may_be_stale {
                0
            } else {
                self.seat.publications()
            };
            if !self.prepare(ticket, publication, is_stopping)? {
                self.seat.release(ticket);
            }
        }
        Ok(())
    }

    /// Sends the ticket on; false when told to stop first.
    fn prepare(
        &mut self,
        ticket: Ticket,
        publication: u64,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let sample = match self.samples.get(ticket) {
            Ok(sample) => sample,
            Err(dataset::Error::Sample { id, reason }) => {
                return Ok(self.skip(ticket, id, reason, is_stopping));
            }
            Err(error) => return Err(error).context("the data set"),
        };
        match self.prompts.build(&sample) {
            Ok(prompt) => {
                let (sample_id, answer) = (sample.id, sample.answer);
                let prepared = Prepared {
                    ticket,
                    sample_id,
                    answer,
                    prompt,
                    publication,
                };
                Ok(self
                    .clocks
                    .blocked(Stage::Claim, || send(&self.prepared, prepared, is_stopping)))
            }
            Err(error) => {
                let name = self.samples.label(ticket, &sample.id);
                Ok(self.skip(ticket, name, format!("{error:#}"), is_stopping))
            }
        }
    }

    fn skip(
        &self,
        ticket: Ticket,
        sample_id: String,
        reason: String,
        is_stopping: &dyn Fn() -> bool,
    ) -> bool {
        let skipped = Skipped {
            ticket,
            sample_id,
            reason,
        };
        self.clocks.blocked(Stage::Claim, || {
            send(&self.outcomes, Outcome::Skipped(skipped), is_stopping)
        })
    }
}
