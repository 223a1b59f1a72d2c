//! Locks on byte ranges of a file that belong to the open file, not to the process.
//!
//! SQLite takes POSIX locks, which a process loses when it closes *any* descriptor of the file.
//! Open-file-description locks (fcntl(2), "Open file description locks") conflict with them as they
//! should, but are ours until the last duplicate of our descriptor is closed. The price: two users
//! of one descriptor do not exclude one another, so whoever shares a descriptor between threads
//! needs a lock of its own beside ([`super::gate`]).

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// What another open file holds on a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    pub exclusive: bool,
    /// The process, where the kernel knows: -1 for an open-file lock.
    pub pid: i32,
}

/// Bytes of a file that a lock covers.
pub type Bytes = Range<u64>;

/// The range of one lock byte.
pub const fn byte(at: u64) -> Bytes {
    at..at + 1
}

/// Takes `bytes` for reading, or turns what we hold there into it; false while another holds them
/// for writing.
pub fn try_shared(file: &File, bytes: Bytes) -> std::io::Result<bool> {
    set(file, bytes, libc::F_RDLCK, libc::F_OFD_SETLK)
}

/// Takes `bytes` for writing, or turns what we hold there into it in one step; false, with nothing
/// changed, while another holds any of them.
pub fn try_exclusive(file: &File, bytes: Bytes) -> std::io::Result<bool> {
    set(file, bytes, libc::F_WRLCK, libc::F_OFD_SETLK)
}

/// Takes `bytes` for writing, however long it takes; false when a signal came first.
pub fn wait_exclusive(file: &File, bytes: Bytes) -> std::io::Result<bool> {
    set(file, bytes, libc::F_WRLCK, libc::F_OFD_SETLKW)
}

/// Lets go of whatever we hold of `bytes`.
pub fn unlock(file: &File, bytes: Bytes) -> std::io::Result<()> {
    set(file, bytes, libc::F_UNLCK, libc::F_OFD_SETLK).map(|_| ())
}

/// Who would be in the way of an exclusive lock on `bytes`.
pub fn holder(file: &File, bytes: Bytes) -> std::io::Result<Option<Holder>> {
    let mut lock = flock(bytes, libc::F_WRLCK);
    // SAFETY: F_OFD_GETLK reads and writes the `flock` it is handed, which outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    if result != 0 {
        return Err(std::io::Error::last_os_error());
    }
    if lock.l_type == libc::F_UNLCK as libc::c_short {
        return Ok(None);
    }
    let exclusive = lock.l_type == libc::F_WRLCK as libc::c_short;
    Ok(Some(Holder {
        exclusive,
        pid: lock.l_pid,
    }))
}

/// An exclusive lock that ends with this value.
#[derive(Debug)]
pub struct Held {
    file: Arc<File>,
    bytes: Bytes,
}

impl Held {
    /// Takes `bytes` of `file` for writing; `None` while another holds any of them.
    pub fn try_exclusive(file: &Arc<File>, bytes: Bytes) -> std::io::Result<Option<Held>> {
        let taken = try_exclusive(file, bytes.clone())?;
        Ok(taken.then(|| Held {
            file: Arc::clone(file),
            bytes,
        }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Unlocking a range of an open file can't fail but for a bad descriptor, and then the lock
        // is gone as well.
        let _ = unlock(&self.file, self.bytes.clone());
    }
}

fn set(file: &File, bytes: Bytes, kind: libc::c_int, op: libc::c_int) -> std::io::Result<bool> {
    let lock = flock(bytes, kind);
    // SAFETY: both operations only read the `flock` they are handed.
    if unsafe { libc::fcntl(file.as_raw_fd(), op, &lock) } == 0 {
        return Ok(true);
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES | libc::EINTR) => Ok(false),
        _ => Err(error),
    }
}

fn flock(bytes: Bytes, kind: libc::c_int) -> libc::flock {
    debug_assert!(
        bytes.start < bytes.end,
        "a length of 0 would mean the rest of the file"
    );
    // SAFETY: `flock` is plain integers, for which all zeros is a value; l_pid must be 0 for
    // open-file locks.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = bytes.start as libc::off_t;
    lock.l_len = (bytes.end - bytes.start) as libc::off_t;
    lock
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_openings() -> (Arc<File>, Arc<File>, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("locks");
        let open = || {
            let mut options = File::options();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            Arc::new(file.expect("a file"))
        };
        (open(), open(), dir)
    }

    #[test]
    fn a_failed_conversion_leaves_the_shared_lock_in_place() {
        let (ours, theirs, _dir) = two_openings();
        assert!(try_shared(&ours, byte(3)).expect("lock"));
        assert!(try_shared(&theirs, byte(3)).expect("lock"));
        assert!(!try_exclusive(&ours, byte(3)).expect("lock"));
        unlock(&theirs, byte(3)).expect("unlock");
        assert!(
            !try_exclusive(&theirs, byte(3)).expect("lock"),
            "ours is still there"
        );
        assert!(try_exclusive(&ours, byte(3)).expect("lock"));
        let holder = holder(&theirs, byte(3)).expect("look").expect("held");
        assert!(holder.exclusive);
    }

    #[test]
    fn a_held_lock_ends_with_its_value_and_not_with_another_descriptor() {
        let (ours, theirs, dir) = two_openings();
        let held = Held::try_exclusive(&ours, 4..8)
            .expect("lock")
            .expect("free");
        drop(File::open(dir.path().join("locks")).expect("another opening"));
        assert!(holder(&theirs, byte(7)).expect("look").is_some());
        drop(held);
        assert_eq!(holder(&theirs, byte(7)).expect("look"), None);
    }
}
