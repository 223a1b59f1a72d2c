//! A live database as its applications, the daemon's tail and a power cut see it.
//!
//! | | SQLite's write-ahead log | the native log |
//! |---|---|---|
//! | a commit | lock, append, sync (`FULL`), publish, unlock | append, sync, swap the commit word |
//! | a freeze | waits for the lock | takes effect at once; commits under way are refused |
//! | the fence | the last transaction | the seal of the commit word |
//! | behind the published end | a frame that a recovery may bring to life | never read |

use foreshadow::event::Failure;
use wal::{Epoch, Lsn, Position, Time};

use super::disk::{Content, Delta, Landing, Log};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Sqlite,
    Native,
}

/// One generation of a database: a file that applications may have open, wherever its path leads.
#[derive(Debug)]
pub struct Live {
    pub kind: Kind,
    pub generation: u64,
    /// It was attached or landed under; 0 before.
    pub epoch: Epoch,
    /// Committed and visible, in order.
    pub content: Content,
    /// Written behind the published end.
    pub beyond: Option<u32>,
    /// So many writes would survive a power cut.
    pub synced: usize,
    pub fenced: bool,
    /// The landing that put it there; its note may be missing.
    pub landed: Option<Landing>,
    /// Until then a power cut may undo the exchange of its path.
    pub path_durable_at: Time,
    pub tail: Option<Tail>,
    /// The application that has the write lock.
    pub writer: Option<usize>,
    /// Changes whenever the log begins anew.
    pub salt: u32,
    /// Writes before this one are in the database file alone.
    pub log_from: usize,
}

/// The attachment of a running daemon.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    pub position: Position,
    /// Writes that were consumed.
    pub consumed: usize,
    pub salt: u32,
    pub lock: Lock,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    Free,
    /// A freeze of this number waits for it.
    Waiting(u64),
    Held,
}

/// What a look at the log found.
pub enum Read {
    Nothing,
    Advanced(Position, u64),
}

impl Live {
    pub fn new(kind: Kind, generation: u64, content: Content) -> Live {
        Live {
            kind,
            generation,
            epoch: Epoch(0),
            synced: content.len(),
            log_from: content.len(),
            content,
            beyond: None,
            fenced: false,
            landed: None,
            path_durable_at: Time(0),
            tail: None,
            writer: None,
            salt: 0,
        }
    }

    /// Attaches as runtime/lives.rs does.
    pub fn attach(&mut self, log: &mut Log, epoch: Epoch, landed_at: Option<Position>) -> Position {
        let digest = self.content.digest();
        let at = |lsn: Lsn| Position { epoch, lsn, digest };
        let position = match (landed_at, log.end) {
            (Some(landed), _) if landed.digest == digest => at(landed.lsn),
            (Some(landed), _) => at(landed.lsn.after(1)),
            (None, Some(newest)) if newest.digest == digest => at(newest.lsn),
            (None, Some(newest)) => at(newest.lsn.after(1)),
            (None, None) => at(Lsn(1)),
        };
        if log.end != Some(position) {
            log.deltas.clear();
            log.end = Some(position);
        }
        self.epoch = epoch;
        self.tail = Some(Tail {
            position,
            consumed: self.content.len(),
            salt: self.salt,
            lock: Lock::Free,
        });
        position
    }

    /// Whether the log began anew before the tail had read all of it.
    pub fn has_missed(&self) -> bool {
        let missed = |tail: Tail| tail.salt != self.salt && self.log_from > tail.consumed;
        self.tail.is_some_and(missed)
    }

    /// Consumes what is published. Commits that were missed are found by hashes: as one delta, or,
    /// where that is `too_much`, by a log that begins anew.
    pub fn read(&mut self, log: &mut Log, too_much: bool) -> Read {
        let missed = self.has_missed();
        let (content, salt) = (&self.content, self.salt);
        let Some(tail) = self.tail.as_mut() else {
            return Read::Nothing;
        };
        let writes = content.writes()[tail.consumed..].to_vec();
        tail.salt = salt;
        if writes.is_empty() {
            return Read::Nothing;
        }
        let from = tail.position;
        let to = Position {
            epoch: from.epoch,
            lsn: from.lsn.after(writes.len() as u64),
            digest: content.digest(),
        };
        (tail.position, tail.consumed) = (to, content.len());
        let bytes = 40 + 10 * writes.len() as u64;
        if missed && too_much {
            log.deltas.clear();
        } else {
            log.deltas.push_back(Delta { from, to, writes });
        }
        log.end = Some(to);
        Read::Advanced(to, bytes)
    }

    /// What an application that begins a commit is told.
    pub fn lock(&mut self, writer: usize, write: u32) -> Answer {
        if self.fenced {
            return Answer::ReadOnly;
        }
        if self.is_frozen() || self.writer.is_some() {
            return Answer::Busy;
        }
        self.writer = Some(writer);
        self.beyond = Some(write);
        Answer::Writing
    }

    /// Its commit is complete, unless the native log was sealed meanwhile.
    pub fn publish(&mut self, writer: usize, full: bool) -> Option<u32> {
        if self.writer != Some(writer) {
            return None;
        }
        self.writer = None;
        if self.kind == Kind::Native && (self.fenced || self.is_frozen()) {
            self.beyond = None;
            return None;
        }
        let write = self.beyond.take()?;
        self.content.push(write);
        if full {
            self.synced = self.content.len();
        }
        Some(write)
    }

    fn is_frozen(&self) -> bool {
        self.tail.is_some_and(|tail| tail.lock == Lock::Held)
    }

    /// Takes the write lock for the daemon; `None` while an application has it.
    pub fn freeze(&mut self) -> Option<Result<(), Failure>> {
        let missed = self.has_missed();
        let waits = self.kind == Kind::Sqlite && self.writer.is_some();
        let tail = self.tail.as_mut()?;
        if waits {
            return None;
        }
        if missed {
            let reason = "transactions were missed; the pages are compared first".to_owned();
            return Some(Err(Failure::Retry(reason)));
        }
        tail.lock = Lock::Held;
        Some(Ok(()))
    }

    /// The fence is the last of the log, and durable.
    pub fn fence(&mut self) {
        self.beyond = None;
        self.fenced = true;
        self.synced = self.content.len();
        if self.kind == Kind::Sqlite {
            self.writer = None;
        }
    }

    /// The log begins anew: everything is in the database file.
    pub fn checkpoint(&mut self) {
        self.synced = self.content.len();
        self.log_from = self.content.len();
        self.salt += 1;
    }

    /// The first to open it after everybody went finds what is behind the published end.
    pub fn recover_log(&mut self) -> Option<u32> {
        let write = self.beyond.take()?;
        if self.kind == Kind::Native || self.fenced {
            return None;
        }
        self.content.push(write);
        Some(write)
    }

    /// The machine lost its power; `kept` of what was not synced came to the disk.
    pub fn power_cut(&mut self, kept: usize) {
        let len = (self.synced + kept).min(self.content.len());
        if len < self.content.len() {
            self.content = self.content.prefix(len);
            self.beyond = None;
        }
        self.synced = len;
        self.log_from = self.log_from.min(len);
        self.writer = None;
        self.tail = None;
    }
}

/// What an application is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Writing,
    Busy,
    ReadOnly,
}
