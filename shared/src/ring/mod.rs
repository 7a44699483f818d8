//! A queue of frames between two processes: one producer, one consumer, a memory-mapped file.
//!
//! # Layout
//!
//! - `producer`, `consumer`: the two ends
//! - `header`: the file's words and how an end is opened
//! - `positions`: where the two ends stand, and what that allows
//! - `copy`: bytes to circular words and back, the frame's checksum
//! - `storage`: the words themselves, on the heap (tests, loom, Miri) or in a mapped file
//! - `sync`: atomics and locks, of std or of loom
//!
//! ```text
//! file   | header, 4096 bytes: magic, layout version, size | head | tail | signals | body: words, circular |
//! frame  | length u64 | xxh3-64, seeded with the frame's position | bytes, padded to a word |
//! ```
//!
//! `head` (bytes ever published) and `tail` (bytes ever consumed) only grow. The producer writes a frame behind `head` and
//! then moves `head` past it, so a frame is visible whole or not at all, and a producer that was killed leaves nothing:
//! the next one writes over what was not published. The consumer copies a frame out and then moves `tail`, so one that
//! was killed finds the frame again. A full ring makes the producer wait; nothing is ever dropped.

mod consumer;
mod copy;
mod header;
mod positions;
mod producer;
pub(crate) mod storage;
pub(crate) mod sync;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

pub use consumer::Consumer;
pub use header::heap;
pub use producer::Producer;
