//! Memory that processes share: a piece of a file, mapped, behind a type without `unsafe`.
//!
//! Every access is an atomic load or store of a whole word, so that a value written by another
//! process can be seen half done but never is undefined behaviour. Which words belong together,
//! and who may rely on what he saw, is the matter of the formats: SQLite's WAL-index, the control
//! page of a native log, the page of leases.
//!
//! [`region`]: a range of addresses over which whole files are moved, for readers.
//!
//! A mapping beyond the end of its file raises SIGBUS. [`Mapping::new`] refuses a file that is too
//! short; that nobody shrinks it afterwards is the caller's to know.

pub mod region;

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use rustix::thread::futex;

pub use region::{Piece, Region};

/// A shared, writable mapping.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Unmaps when dropped.
    _memory: MmapRaw,
}

// SAFETY: the mapping is plain memory, valid until drop, and accessed through atomics alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `file` from `offset`, a multiple of the kernel's page. The file must be
    /// at least that long now, which is checked, and as long as the mapping lives.
    pub fn new(file: &File, offset: u64, len: usize) -> Result<Mapping> {
        Mapping::made(file, offset, len, |options| options.map_raw(file))
    }

    fn made(
        file: &File,
        offset: u64,
        len: usize,
        map: impl Fn(&MmapOptions) -> Result<MmapRaw>,
    ) -> Result<Mapping> {
        if file.metadata()?.len() < offset + len as u64 {
            let reason = format!("shorter than the {} bytes to map", offset + len as u64);
            return Err(Error::new(ErrorKind::UnexpectedEof, reason));
        }
        let memory = map(MmapOptions::new().offset(offset).len(len))?;
        let base = NonNull::new(memory.as_mut_ptr()).expect("mmap never returns address 0 unasked");
        Ok(Mapping {
            base,
            len,
            _memory: memory,
        })
    }

    /// The word at byte `at`, with everything that was stored before it.
    pub fn load(&self, at: usize) -> u32 {
        self.word(at).load(Ordering::Acquire)
    }

    /// Stores a word; whoever sees it sees everything stored before.
    pub fn store(&self, at: usize, value: u32) {
        self.word(at).store(value, Ordering::Release);
    }

    /// Adds to a word and returns what it was; no access moves across it.
    pub fn add(&self, at: usize, value: u32) -> u32 {
        self.word(at).fetch_add(value, Ordering::SeqCst)
    }

    /// Takes from a word and returns what it was; no access moves across it.
    pub fn subtract(&self, at: usize, value: u32) -> u32 {
        self.word(at).fetch_sub(value, Ordering::SeqCst)
    }

    /// As [`Mapping::load`], and in one order with every other access of this strength.
    pub fn load_ordered(&self, at: usize) -> u32 {
        self.word(at).load(Ordering::SeqCst)
    }

    /// The long word at byte `at`, in one order with every other access of this strength.
    pub fn load_long(&self, at: usize) -> u64 {
        self.long(at).load(Ordering::SeqCst)
    }

    /// Stores a long word, in one order with every other access of this strength.
    pub fn store_long(&self, at: usize, value: u64) {
        self.long(at).store(value, Ordering::SeqCst);
    }

    /// Stores `new` if the long word is `old`; otherwise says what it is.
    pub fn exchange_long(&self, at: usize, old: u64, new: u64) -> std::result::Result<(), u64> {
        let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
        let place = self.long(at);
        place
            .compare_exchange(old, new, success, failure)
            .map(|_| ())
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

    /// Sleeps until [`Mapping::wake`] is called for the word at `at`, it is not `seen` any more, or
    /// `limit` is over. May also return for no reason: the caller looks again.
    pub fn wait(&self, at: usize, seen: u32, limit: Option<Duration>) {
        let timeout = limit.map(|limit| rustix::thread::futex::Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()) as _,
        });
        // Its failures are "not what was seen", "time is over" and "interrupted": look again.
        let _ = futex::wait(self.word(at), futex::Flags::empty(), seen, timeout.as_ref());
    }

    /// Wakes everybody, in whatever process, who waits for the word at `at`.
    pub fn wake(&self, at: usize) {
        // It fails for addresses that are not mapped only.
        let _ = futex::wake(self.word(at), futex::Flags::empty(), i32::MAX as u32);
    }

    /// Where the word at `at` lies; valid as long as the mapping.
    pub fn address(&self, at: usize) -> *const AtomicU32 {
        self.word(at)
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(
            at.is_multiple_of(4) && at + 4 <= self.len,
            "within the mapping"
        );
        // SAFETY: `at` is inside of the mapping and aligned (the base is page-aligned); the memory
        // is valid until drop, and processes of a machine may share atomics through MAP_SHARED.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    fn long(&self, at: usize) -> &AtomicU64 {
        assert!(
            at.is_multiple_of(8) && at + 8 <= self.len,
            "within the mapping"
        );
        // SAFETY: as for `word`.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) }
    }
}

/// A shared mapping that can only be read: of a file that another process writes.
#[derive(Debug)]
pub struct View(Mapping);

impl View {
    /// As [`Mapping::new`]; `file` need not be open for writing.
    pub fn new(file: &File, offset: u64, len: usize) -> Result<View> {
        Mapping::made(file, offset, len, |options| options.map_raw_read_only(file)).map(View)
    }

    /// The long word at byte `at`; what is loaded after it is not older.
    pub fn load_long(&self, at: usize) -> u64 {
        // Of the atomic accesses only relaxed loads are defined on memory that is read-only
        // (std::sync::atomic, "Atomic accesses to read-only memory").
        let value = self.0.long(at).load(Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::Acquire);
        value
    }

    /// As [`Mapping::copy_out`].
    pub fn copy_out(&self, at: usize, into: &mut [u8]) {
        self.0.copy_out(at, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Mapping, Mapping) {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(4096).expect("room for a page");
        let map = |()| Mapping::new(&file, 0, 4096).expect("a mapping");
        (map(()), map(()))
    }

    #[test]
    fn what_one_mapping_stores_the_other_sees() {
        let (one, other) = pair();
        one.store(4, 7);
        one.store_long(8, u64::MAX - 1);
        assert_eq!((other.load(4), other.load_long(8)), (7, u64::MAX - 1));
        assert_eq!(one.exchange_long(8, 5, 6), Err(u64::MAX - 1));
        assert_eq!(one.exchange_long(8, u64::MAX - 1, 6), Ok(()));
        assert_eq!(
            (other.load_long(8), other.add(4, 2), one.load(4)),
            (6, 7, 9)
        );
        one.copy_in(64, &[1, 2, 3, 4, 5, 6, 7, 8]);
        let mut bytes = [0; 8];
        other.copy_out(64, &mut bytes);
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_view_sees_what_a_mapping_stores_and_needs_no_right_to_write() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(4096).expect("room for a page");
        let mapping = Mapping::new(file.as_file(), 0, 4096).expect("a mapping");
        let readable = File::open(file.path()).expect("for reading");
        let view = View::new(&readable, 0, 4096).expect("a view");
        mapping.store_long(16, 7);
        let mut bytes = [0; 8];
        view.copy_out(16, &mut bytes);
        assert_eq!((view.load_long(16), bytes), (7, 7u64.to_ne_bytes()));
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(4095).expect("not a page");
        let error = Mapping::new(&file, 0, 4096).expect_err("it would raise SIGBUS");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_waiter_is_woken_and_time_is_bounded() {
        let (one, other) = pair();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while other.load_ordered(0) == 0 {
                    other.wait(0, 0, None);
                }
            });
            one.add(0, 1);
            one.wake(0);
        });
        one.wait(0, 1, Some(Duration::from_millis(1)));
        one.wait(0, 99, None);
    }
}
