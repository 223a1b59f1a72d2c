//! Copies a whole file by the cheapest way the filesystem offers: shared extents (FICLONE), a copy
//! inside the kernel (copy_file_range), else read and write.
//!
//! The target is overwritten from its start and ends up as long as the source was; nothing is
//! synced. Holes may become zeros.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::durable::{read_at, write_at};
use crate::error::{Error, Result};

/// Bytes per system call: small enough that progress moves, large enough to cost nothing.
const CHUNK: usize = 1 << 20;

/// How a file was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloneWay {
    /// The extents are shared; no bytes moved.
    Reflink,
    /// The kernel moved the bytes (or shared them by itself).
    InKernel,
    /// Through this process.
    Copied,
}

/// Copies all of `source` into `target`; `done` counts bytes.
pub fn clone_file(
    source: (&File, &Path),
    target: (&File, &Path),
    done: &AtomicU64,
) -> Result<CloneWay> {
    let len = source
        .0
        .metadata()
        .map_err(|e| Error::at("stat", source.1, e))?
        .len();
    if reflink(source.0, target.0) {
        done.fetch_add(len, Ordering::Relaxed);
        return Ok(CloneWay::Reflink);
    }
    target
        .0
        .set_len(len)
        .map_err(|e| Error::at("set the size of", target.1, e))?;
    let moved = copy_in_kernel(source.0, target.0, len, done);
    if moved == len {
        return Ok(CloneWay::InKernel);
    }
    copy_by_hand(source, target, moved..len, done)?;
    Ok(CloneWay::Copied)
}

fn reflink(source: &File, target: &File) -> bool {
    // SAFETY: FICLONE (ioctl_ficlone(2)) takes a descriptor by value; both are open for the whole
    // call, and no memory of ours is touched.
    let result = unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) };
    result == 0
}

/// Returns how many bytes were copied; fewer than `len` means that the rest needs another way
/// (EXDEV, EOPNOTSUPP, a source that shrank).
fn copy_in_kernel(source: &File, target: &File, len: u64, done: &AtomicU64) -> u64 {
    let mut at: i64 = 0;
    while (at as u64) < len {
        let (mut from, mut to) = (at, at);
        let want = CHUNK.min((len - at as u64) as usize);
        // SAFETY: copy_file_range(2) reads and writes only the two offsets, which outlive the call.
        let count = unsafe {
            libc::copy_file_range(
                source.as_raw_fd(),
                &mut from,
                target.as_raw_fd(),
                &mut to,
                want,
                0,
            )
        };
        if count <= 0 {
            break;
        }
        at += count as i64;
        done.fetch_add(count as u64, Ordering::Relaxed);
    }
    at as u64
}

fn copy_by_hand(
    source: (&File, &Path),
    target: (&File, &Path),
    range: std::ops::Range<u64>,
    done: &AtomicU64,
) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = range.start;
    while at < range.end {
        let want = CHUNK.min((range.end - at) as usize);
        read_at(source.0, source.1, &mut buffer[..want], at)?;
        write_at(target.0, target.1, &buffer[..want], at)?;
        at += want as u64;
        done.fetch_add(want as u64, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(dir: &Path, len: usize) -> (std::path::PathBuf, Vec<u8>) {
        let path = dir.join("source");
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
        std::fs::write(&path, &bytes).expect("write the sample");
        (path, bytes)
    }

    #[test]
    fn a_clone_equals_its_source_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (path, bytes) = sample(dir.path(), 3 * CHUNK + 77);
        let target_path = dir.path().join("target");
        std::fs::write(&target_path, vec![9; 5 * CHUNK]).expect("write the old target");
        let target = crate::durable::open_rw(&target_path).expect("open");
        let source = File::open(&path).expect("open");
        let done = AtomicU64::new(0);
        clone_file((&source, &path), (&target, &target_path), &done).expect("clone");
        assert_eq!(std::fs::read(&target_path).expect("read"), bytes);
        assert_eq!(done.load(Ordering::Relaxed), bytes.len() as u64);
    }

    #[test]
    fn copying_by_hand_gives_the_same_bytes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (path, bytes) = sample(dir.path(), CHUNK + 1);
        let target_path = dir.path().join("target");
        let target =
            crate::durable::create_new(&target_path, &crate::durable::Attributes::own(0o600))
                .expect("create");
        let source = File::open(&path).expect("open");
        let done = AtomicU64::new(0);
        copy_by_hand(
            (&source, &path),
            (&target, &target_path),
            0..bytes.len() as u64,
            &done,
        )
        .expect("copy");
        assert_eq!(std::fs::read(&target_path).expect("read"), bytes);
    }
}
