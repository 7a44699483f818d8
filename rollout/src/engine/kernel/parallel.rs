//! Work side by side, on threads that somebody else has.

use std::sync::Mutex;

/// Runs a function once for each of 0..n, side by side.
pub(in crate::engine) type Parallel<'a> = dyn Fn(usize, &(dyn Fn(usize) + Sync)) + 'a;

/// Runs `work` on each part.
pub(in crate::engine) fn each<T: Send>(
    parallel: &Parallel<'_>,
    parts: impl Iterator<Item = T>,
    work: impl Fn(usize, T) + Sync,
) {
    let parts: Vec<Mutex<Option<T>>> = parts.map(|part| Mutex::new(Some(part))).collect();
    parallel(parts.len(), &|index| {
        let part = parts[index].lock().ok().and_then(|mut part| part.take());
        if let Some(part) = part {
            work(index, part);
        }
    });
}
