//! What the C library's allocator does with large pieces that are freed.
//!
//! glibc gives every piece of 128 KiB and more back to the kernel when it is freed, and the next
//! one of that size takes a page fault for each 4 KiB. For frames of 256 KiB and 1 MiB those
//! faults took two thirds of the processor time of a link (1.1 core-seconds per GB with them, 0.41
//! without).

/// Pieces up to this long come from the heap: frames of bulk pages and of most deltas.
const MAPPED_FROM: libc::c_int = 4 << 20;
/// Free bytes at the end of a heap that are kept for the next piece.
const KEPT_MAX: libc::c_int = 8 << 20;

/// Keeps freed memory of the length of a frame within the process, at most 8 MiB a heap. To be
/// called once, before other threads are started; does nothing where the C library has no such
/// choice.
pub fn keep_freed_frames() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, MAPPED_FROM),
        (libc::M_TRIM_THRESHOLD, KEPT_MAX),
    ] {
        // SAFETY: mallopt(3) takes two numbers. A value that it refuses changes nothing.
        unsafe { libc::mallopt(parameter, value) };
    }
}
