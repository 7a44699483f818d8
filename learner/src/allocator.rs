//! What libtorch and the C library may keep in memory.
#![allow(
    unsafe_code,
    reason = "the allocator is set through its C interface, oneDNN through the environment"
)]

/// Bytes above which a block would be mapped by itself, and free bytes above which memory goes back to the system: the
/// largest number that the interface has room for, 2 GiB.
const NEVER: libc::c_int = libc::c_int::MAX;
/// The largest block that older versions keep.
const OLD_LIMIT: libc::c_int = 32 << 20;

/// Compiled products that oneDNN keeps, and libtorch's layer over it. They are compiled for their shapes, and micro-batches have
/// hardly ever the same: with the libraries' own 1024 the process grew by 0.9 GB over a hundred steps. To compile one takes
/// a fraction of a millisecond.
const KEPT_PRODUCTS: &str = "64";
const PRODUCT_CACHES: [&str; 2] = ["ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"];

/// Bounds what is kept from shape to shape, unless the user's environment does. Before any thread is started.
pub fn bound_product_caches() {
    for name in PRODUCT_CACHES {
        if std::env::var_os(name).is_none() {
            // SAFETY: there is only this thread yet, so nobody reads the environment meanwhile.
            unsafe { std::env::set_var(name, KEPT_PRODUCTS) };
        }
    }
}

/// Keeps the memory of freed tensors for the next ones. glibc maps every large block anew and gives it back at once, and the
/// system fills each page of it with zeros first: a tenth and more of an update. Before any thread is started.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let set = |parameter, value| {
            // SAFETY: a plain setting of the allocator, which says whether it took it.
            unsafe { libc::mallopt(parameter, value) == 1 }
        };
        // One of the two settings alone would switch off the allocator's own adaptation and be worse than none.
        if set(libc::M_MMAP_THRESHOLD, NEVER) || set(libc::M_MMAP_THRESHOLD, OLD_LIMIT) {
            set(libc::M_TRIM_THRESHOLD, NEVER);
        }
        // One arena for all threads: what one of them frees the others use again, a few hundred MB in all.
        set(libc::M_ARENA_MAX, 1);
    }
}
