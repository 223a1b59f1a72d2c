//! Memory that other processes write: a piece of a `-shm` file, mapped.
//!
//! Every access is an atomic load or store of a whole word, so that a torn or reordered value can
//! be seen but never undefined behaviour. Who may rely on what he saw is the WAL-index protocol's
//! matter ([`super::shm`]).
//!
//! A mapping beyond the end of its file raises SIGBUS. SQLite shrinks a `-shm` only while it holds
//! the dead-man byte alone, so a mapping made while we hold it shared stays whole.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A shared, writable mapping.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u32>,
    len: usize,
}

// SAFETY: the mapping is plain memory, valid until drop, and accessed through atomics alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `file` from `offset`, both multiples of the kernel's page. The file must
    /// be at least that long, now and as long as the mapping lives.
    pub fn new(file: &File, offset: u64, len: usize) -> std::io::Result<Mapping> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            let at = std::ptr::null_mut();
            libc::mmap(at, len, prot, libc::MAP_SHARED, fd, offset as libc::off_t)
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap never returns address 0 unasked");
        Ok(Mapping { base, len })
    }

    /// The word at byte `at`, with everything that was stored before it.
    pub fn load(&self, at: usize) -> u32 {
        self.word(at).load(Ordering::Acquire)
    }

    /// Stores a word; whoever sees it sees everything stored before.
    pub fn store(&self, at: usize, value: u32) {
        self.word(at).store(value, Ordering::Release);
    }

    /// Copies bytes out, word by word, in ascending order.
    pub fn copy_out(&self, at: usize, into: &mut [u8]) {
        let (words, rest) = into.as_chunks_mut::<4>();
        assert!(rest.is_empty(), "whole words");
        for (index, word) in words.iter_mut().enumerate() {
            *word = self
                .word(at + index * 4)
                .load(Ordering::Relaxed)
                .to_ne_bytes();
        }
        std::sync::atomic::fence(Ordering::Acquire);
    }

    /// Copies bytes in, word by word, in ascending order, words that stay the same left alone.
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        std::sync::atomic::fence(Ordering::Release);
        let (words, rest) = bytes.as_chunks::<4>();
        assert!(rest.is_empty(), "whole words");
        for (index, word) in words.iter().enumerate() {
            let place = self.word(at + index * 4);
            let value = u32::from_ne_bytes(*word);
            if place.load(Ordering::Relaxed) != value {
                place.store(value, Ordering::Release);
            }
        }
    }

    /// Where the word at `at` lies; valid as long as the mapping.
    pub(super) fn address(&self, at: usize) -> *const AtomicU32 {
        self.word(at)
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(
            at.is_multiple_of(4) && at + 4 <= self.len,
            "within the mapping"
        );
        // SAFETY: `at` is inside of the mapping and aligned (the base is page-aligned); the memory
        // is valid until drop, and processes of a machine may share atomics through MAP_SHARED.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().byte_add(at)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is exactly the range that `new` mapped, and no reference into it is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
