//! Alerts that somebody writes to the log of a partition at rest, by inotify: what sleeps costs
//! nothing.
//!
//! A commit is written to the log before it is published in mapped memory, perhaps much earlier,
//! and the kernel's queue may overflow: an alert only says which database to look at for a while.
//! The look itself is [`super::watch`]'s, and the caller looks at everybody now and then besides.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::inotify::Inotify;
use crate::error::Result;

/// A WAL that is written to, truncated, deleted or moved away.
const MASK: u32 = libc::IN_MODIFY | libc::IN_ATTRIB | libc::IN_DELETE_SELF | libc::IN_MOVE_SELF;

/// The WALs that are listened to, each under a key of the caller's.
#[derive(Debug)]
pub struct Alerts {
    inotify: Inotify,
    keys: HashMap<i32, u32>,
    ids: HashMap<u32, i32>,
}

impl Alerts {
    pub fn new() -> Result<Alerts> {
        Ok(Alerts {
            inotify: Inotify::new()?,
            keys: HashMap::new(),
            ids: HashMap::new(),
        })
    }

    /// Readable when there are alerts.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.fd()
    }

    /// Listens to the file that commits are written to. What was written before is not told: look
    /// at it once afterwards. Fails when the user's share of watches
    /// (fs.inotify.max_user_watches) is used up.
    pub fn add(&mut self, key: u32, touched: &Path) -> Result<()> {
        let id = self.inotify.add(touched, MASK)?;
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
            self.inotify.remove(id);
        }
        true
    }

    /// Whose WALs were touched since the last call; all of them when the kernel lost count.
    pub fn take(&mut self) -> Result<BTreeSet<u32>> {
        let mut alerted = BTreeSet::new();
        let read = self.inotify.read(|event| {
            if event.mask & libc::IN_Q_OVERFLOW != 0 {
                alerted.extend(self.ids.keys());
            }
            alerted.extend(self.keys.get(&event.watch));
        });
        // What failed after some alerts is met again by the next call.
        match read {
            Err(error) if alerted.is_empty() => Err(error),
            _ => Ok(alerted),
        }
    }
}
