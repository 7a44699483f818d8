//! Storage on the heap, for tests, loom and Miri: a lock and a condition variable stand for the futex.

use std::time::Duration;

use super::{HEADER_WORDS, SIGNALS};
use crate::ring::sync::{AtomicU32, AtomicU64, Condvar, Mutex, Ordering};

#[derive(Debug)]
pub(crate) struct Heap {
    header: Vec<AtomicU64>,
    body: Vec<AtomicU64>,
    signals: Vec<AtomicU32>,
    /// What the kernel's futex queue does: comparing the word and going to sleep is one step for those who wake.
    queue: Mutex<()>,
    woken: Condvar,
}

impl Heap {
    pub(crate) fn new(body_words: usize) -> Self {
        Self {
            header: (0..HEADER_WORDS).map(|_| AtomicU64::new(0)).collect(),
            body: (0..body_words).map(|_| AtomicU64::new(0)).collect(),
            signals: (0..SIGNALS).map(|_| AtomicU32::new(0)).collect(),
            queue: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    pub(super) fn header(&self, index: usize) -> &AtomicU64 {
        &self.header[index]
    }

    pub(super) fn body(&self) -> &[AtomicU64] {
        &self.body
    }

    pub(super) fn signal(&self, signal: usize) -> &AtomicU32 {
        &self.signals[signal]
    }

    pub(super) fn wait(&self, signal: usize, seen: u32, timeout: Duration) {
        // The lock guards no data, so a poisoned one is as good as any.
        let guard = self
            .queue
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.signals[signal].load(Ordering::SeqCst) == seen {
            drop(self.woken.wait_timeout(guard, timeout));
        }
    }

    pub(super) fn notify(&self, signal: usize) {
        self.signals[signal].fetch_add(1, Ordering::SeqCst);
        drop(self.queue.lock());
        self.woken.notify_all();
    }
}
