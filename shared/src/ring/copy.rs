//! Bytes into circular words and out of them, and the checksum that guards a frame.
//!
//! All accesses are Relaxed atomics: their order against the other side comes from the positions alone.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::sync::{AtomicU64, Ordering};

/// Stores `bytes` from word `start` on, going round at the end; the last word is padded with zeros.
/// `bytes` must fit the words.
pub(super) fn write(words: &[AtomicU64], start: usize, bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<8>();
    let (before, after) = whole.split_at(whole.len().min(words.len() - start));
    store(&words[start..], before);
    store(words, after);
    if !rest.is_empty() {
        let mut padded = [0; 8];
        padded[..rest.len()].copy_from_slice(rest);
        store(&words[(start + whole.len()) % words.len()..], &[padded]);
    }
}

/// Loads `count` bytes from word `start` on into `out`, replacing what it held.
pub(super) fn read(words: &[AtomicU64], start: usize, count: usize, out: &mut Vec<u8>) {
    // Not cleared first: a vector that is used again is zeroed only where it grows.
    out.resize(count.next_multiple_of(8), 0);
    let (chunks, _) = out.as_chunks_mut::<8>();
    let split = chunks.len().min(words.len() - start);
    let (before, after) = chunks.split_at_mut(split);
    load(&words[start..], before);
    load(words, after);
    out.truncate(count);
}

/// Of a frame's content; the position makes an old frame at the same place a wrong one.
pub(super) fn checksum(content: &[u8], position: u64) -> u64 {
    xxh3_64_with_seed(content, position)
}

fn store(words: &[AtomicU64], chunks: &[[u8; 8]]) {
    for (word, chunk) in words.iter().zip(chunks) {
        word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
    }
}

fn load(words: &[AtomicU64], chunks: &mut [[u8; 8]]) {
    for (word, chunk) in words.iter().zip(chunks) {
        *chunk = word.load(Ordering::Relaxed).to_le_bytes();
    }
}
