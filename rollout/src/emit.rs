//! Last stage: verifies, writes the record into the ring, ends the ticket, keeps the books. Of a validation, its files.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossbeam_channel::Receiver;
use shared::codec;
use shared::control::Seat;
use shared::ids::{PolicyVersion, Ticket};
use shared::record::{GroupRecord, Precision};
use shared::ring::Producer;
use shared::telemetry::{Metrics, Progress};

use crate::channel::{Received, receive};
use crate::eval::validation::Answers;
use crate::group::{Finished, RecordMaker};
use crate::occupancy::Stage;
use crate::stats::{Counted, Counters, Sums};

/// How often the progress line moves.
const NOTE_EVERY: Duration = Duration::from_millis(500);
/// Skipped samples that are named in the log one by one; the rest is counted.
const MAX_NAMED: u64 = 20;
/// Of the name of a skipped sample: a data set may hold names of any length.
const MAX_ID_CHARS: usize = 200;

/// What comes out of the stages before.
#[derive(Debug)]
pub enum Outcome {
    /// A ticket's group was generated.
    Finished(Box<Finished>),
    /// A ticket's sample cannot be used.
    Skipped(Skipped),
    /// A validation was answered.
    Validated(Box<Answers>),
}

/// A sample that is passed over. Its ticket is answered all the same: a learner must not wait for it.
#[derive(Debug)]
pub struct Skipped {
    /// The group's number.
    pub ticket: Ticket,
    /// The sample's name.
    pub sample_id: String,
    /// Why.
    pub reason: String,
}

/// The last stage with what it writes to.
pub struct Emitter<'a> {
    /// The place in the run.
    pub seat: &'a Seat,
    /// The run folder.
    pub run_dir: &'a Path,
    /// This process's ring.
    pub ring: Producer,
    /// Finished and skipped groups.
    pub outcomes: Receiver<Outcome>,
    /// Verifies.
    pub records: RecordMaker,
    /// The engine's counters.
    pub counters: &'a Counters,
    /// Rows per policy version.
    pub metrics: Metrics,
    /// The line in the terminal.
    pub progress: Progress,
}

/// What there is to say at the end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// Over all records.
    pub sums: Sums,
    /// Over all of the engine's steps.
    pub counted: Counted,
}

/// Sums of the policy version that records come from now.
#[derive(Default)]
struct Window {
    version: PolicyVersion,
    sums: Sums,
    /// The engine's counters at the end of the window before, and at the last record of this one.
    start: Counted,
    end: Counted,
}

impl Emitter<'_> {
    /// Works until told to stop, or until the stages before it are gone.
    ///
    /// # Errors
    /// A ring or a metrics file that cannot be written.
    pub fn run(mut self, is_stopping: &(dyn Fn() -> bool + Sync)) -> Result<Summary> {
        let clocks = &self.counters.clocks;
        let mut total = Sums::default();
        let mut window = Window::default();
        let mut noted = Instant::now();
        while !is_stopping() {
            match clocks.waiting(Stage::Emit, || receive(&self.outcomes)) {
                Received::Message(outcome) => {
                    let framed = match outcome {
                        Outcome::Validated(answers) => {
                            self.finish_validation(*answers)?;
                            continue;
                        }
                        Outcome::Finished(finished) => self.frame(*finished),
                        Outcome::Skipped(skipped) => Err(skipped),
                    };
                    let (ticket, frame) = match framed {
                        Ok((record, frame, counted)) => {
                            self.turn_page(&mut window, &mut total, version_of(&record))?;
                            window.sums.add(&record);
                            window.sums.verified += self.records.verifier.take_counts();
                            window.end = counted;
                            (record.ticket, frame)
                        }
                        Err(skipped) => {
                            window.sums.skipped += 1;
                            name_skipped(&skipped, total.skipped + window.sums.skipped);
                            (skipped.ticket, codec::encode(&empty(&skipped)))
                        }
                    };
                    if !clocks.blocked(Stage::Emit, || self.ring.push(&frame, is_stopping))? {
                        break;
                    }
                    self.seat.finish(ticket);
                }
                Received::Nothing => {}
                Received::Closed => break,
            }
            if noted.elapsed() >= NOTE_EVERY {
                noted = Instant::now();
                self.progress
                    .note(&window.sums.line(&self.counters.now().since(window.start)));
            }
        }
        self.turn_page(&mut window, &mut total, PolicyVersion(u64::MAX))?;
        Ok(Summary {
            sums: total,
            counted: self.counters.now(),
        })
    }

    /// The record of a group with its bytes, and the engine's counters at its end; or why it cannot be sent.
    fn frame(&self, finished: Finished) -> Result<(GroupRecord, Vec<u8>, Counted), Skipped> {
        let counted = finished.counted;
        let (ticket, sample_id) = (
            finished.prepared.ticket,
            finished.prepared.sample_id.clone(),
        );
        let skip = |reason: String| Skipped {
            ticket,
            sample_id: sample_id.clone(),
            reason,
        };
        let record = self
            .records
            .record(finished)
            .map_err(|error| skip(format!("{error:#}")))?;
        record.check().map_err(|error| skip(error.to_string()))?;
        let frame = codec::encode(&record);
        let (got, max) = (frame.len(), self.ring.max_frame_bytes());
        if got > max {
            return Err(skip(format!(
                "its record of {got} bytes does not fit a ring that takes {max}: raise --ring-mib"
            )));
        }
        Ok((record, frame, counted))
    }

    /// Judges the answers of a validation, writes them into the run folder and tells the learner.
    fn finish_validation(&self, answers: Answers) -> Result<()> {
        let publication = answers.publication;
        if !self.seat.holds_validation(publication) {
            return Ok(()); // a learner that started anew has asked anew
        }
        let validation = answers.finish(&self.records.verifier, self.run_dir)?;
        // The counts are those of the training.
        let _ = self.records.verifier.take_counts();
        tracing::info!(
            "validation of {}: {}",
            validation.version,
            validation.line()
        );
        self.seat.finish_validation(publication);
        Ok(())
    }

    /// Writes a row when the records of another version begin.
    fn turn_page(
        &mut self,
        window: &mut Window,
        total: &mut Sums,
        version: PolicyVersion,
    ) -> Result<()> {
        // Lower ones too: a learner that resumed from an older checkpoint goes back.
        if version == window.version {
            return Ok(());
        }
        if window.sums.groups + window.sums.skipped > 0 {
            let counted = window.end.since(window.start);
            self.metrics
                .log(window.version.0, &window.sums.metrics(&counted))
                .context("metrics")?;
            self.progress
                .step(window.version.0, &window.sums.line(&counted));
            total.merge(&window.sums);
        }
        *window = Window {
            version,
            sums: Sums::default(),
            start: window.end,
            end: window.end,
        };
        Ok(())
    }
}

/// The version that gave the last token of the group.
fn version_of(record: &GroupRecord) -> PolicyVersion {
    record
        .responses
        .iter()
        .map(|response| response.last_version)
        .max()
        .unwrap_or_default()
}

/// The answer to a ticket whose sample is passed over: a record without responses, which fits into any ring.
fn empty(skipped: &Skipped) -> GroupRecord {
    GroupRecord {
        ticket: skipped.ticket,
        sample_id: skipped.sample_id.chars().take(MAX_ID_CHARS).collect(),
        prompt_ids: Vec::new(),
        images: Vec::new(),
        temperature: 1.0,
        precision: Precision::F32,
        greedy_reward: None,
        responses: Vec::new(),
    }
}

fn name_skipped(skipped: &Skipped, count: u64) {
    let Skipped {
        ticket,
        sample_id,
        reason,
    } = skipped;
    if count <= MAX_NAMED {
        tracing::warn!("skipped sample {sample_id} (ticket {ticket}): {reason}");
    }
    if count == MAX_NAMED {
        tracing::warn!("{count} samples skipped; further ones are counted, not named");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_for_a_skipped_sample_is_small_whatever_its_name() {
        let skipped = Skipped {
            ticket: Ticket(7),
            sample_id: "é".repeat(3 << 20),
            reason: String::new(),
        };
        let record = empty(&skipped);
        assert_eq!(record.ticket, Ticket(7));
        assert!(codec::encode(&record).len() < 1024);
    }
}
