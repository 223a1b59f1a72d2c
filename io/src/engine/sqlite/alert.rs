//! Alerts that somebody writes to the WAL of a database at rest, by inotify: what sleeps costs
//! nothing.
//!
//! A commit is written to the WAL before it is published in the WAL-index, perhaps much earlier,
//! and the kernel's queue may overflow: an alert only says which database to look at for a while.
//! The look itself is [`super::watch`]'s, and the caller looks at everybody now and then besides.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::watch::Watch;
use crate::error::{Error, Result};

/// A WAL that is written to, truncated, deleted or moved away.
const MASK: u32 = libc::IN_MODIFY | libc::IN_ATTRIB | libc::IN_DELETE_SELF | libc::IN_MOVE_SELF;
/// Bytes of an event without a name (inotify(7)); watches of files give no names.
const EVENT_LEN: usize = 16;

/// The WALs that are listened to, each under a key of the caller's.
#[derive(Debug)]
pub struct Alerts {
    inotify: OwnedFd,
    keys: HashMap<i32, u32>,
    ids: HashMap<u32, i32>,
}

impl Alerts {
    pub fn new() -> Result<Alerts> {
        // SAFETY: creates a descriptor and touches no memory.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Error::system("make", "an inotify queue", error));
        }
        // SAFETY: the descriptor is new and nobody else's.
        let inotify = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Alerts {
            inotify,
            keys: HashMap::new(),
            ids: HashMap::new(),
        })
    }

    /// Readable when there are alerts.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Listens to a database. What was written before is not told: look at it once afterwards.
    /// Fails when the user's share of watches (fs.inotify.max_user_watches) is used up.
    pub fn add(&mut self, key: u32, watch: &Watch) -> Result<()> {
        let path = &watch.paths().wal;
        let name = CString::new(path.as_os_str().as_bytes());
        let name = name.map_err(|e| Error::at("watch", path, std::io::Error::other(e)))?;
        let fd = self.inotify.as_raw_fd();
        // SAFETY: the name is a C string that outlives the call.
        let id = unsafe { libc::inotify_add_watch(fd, name.as_ptr(), MASK) };
        if id < 0 {
            return Err(Error::at("watch", path, std::io::Error::last_os_error()));
        }
        self.keys.insert(id, key);
        self.ids.insert(key, id);
        Ok(())
    }

    /// Listens to it no longer; `false` when it did not.
    pub fn remove(&mut self, key: u32) -> bool {
        let Some(id) = self.ids.remove(&key) else {
            return false;
        };
        if self.keys.get(&id) == Some(&key) {
            self.keys.remove(&id);
            // SAFETY: takes two numbers. It fails when the file is gone, and the watch with it.
            unsafe { libc::inotify_rm_watch(self.inotify.as_raw_fd(), id) };
        }
        true
    }

    /// Whose WALs were touched since the last call; all of them when the kernel lost count.
    pub fn take(&mut self) -> Result<BTreeSet<u32>> {
        let mut alerted = BTreeSet::new();
        let mut buffer = [0; 256 * EVENT_LEN];
        loop {
            let fd = self.inotify.as_raw_fd();
            // SAFETY: the buffer is ours and as long as we say.
            let got = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
            if got <= 0 {
                let error = std::io::Error::last_os_error();
                return match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => Ok(alerted),
                    // What failed is met again by the next call.
                    _ if !alerted.is_empty() => Ok(alerted),
                    _ => Err(Error::system("read", "inotify", error)),
                };
            }
            for event in buffer[..got as usize].chunks_exact(EVENT_LEN) {
                let word = |at: usize| [event[at], event[at + 1], event[at + 2], event[at + 3]];
                let id = i32::from_ne_bytes(word(0));
                if u32::from_ne_bytes(word(4)) & libc::IN_Q_OVERFLOW != 0 {
                    alerted.extend(self.ids.keys());
                }
                alerted.extend(self.keys.get(&id));
            }
        }
    }
}
