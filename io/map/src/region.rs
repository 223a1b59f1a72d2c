//! A range of addresses that stays where it is while the files behind it change.
//!
//! A file is mapped elsewhere first, and its pages are brought in there, as a [`Piece`].
//! [`Region::place`] then moves the piece over a part of the region: one system call that moves
//! page tables, after which a reader meets the new file at the old address without a page fault.
//! The kernel does it while it holds the lock of the address space, so who reads meanwhile sees
//! bytes of the old file or of the new one, and where nothing was placed yet, zeros. Which ones,
//! and whether they belong together, is for the caller to find out: every read is a copy by atomic
//! loads.
//!
//! As with [`Mapping`](crate::Mapping), a file must not be cut while it is mapped.

use std::ffi::c_void;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::mem::ManuallyDrop;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap, mmap_anonymous, mremap_fixed, munmap,
};

/// Regions and pieces begin at multiples of this: what one page of page tables covers, so that a
/// whole one can be moved by its one entry.
pub const ALIGN: usize = 2 << 20;
const PAGE: usize = 4096;
const WORD: usize = 8;

/// Addresses that are ours from `base` on, for `len` bytes; unmapped when dropped.
#[derive(Debug)]
struct Range {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the range is plain memory, mapped until drop, and read through atomics alone.
unsafe impl Send for Range {}
// SAFETY: as above.
unsafe impl Sync for Range {}

impl Range {
    /// Zeros that can be read, cost no memory and begin at a multiple of [`ALIGN`].
    fn reserve(len: usize) -> Result<Range> {
        let whole = len
            .checked_add(ALIGN)
            .ok_or(Error::from(ErrorKind::InvalidInput))?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the addresses, so no mapping of anybody is touched.
        let start = unsafe { mmap_anonymous(null_mut(), whole, ProtFlags::READ, flags)? };
        let before = start.align_offset(ALIGN);
        let after = whole - before - len;
        // SAFETY: both ends lie inside of what was just mapped, and nobody knows them yet.
        unsafe {
            let base = start.byte_add(before);
            cut(start, before)?;
            cut(base.byte_add(len), after)?;
            let base = NonNull::new(base.cast()).expect("mmap never returns address 0 unasked");
            Ok(Range { base, len })
        }
    }

    fn at(&self, at: usize) -> *mut c_void {
        debug_assert!(at <= self.len);
        // SAFETY: inside of the range, or at its end.
        unsafe { self.base.as_ptr().add(at).cast() }
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: the range is ours alone, and no reader borrows it any more. A failure leaves
        // addresses unused.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Unmaps `len` bytes from `from`, if there are any.
///
/// # Safety
/// They are the caller's, and nobody uses them.
unsafe fn cut(from: *mut c_void, len: usize) -> Result<()> {
    match len {
        0 => Ok(()),
        // SAFETY: as the caller promises.
        len => Ok(unsafe { munmap(from, len) }?),
    }
}

/// A file, mapped for reading and not yet placed anywhere.
#[derive(Debug)]
pub struct Piece(Range);

impl Piece {
    /// Maps `len` bytes of `file` from `at`, whole pages, which must be there as long as they are
    /// mapped.
    pub fn map(file: &File, at: u64, len: usize) -> Result<Piece> {
        let whole = len.is_multiple_of(PAGE) && at.is_multiple_of(PAGE as u64);
        if len == 0 || !whole || file.metadata()?.len() < at + len as u64 {
            let reason = format!("no {len} bytes in whole pages to map");
            return Err(Error::new(ErrorKind::UnexpectedEof, reason));
        }
        let range = Range::reserve(len)?;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: FIXED replaces exactly the range that was reserved and is ours.
        unsafe { mmap(range.at(0), len, ProtFlags::READ, flags, file, at)? };
        Ok(Piece(range))
    }

    /// Brings the first `len` bytes in, so that reading them is no page fault.
    pub fn prefault(&self, len: usize) {
        let len = len.min(self.0.len).next_multiple_of(PAGE).min(self.0.len);
        // SAFETY: inside of the range. It reads pages and changes nothing.
        let populated = unsafe { madvise(self.0.at(0), len, Advice::LinuxPopulateRead) };
        if populated.is_err() {
            // Kernels before 5.14: by touching, which tells no errors either.
            for page in (0..len).step_by(PAGE) {
                std::hint::black_box(word(&self.0, page));
            }
        }
    }
}

/// The range of addresses.
#[derive(Debug)]
pub struct Region(Range);

impl Region {
    /// Reserves `len` bytes, whole pages; they read as zeros.
    pub fn reserve(len: usize) -> Result<Region> {
        if len == 0 || !len.is_multiple_of(PAGE) {
            return Err(Error::from(ErrorKind::InvalidInput));
        }
        Range::reserve(len).map(Region)
    }

    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Lets `piece` take the addresses over from `at` on.
    pub fn place(&self, at: usize, piece: Piece) -> Result<()> {
        self.check(at, piece.0.len);
        let piece = ManuallyDrop::new(piece);
        let (from, len) = (piece.0.at(0), piece.0.len);
        // SAFETY: source and target are whole pages of ranges of ours that do not overlap. The
        // target stays mapped throughout for whoever reads it: a fault waits for the lock that
        // mremap(2) holds. The source is gone afterwards, and so is not unmapped by drop.
        let moved = unsafe { mremap_fixed(from, len, len, MremapFlags::MAYMOVE, self.0.at(at)) };
        if let Err(error) = moved {
            drop(ManuallyDrop::into_inner(piece));
            // What was there may be unmapped already; addresses of ours must not be anybody's.
            if self.clear(at, len).is_err() {
                std::process::abort();
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// Makes `len` bytes from `at` on zeros again, and lets their file go.
    pub fn clear(&self, at: usize, len: usize) -> Result<()> {
        self.check(at, len);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: whole pages inside of the range; the mapping that is replaced is ours.
        unsafe { mmap_anonymous(self.0.at(at), len, ProtFlags::READ, flags)? };
        Ok(())
    }

    /// Copies the bytes out that lie at `at` now, a multiple of eight; they may change meanwhile.
    pub fn copy_out(&self, at: usize, into: &mut [u8]) {
        let end = at.checked_add(into.len()).expect("within the region");
        assert!(
            at.is_multiple_of(WORD) && end <= self.0.len,
            "within the region"
        );
        let (words, rest) = into.as_chunks_mut::<WORD>();
        let count = words.len();
        for (index, place) in words.iter_mut().enumerate() {
            *place = word(&self.0, at + index * WORD).to_ne_bytes();
        }
        if !rest.is_empty() {
            let last = word(&self.0, at + count * WORD).to_ne_bytes();
            rest.copy_from_slice(&last[..rest.len()]);
        }
        std::sync::atomic::fence(Ordering::Acquire);
    }

    fn check(&self, at: usize, len: usize) {
        let end = at.checked_add(len).expect("within the region");
        assert!(
            at.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && end <= self.0.len,
            "whole pages within the region"
        );
    }
}

/// The word at `at`, a multiple of its size, which lies in the range: ranges are whole pages.
#[inline]
fn word(range: &Range, at: usize) -> u64 {
    debug_assert!(at.is_multiple_of(WORD) && at + WORD <= range.len);
    // SAFETY: inside of the range and aligned. The memory may be read-only: of atomics, relaxed
    // loads of at most a pointer's size are allowed there (std::sync::atomic).
    unsafe { AtomicU64::from_ptr(range.base.as_ptr().add(at).cast()) }.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn file(byte: u8, len: usize) -> File {
        let file = tempfile::tempfile().expect("a temporary file");
        file.write_all_at(&vec![byte; len], 0).expect("room");
        file
    }

    fn read(region: &Region, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0xff; len];
        region.copy_out(at, &mut bytes);
        bytes
    }

    #[test]
    fn a_piece_takes_addresses_over_and_only_those() {
        let region = Region::reserve(4 * PAGE).expect("addresses");
        assert_eq!(read(&region, 0, 4 * PAGE), vec![0; 4 * PAGE]);
        for byte in [1, 2] {
            let piece = Piece::map(&file(byte, 2 * PAGE), 0, 2 * PAGE).expect("mapped");
            piece.prefault(PAGE + 1);
            region.place(PAGE, piece).expect("placed");
            assert_eq!(read(&region, PAGE, 2 * PAGE), vec![byte; 2 * PAGE]);
            assert_eq!(read(&region, 3 * PAGE, 13), [0; 13]);
            assert_eq!(read(&region, PAGE - 8, 11)[7..], [0, byte, byte, byte]);
        }
        region.clear(PAGE, PAGE).expect("cleared");
        assert_eq!(read(&region, 2 * PAGE - 8, 16)[7..9], [0, 2]);
    }

    #[test]
    fn what_is_written_into_the_file_is_seen() {
        let region = Region::reserve(PAGE).expect("addresses");
        let file = file(1, PAGE);
        region
            .place(0, Piece::map(&file, 0, PAGE).expect("mapped"))
            .expect("placed");
        file.write_all_at(&[7; 8], 8).expect("written");
        assert_eq!(read(&region, 0, 24)[7..17], [1, 7, 7, 7, 7, 7, 7, 7, 7, 1]);
    }

    #[test]
    fn a_file_that_is_too_short_and_odd_lengths_are_refused() {
        let short = file(1, PAGE - 1);
        for (len, file) in [(PAGE, &short), (0, &short), (100, &short)] {
            assert!(Piece::map(file, 0, len).is_err(), "{len}");
        }
        assert!(Region::reserve(PAGE + 1).is_err());
    }

    /// Who reads while pieces are placed sees the one or the other, and never faults.
    #[test]
    fn a_reader_is_never_without_memory() {
        let region = Region::reserve(ALIGN).expect("addresses");
        let files = [file(1, ALIGN), file(2, ALIGN)];
        let place = |file| region.place(0, Piece::map(file, 0, ALIGN).expect("mapped"));
        place(&files[0]).expect("placed");
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                for round in 0..20_000 {
                    let at = round * 4096 % ALIGN;
                    let found = read(&region, at, 64);
                    assert!(found.iter().all(|byte| [1, 2].contains(byte)), "{found:?}");
                }
            });
            while !reader.is_finished() {
                files.iter().for_each(|file| place(file).expect("placed"));
            }
        });
    }
}
