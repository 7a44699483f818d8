//! Memory asked for before it is needed.
#![allow(unsafe_code, reason = "the instruction has no safe wrapper")]

/// Bytes that come together.
const LINE: usize = 64;

/// Asks for the `index`-th cache line of `memory`, if there is one.
#[inline(always)]
pub(in crate::engine) fn line<T>(memory: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(address) = memory.get(index * (LINE / size_of::<T>())) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint about memory that is there, of the oldest 64-bit machines.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(address).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (memory, index);
}

/// What is left of `memory` behind its first `lines` cache lines.
#[inline(always)]
pub(in crate::engine) fn behind<T>(memory: &[T], lines: usize) -> &[T] {
    memory
        .get(lines * (LINE / size_of::<T>())..)
        .unwrap_or_default()
}
