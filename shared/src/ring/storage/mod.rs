//! Words of atomics that two sides share: a header, signals to wait on, and a body.

mod heap;
#[cfg(not(loom))]
mod mapped;

use std::path::Path;
use std::time::Duration;

use crate::error::Result;
use crate::ring::sync::{AtomicU32, AtomicU64, Ordering};

pub(crate) use heap::Heap;
#[cfg(not(loom))]
pub(crate) use mapped::{Access, Format, Mapped, now_ms};

/// Words of the header that have a name.
pub(crate) const HEADER_WORDS: usize = 32;
/// Counters to wait on, each on a cache line of its own.
pub(crate) const SIGNALS: usize = 2;

/// Where the words are.
#[derive(Debug)]
pub(crate) enum Storage {
    /// In this process.
    Heap(Heap),
    /// In a file that other processes map too.
    #[cfg(not(loom))]
    Mapped(Mapped),
}

impl Storage {
    /// A word of the header; `index < HEADER_WORDS`.
    pub(crate) fn header(&self, index: usize) -> &AtomicU64 {
        match self {
            Self::Heap(heap) => heap.header(index),
            #[cfg(not(loom))]
            Self::Mapped(mapped) => mapped.header(index),
        }
    }

    /// The words behind the header.
    pub(crate) fn body(&self) -> &[AtomicU64] {
        match self {
            Self::Heap(heap) => heap.body(),
            #[cfg(not(loom))]
            Self::Mapped(mapped) => mapped.body(),
        }
    }

    /// Where a signal stands. Read it before looking for what it announces, and pass it to [`Self::wait`].
    pub(crate) fn signalled(&self, signal: usize) -> u32 {
        self.signal(signal).load(Ordering::SeqCst)
    }

    /// Sleeps until the signal differs from `seen`, at most `timeout`. True when it differs.
    pub(crate) fn wait(&self, signal: usize, seen: u32, timeout: Duration) -> Result<bool> {
        match self {
            Self::Heap(heap) => heap.wait(signal, seen, timeout),
            #[cfg(not(loom))]
            Self::Mapped(mapped) => mapped.wait(signal, seen, timeout)?,
        }
        Ok(self.signalled(signal) != seen)
    }

    /// Moves the signal and wakes all who wait on it.
    pub(crate) fn notify(&self, signal: usize) {
        match self {
            Self::Heap(heap) => heap.notify(signal),
            #[cfg(not(loom))]
            Self::Mapped(mapped) => mapped.notify(signal),
        }
    }

    /// The file; empty on the heap.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Heap(_) => Path::new(""),
            #[cfg(not(loom))]
            Self::Mapped(mapped) => mapped.path(),
        }
    }

    fn signal(&self, signal: usize) -> &AtomicU32 {
        match self {
            Self::Heap(heap) => heap.signal(signal),
            #[cfg(not(loom))]
            Self::Mapped(mapped) => mapped.signal(signal),
        }
    }
}
