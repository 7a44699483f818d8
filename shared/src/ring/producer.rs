//! The writing end of a ring.

#[cfg(not(loom))]
use std::path::Path;
use std::time::Duration;

use super::copy;
use super::header::{CONSUMED, HEAD, PUBLISHED};
use super::positions::{Positions, frame_bytes, max_frame_bytes, word_index};
use super::storage::Storage;
use super::sync::{Arc, Ordering};
use crate::error::{Error, Result};

/// How long `push` sleeps before it asks `stop` again.
const STOP_INTERVAL: Duration = Duration::from_millis(200);

/// Writes frames into a ring; there is one at a time.
#[derive(Debug)]
pub struct Producer {
    storage: Arc<Storage>,
}

impl Producer {
    /// The ring at `path`, made with room for `capacity_bytes` when there is none. One that exists keeps its size and what
    /// is unread in it; writing goes on behind the last published frame. Refused while another process writes to it.
    #[cfg(not(loom))]
    pub fn open_or_create(path: &Path, capacity_bytes: usize) -> Result<Self> {
        use super::header::{FORMAT, FRAME_HEADER_BYTES};
        use super::storage::{Access, Mapped};

        if !path.try_exists().map_err(Error::io("look for", path))? {
            let capacity_bytes = capacity_bytes.max(2 * FRAME_HEADER_BYTES);
            Mapped::create(path, &FORMAT, capacity_bytes, |_| ())?;
        }
        let mapped = Mapped::open(path, &FORMAT)?;
        crate::run_dir::lock(mapped.file(), path, "ring")?;
        mapped.populate(Access::Write);
        let producer = Self::on(Arc::new(Storage::Mapped(mapped)));
        let found = producer.capacity_bytes();
        if found
            != capacity_bytes
                .max(2 * FRAME_HEADER_BYTES)
                .next_multiple_of(8)
        {
            tracing::warn!(
                "ring {} was made with {found} bytes and keeps them; delete it while both programs are stopped to change that",
                path.display()
            );
        }
        Positions::read(&producer.storage)?;
        Ok(producer)
    }

    pub(super) fn on(storage: Arc<Storage>) -> Self {
        Self { storage }
    }

    /// Publishes a frame, waiting for room. False when `stop` said so before there was room; the frame is then not in the
    /// ring. `stop` is asked five times a second while waiting.
    pub fn push(&mut self, frame: &[u8], stop: &dyn Fn() -> bool) -> Result<bool> {
        loop {
            let seen = self.storage.signalled(CONSUMED);
            if self.try_push(frame)? {
                return Ok(true);
            }
            if stop() {
                return Ok(false);
            }
            self.storage.wait(CONSUMED, seen, STOP_INTERVAL)?;
        }
    }

    /// Publishes a frame if there is room for it now.
    pub fn try_push(&mut self, frame: &[u8]) -> Result<bool> {
        let max = self.max_frame_bytes();
        if frame.len() > max {
            return Err(Error::FrameTooLarge {
                got: frame.len(),
                max,
            });
        }
        let positions = Positions::read(&self.storage)?;
        let taken = frame_bytes(frame.len());
        if taken > positions.free() {
            return Ok(false);
        }
        self.write(positions.head, frame);
        // SYNC POINT: Release pairs with the Acquire in `Positions::read`: who sees this head sees the whole frame.
        self.storage
            .header(HEAD)
            .store(positions.head + taken, Ordering::Release);
        self.storage.notify(PUBLISHED);
        Ok(true)
    }

    /// The longest frame that this ring can ever take, in bytes.
    pub fn max_frame_bytes(&self) -> usize {
        max_frame_bytes(self.storage.body().len())
    }

    /// The ring's size, in bytes.
    pub fn capacity_bytes(&self) -> usize {
        size_of_val(self.storage.body())
    }

    /// Writes a frame at a position behind `head`, where the consumer doesn't look yet.
    pub(super) fn write(&self, position: u64, frame: &[u8]) {
        let words = self.storage.body();
        let header = [frame.len() as u64, copy::checksum(frame, position)];
        let start = word_index(position, words.len());
        copy::write(words, start, header.map(u64::to_le_bytes).as_flattened());
        copy::write(words, (start + header.len()) % words.len(), frame);
    }

    /// The words, for another end over them.
    #[cfg(test)]
    pub(super) fn storage(&self) -> Arc<Storage> {
        Arc::clone(&self.storage)
    }

    /// Writes words as no producer would.
    #[cfg(all(test, not(loom)))]
    pub(super) fn forge(&self, body: &[u64], head: u64, tail: u64) {
        use super::header::TAIL;

        for (word, value) in self.storage.body().iter().zip(body) {
            word.store(*value, Ordering::Relaxed);
        }
        self.storage.header(HEAD).store(head, Ordering::Relaxed);
        self.storage.header(TAIL).store(tail, Ordering::Relaxed);
    }
}
