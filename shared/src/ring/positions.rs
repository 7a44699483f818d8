//! Where the two ends of a ring stand, and what that allows. Positions are bytes since the ring was made: they only grow.

use std::path::Path;

use super::header::{FRAME_HEADER_BYTES, HEAD, TAIL, WORD_BYTES};
use super::storage::Storage;
use super::sync::Ordering;
use crate::error::{Error, Result};

/// A consistent pair: `tail <= head <= tail + capacity`, all whole words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Positions {
    pub(super) head: u64,
    pub(super) tail: u64,
    pub(super) capacity: u64,
}

impl Positions {
    /// SYNC POINT: Acquire pairs with the Release in `Producer::try_push` and `Consumer::commit`: whoever sees a position
    /// sees what was written, or is done being read, before it.
    pub(super) fn read(storage: &Storage) -> Result<Self> {
        let head = storage.header(HEAD).load(Ordering::Acquire);
        let tail = storage.header(TAIL).load(Ordering::Acquire);
        let capacity = (storage.body().len() * WORD_BYTES) as u64;
        Self::new(head, tail, capacity, storage.path())
    }

    /// Both come from shared memory: nothing is believed of them.
    fn new(head: u64, tail: u64, capacity: u64, path: &Path) -> Result<Self> {
        let word = WORD_BYTES as u64;
        let unread = head.checked_sub(tail);
        let is_whole = head.is_multiple_of(word) && tail.is_multiple_of(word);
        if !is_whole || unread.is_none_or(|unread| unread > capacity) {
            return Err(Error::CorruptRing {
                path: path.to_owned(),
                position: tail,
                reason: format!("published {head}, consumed {tail}, of a ring of {capacity} bytes"),
            });
        }
        Ok(Self {
            head,
            tail,
            capacity,
        })
    }

    /// Bytes published and not consumed.
    pub(super) fn unread(self) -> u64 {
        self.head - self.tail
    }

    /// Bytes that can be published now.
    pub(super) fn free(self) -> u64 {
        self.capacity - self.unread()
    }
}

/// Bytes a frame takes in the ring: its header, its content, and padding to a word.
pub(super) fn frame_bytes(content_bytes: usize) -> u64 {
    (FRAME_HEADER_BYTES + content_bytes.next_multiple_of(WORD_BYTES)) as u64
}

/// The word of the body at a position.
pub(super) fn word_index(position: u64, words: usize) -> usize {
    let index = (position / WORD_BYTES as u64) % words.max(1) as u64;
    usize::try_from(index).unwrap_or(0)
}

/// The longest content a ring of that many body words can take.
pub(super) fn max_frame_bytes(words: usize) -> usize {
    (words * WORD_BYTES).saturating_sub(FRAME_HEADER_BYTES)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn positions(head: u64, tail: u64) -> Result<Positions> {
        Positions::new(head, tail, 64, Path::new("x"))
    }

    #[test]
    fn positions_that_make_no_sense_are_refused() {
        assert_eq!(positions(64, 0).unwrap().free(), 0);
        assert_eq!(positions(640, 600).unwrap().unread(), 40);
        for (head, tail) in [(72, 0), (0, 8), (9, 8), (16, 12), (u64::MAX - 7, 0)] {
            assert!(positions(head, tail).is_err(), "{head} {tail}");
        }
    }

    #[test]
    fn a_frame_is_header_content_and_padding() {
        assert_eq!(frame_bytes(0), 16);
        assert_eq!(frame_bytes(1), 24);
        assert_eq!(frame_bytes(8), 24);
        assert_eq!(max_frame_bytes(8), 48);
        assert_eq!(word_index(72, 8), 1);
    }
}
