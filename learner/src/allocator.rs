//! How the C library's allocator treats tensors.
#![allow(unsafe_code, reason = "the allocator is set through its C interface")]

/// Bytes above which a block would be mapped by itself, and free bytes above which memory goes back to the system: the
/// largest that the interface takes, 2 GiB.
const NEVER: libc::c_int = libc::c_int::MAX;

/// Keeps the memory of freed tensors for the next ones. glibc maps every large block anew and gives it back at once, and the
/// system fills each page of it with zeros first: a tenth and more of an update. Before any thread is started.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: plain settings of the allocator. It may refuse them, then things are slower and nothing else.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, NEVER);
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: as above.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, NEVER);
    }
}
