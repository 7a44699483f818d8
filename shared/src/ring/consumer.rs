//! The reading end of a ring. It trusts nothing that it reads: bounds first, then a copy, then the checksum of the copy.

#[cfg(not(loom))]
use std::path::Path;
use std::time::Duration;

use super::copy;
use super::header::{CONSUMED, FRAME_HEADER_BYTES, PUBLISHED, TAIL};
use super::positions::{Positions, frame_bytes, word_index};
use super::storage::Storage;
use super::sync::{Arc, Ordering};
use crate::error::{Error, Result};

/// Reads frames from a ring; there is one at a time.
#[derive(Debug)]
pub struct Consumer {
    storage: Arc<Storage>,
    /// The signal's value when the ring was last looked at, so that nothing published since is slept through.
    seen: u32,
}

impl Consumer {
    /// The ring at `path`, from the first frame that no consumer has committed on.
    #[cfg(not(loom))]
    pub fn open(path: &Path) -> Result<Self> {
        use super::storage::{Access, Mapped};

        let mapped = Mapped::open(path, &super::header::FORMAT)?;
        mapped.populate(Access::Read);
        Ok(Self::on(Arc::new(Storage::Mapped(mapped))))
    }

    pub(super) fn on(storage: Arc<Storage>) -> Self {
        // One behind, so that the first wait looks again rather than sleeping.
        let seen = storage.signalled(PUBLISHED).wrapping_sub(1);
        Self { storage, seen }
    }

    /// Copies the next frame into `out` (replacing what it held) and then commits; false when there is none.
    ///
    /// After `Error::CorruptRing` the ring stays where it is; [`Self::discard_unread`] gets past it.
    pub fn try_pop(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        let Some(tail) = self.copy_next(out)? else {
            return Ok(false);
        };
        self.commit(tail);
        Ok(true)
    }

    /// Sleeps until something was published since the last `try_pop`, at most `timeout`. True when something was.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool> {
        self.storage.wait(PUBLISHED, self.seen, timeout)
    }

    /// Bytes published and not yet consumed.
    pub fn unread_bytes(&self) -> Result<u64> {
        Ok(Positions::read(&self.storage)?.unread())
    }

    /// Commits everything published without reading it, and returns how many bytes that was. For a ring that a crash of
    /// the whole machine left damaged: its tickets have to be issued again.
    pub fn discard_unread(&mut self) -> u64 {
        let head = self
            .storage
            .header(super::header::HEAD)
            .load(Ordering::Acquire);
        let tail = self.storage.header(TAIL).load(Ordering::Acquire);
        self.commit(head);
        head.saturating_sub(tail)
    }

    /// The next frame, into `out`; returns the tail to commit.
    fn copy_next(&mut self, out: &mut Vec<u8>) -> Result<Option<u64>> {
        self.seen = self.storage.signalled(PUBLISHED);
        let positions = Positions::read(&self.storage)?;
        if positions.unread() == 0 {
            return Ok(None);
        }
        let taken = self.copy(positions, out)?;
        Ok(Some(positions.tail + taken))
    }

    /// The frame at the tail, into `out`; returns how many bytes of the ring it took.
    fn copy(&self, positions: Positions, out: &mut Vec<u8>) -> Result<u64> {
        let words = self.storage.body();
        let start = word_index(positions.tail, words.len());
        let corrupt = |reason: String| Error::CorruptRing {
            path: self.storage.path().to_owned(),
            position: positions.tail,
            reason,
        };
        if positions.unread() < FRAME_HEADER_BYTES as u64 {
            return Err(corrupt(format!(
                "{} bytes are less than a frame's header",
                positions.unread()
            )));
        }
        let length = words[start].load(Ordering::Relaxed);
        let expected = words[(start + 1) % words.len()].load(Ordering::Relaxed);
        let most = positions.unread() - FRAME_HEADER_BYTES as u64;
        let length = match usize::try_from(length) {
            // `most` is whole words, so the padding fits where the content does.
            Ok(content) if length <= most => content,
            _ => {
                return Err(corrupt(format!(
                    "a frame claims {length} bytes where {most} were published"
                )));
            }
        };
        copy::read(words, (start + 2) % words.len(), length, out);
        if copy::checksum(out, positions.tail) != expected {
            return Err(corrupt(format!(
                "the checksum of a frame of {length} bytes differs"
            )));
        }
        Ok(frame_bytes(length))
    }

    /// SYNC POINT: Release pairs with the Acquire in `Positions::read`: a producer that sees this tail writes over bytes
    /// that have been copied out.
    fn commit(&self, tail: u64) {
        self.storage.header(TAIL).store(tail, Ordering::Release);
        self.storage.notify(CONSUMED);
    }

    /// What a consumer that is killed before its commit has done.
    #[cfg(all(test, loom))]
    pub(super) fn peek(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        Ok(self.copy_next(out)?.is_some())
    }
}
