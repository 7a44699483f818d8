//! The validation that the learner asks for: one word of the page, so that every change is one compare-and-swap.
//!
//! ```text
//! learner  asks, and announces the version ........................ reads the answer
//! rollout           claims -> answers -> writes the answer's file -> finishes
//! state    none -> asked -> held ---------------------------------> done
//!                    ^--- the seat was left, or its process died
//! ```
//!
//! The word names the announcement whose weights are meant, not the version: a learner that goes back to a checkpoint
//! announces a version again, maybe with other weights.

use super::board::Holder;
use crate::ring::sync::{AtomicU64, Ordering};

const STATE_BITS: u32 = 16;
const NONE: u16 = 0;
const ASKED: u16 = u16::MAX;
/// Not a holder: those end below (see `seats`).
const DONE: u16 = u16::MAX - 1;

/// Where a validation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValidationState {
    /// Waiting for a rollout.
    Asked,
    /// Being answered by a living process.
    Held {
        /// Its seat.
        seat: usize,
    },
    /// Its file is there.
    Done,
}

/// The same as the word knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    None,
    Asked,
    Held(Holder),
    Done,
}

/// The word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validation<'a> {
    word: &'a AtomicU64,
}

impl<'a> Validation<'a> {
    pub(super) fn new(word: &'a AtomicU64) -> Self {
        Self { word }
    }

    /// Asks for a validation of what the announcement with this number brings, whatever was asked before. The learner only.
    pub(super) fn ask(self, publication: u64) {
        self.word
            .store(pack(publication, Stage::Asked), Ordering::SeqCst);
    }

    /// Where the validation of an announcement is.
    pub(super) fn stage(self, publication: u64) -> Stage {
        let (of, stage) = unpack(self.word.load(Ordering::SeqCst));
        if of == publication & MASK {
            stage
        } else {
            Stage::None
        }
    }

    /// One step of it; false when it is not in that stage.
    pub(super) fn change(self, publication: u64, from: Stage, to: Stage) -> bool {
        let (from, to) = (pack(publication, from), pack(publication, to));
        let swapped = self
            .word
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        swapped.is_ok()
    }

    /// Gives back what a holder has, of whatever announcement; true when it had anything.
    pub(super) fn give_back(self, holder: Holder) -> bool {
        let (publication, stage) = unpack(self.word.load(Ordering::SeqCst));
        stage == Stage::Held(holder) && self.change(publication, stage, Stage::Asked)
    }

    /// Forgets what was asked.
    pub(super) fn reset(self) {
        self.word.store(0, Ordering::SeqCst);
    }
}

/// Of an announcement's number, what the word holds.
const MASK: u64 = (1 << (u64::BITS - STATE_BITS)) - 1;

fn pack(publication: u64, stage: Stage) -> u64 {
    let state = match stage {
        Stage::None => NONE,
        Stage::Asked => ASKED,
        Stage::Held(holder) => holder.0,
        Stage::Done => DONE,
    };
    (publication & MASK) << STATE_BITS | u64::from(state)
}

fn unpack(word: u64) -> (u64, Stage) {
    #[allow(clippy::cast_possible_truncation, reason = "the low bits are meant")]
    let stage = match word as u16 {
        NONE => Stage::None,
        ASKED => Stage::Asked,
        DONE => Stage::Done,
        holder => Stage::Held(Holder(holder)),
    };
    (word >> STATE_BITS, stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_an_announcement_and_a_stage() {
        let stages = [
            Stage::None,
            Stage::Asked,
            Stage::Held(Holder(1)),
            Stage::Held(Holder(65_472)), // the last seat's last owner
            Stage::Done,
        ];
        for publication in [0, 1, MASK] {
            for stage in stages {
                assert_eq!(unpack(pack(publication, stage)), (publication, stage));
            }
        }
        // A page of zeros, as an earlier build left it, asks for nothing.
        assert_eq!(unpack(0), (0, Stage::None));
        let word = AtomicU64::new(0);
        assert_eq!(Validation::new(&word).stage(0), Stage::None);
    }

    #[test]
    fn only_the_announcement_that_was_meant_is_changed() {
        let word = AtomicU64::new(0);
        let validation = Validation::new(&word);
        let (me, other) = (Holder(1), Holder(2));
        assert!(!validation.change(3, Stage::Asked, Stage::Held(me)));
        validation.ask(3);
        assert_eq!(validation.stage(2), Stage::None);
        assert!(!validation.change(2, Stage::Asked, Stage::Held(me)));
        assert!(validation.change(3, Stage::Asked, Stage::Held(me)));
        assert!(!validation.change(3, Stage::Asked, Stage::Held(other)));
        assert!(!validation.give_back(other));
        // Asked anew meanwhile: what the first one does now is in vain.
        validation.ask(4);
        assert!(!validation.change(3, Stage::Held(me), Stage::Done));
        assert!(!validation.give_back(me));
        assert_eq!(validation.stage(4), Stage::Asked);
        assert!(validation.change(4, Stage::Asked, Stage::Held(me)));
        assert!(validation.give_back(me));
        assert_eq!(validation.stage(4), Stage::Asked);
    }
}
