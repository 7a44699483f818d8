//! The words of a ring beside its body, and a ring on the heap.

use super::consumer::Consumer;
use super::producer::Producer;
#[cfg(not(loom))]
use super::storage::Format;
use super::storage::{Heap, Storage};
use super::sync::Arc;

/// What a ring's file says about itself.
#[cfg(not(loom))]
pub(super) const FORMAT: Format = Format {
    kind: "ring",
    magic: *b"ToR ring",
    version: 1,
};

/// Header word: bytes ever published. Written by the producer; a cache line of its own.
pub(super) const HEAD: usize = 8;
/// Header word: bytes ever consumed. Written by the consumer; a cache line of its own.
pub(super) const TAIL: usize = 16;
/// Signal: a frame was published.
pub(super) const PUBLISHED: usize = 0;
/// Signal: a frame was consumed.
pub(super) const CONSUMED: usize = 1;
/// Bytes of the words that positions count in.
pub(super) const WORD_BYTES: usize = size_of::<u64>();
/// Bytes of a frame before its content: length and checksum.
pub(super) const FRAME_HEADER_BYTES: usize = 2 * WORD_BYTES;

/// A ring inside one process: the same two ends over heap memory.
pub fn heap(capacity_bytes: usize) -> (Producer, Consumer) {
    let words = capacity_bytes.div_ceil(WORD_BYTES);
    let storage = Arc::new(Storage::Heap(Heap::new(words)));
    (Producer::on(Arc::clone(&storage)), Consumer::on(storage))
}
