//! The embedded coordinator: owners in a file shared by all daemons of one machine.
//!
//! Every change is made under an exclusive flock(2) of `<dir>/lock`, from the newest state, and
//! is fsynced before the lock is let go and the asker is answered: so nobody acts on what a crash
//! could take back. flock is held by the open file, not the process, so two instances in one
//! process exclude each other too, and the kernel lets go when a daemon dies. That the file was
//! written or replaced is told by inotify(7).

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, inotify};
use wal::PartitionId;

use super::coordinator::{Conflict, Coordinator, Error, OwnerRecord, Request, Revision, decide};
use super::owner_log::{self, HEADER_LEN, Place};
use io::failpoint::{self, Step};

/// A file is rewritten when it is this long and mostly out of date.
const COMPACT_LEN_MIN: usize = 256 << 10;
/// Times that the file may be longer than what is up to date in it.
const COMPACT_RATIO: usize = 4;

/// One daemon's view of the shared directory.
#[derive(Debug)]
pub struct Embedded {
    dir: PathBuf,
    lock: File,
    log: File,
    /// Inode of `log`: another one at its path means that somebody compacted.
    inode: u64,
    /// Bytes of the log that are in `records`.
    read_len: usize,
    sealed_len: u64,
    records: BTreeMap<PartitionId, OwnerRecord>,
    revision: Revision,
    /// Where the kernel tells that a file of the directory was written or replaced.
    told: Option<OwnedFd>,
}

impl Embedded {
    /// Opens the directory, which is made if it is not there.
    pub fn open(dir: &Path) -> Result<Embedded, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o750).create(dir);
        made.map_err(|e| storage("create directory", dir, e))?;
        let lock_path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path);
        let lock = lock.map_err(|e| storage("open", &lock_path, e))?;
        let log_path = log_path(dir);
        let held = Held::exclusive(&lock, &lock_path)?;
        let present = log_path
            .try_exists()
            .map_err(|e| storage("look at", &log_path, e))?;
        if !present {
            write_log(dir, &BTreeMap::new(), Revision(0))?;
        }
        drop(held);
        let (log, inode) = open_log(dir)?;
        let mut embedded = Embedded {
            dir: dir.to_owned(),
            lock,
            log,
            inode,
            read_len: 0,
            sealed_len: 0,
            records: BTreeMap::new(),
            revision: Revision(0),
            // Before the first look: what changes after it is told.
            told: watch(dir)
                .inspect_err(|error| tracing::warn!(%error, "owners are polled"))
                .ok(),
        };
        embedded.refresh()?;
        Ok(embedded)
    }

    /// Reads what others wrote; without a lock as long as nothing changed.
    fn refresh(&mut self) -> Result<(), Error> {
        let path = log_path(&self.dir);
        let now = std::fs::metadata(&path).map_err(|e| storage("look at", &path, e))?;
        if now.ino() == self.inode && now.len() == self.read_len as u64 {
            return Ok(());
        }
        let lock_path = self.dir.join("lock");
        let lock = self
            .lock
            .try_clone()
            .map_err(|e| storage("open", &lock_path, e))?;
        let held = Held::shared(&lock, &lock_path)?;
        self.read_new()?;
        drop(held);
        Ok(())
    }

    /// Reads what is new in the log; a lock is held. The length of a torn tail is returned.
    fn read_new(&mut self) -> Result<usize, Error> {
        let path = log_path(&self.dir);
        let now = std::fs::metadata(&path).map_err(|e| storage("look at", &path, e))?;
        if now.ino() != self.inode || now.len() < self.read_len as u64 {
            (self.log, self.inode) = open_log(&self.dir)?;
            self.forget();
        }
        let len = self
            .log
            .metadata()
            .map_err(|e| storage("look at", &path, e))?
            .len() as usize;
        let mut bytes = vec![0; len.saturating_sub(self.read_len)];
        let read = self.log.read_exact_at(&mut bytes, self.read_len as u64);
        read.map_err(|e| storage("read", &path, e))?;
        let damaged = |damage: owner_log::Damage| Error::Damaged {
            path: path.clone(),
            offset: damage.offset as u64,
            reason: damage.reason.to_owned(),
        };
        let mut rest = bytes.as_slice();
        if self.read_len == 0 {
            self.sealed_len = owner_log::decode_header(rest).map_err(damaged)?;
            rest = &rest[HEADER_LEN..];
            self.read_len = HEADER_LEN;
        }
        let place = Place {
            offset: self.read_len,
            sealed_len: self.sealed_len,
            revision: self.revision,
        };
        let scanned = owner_log::scan(rest, place).map_err(damaged)?;

        for record in scanned.records {
            self.revision = self.revision.max(record.revision);
            self.records.insert(record.partition, record);
        }
        self.read_len += scanned.valid_len;
        Ok(rest.len() - scanned.valid_len)
    }

    fn forget(&mut self) {
        self.read_len = 0;
        self.sealed_len = 0;
        self.records.clear();
        self.revision = Revision(0);
    }

    /// Decides and writes one group; the exclusive lock is held.
    fn write_group(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<OwnerRecord, Conflict>>, Error> {
        let path = log_path(&self.dir);
        if self.read_new()? > 0 {
            // A writer died in the middle of a group that nobody was promised.
            let cut = self
                .log
                .set_len(self.read_len as u64)
                .and_then(|()| self.log.sync_data());
            cut.map_err(|e| storage("cut the torn tail of", &path, e))?;
        }
        let group = Revision(self.revision.0 + 1);
        let mut changed: BTreeMap<PartitionId, OwnerRecord> = BTreeMap::new();
        let (mut bytes, mut next) = (Vec::new(), group);
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let partition = request.name.id();
            let known = changed
                .get(&partition)
                .or_else(|| self.records.get(&partition));
            let decided = decide(known, request, next);
            let unchanged = known.cloned();
            answers.push(decided.map(|new| match new {
                None => unchanged.expect("what does not change is there"),
                Some(record) => {
                    owner_log::encode(&record, group, &mut bytes);
                    changed.insert(partition, record.clone());
                    next = Revision(next.0 + 1);
                    record
                }
            }));
        }
        if bytes.is_empty() {
            return Ok(answers);
        }
        let written = self.log.write_all_at(&bytes, self.read_len as u64);
        let passed = || failpoint::pass(Step::RouteWritten).map_err(std::io::Error::other);
        if let Err(error) = written
            .and_then(|()| passed())
            .and_then(|()| self.log.sync_data())
        {
            // The disk is full or failing: nobody may ever read what we don't answer for.
            let cut = self
                .log
                .set_len(self.read_len as u64)
                .and_then(|()| self.log.sync_data());
            return Err(storage("write", &path, cut.err().unwrap_or(error)));
        }
        failpoint::reach(Step::RouteRecorded);
        self.read_len += bytes.len();
        self.revision = Revision(next.0 - 1);
        self.records.extend(changed);
        self.compact_if_due()?;
        Ok(answers)
    }

    fn compact_if_due(&mut self) -> Result<(), Error> {
        let live = self
            .records
            .values()
            .map(|one| 64 + one.name.as_str().len())
            .sum::<usize>();
        if self.read_len < COMPACT_LEN_MIN || self.read_len < live * COMPACT_RATIO {
            return Ok(());
        }
        write_log(&self.dir, &self.records, self.revision)?;
        (self.log, self.inode) = open_log(&self.dir)?;
        self.forget();
        self.read_new().map(|_| ())
    }
}

impl Coordinator for Embedded {
    fn submit(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<OwnerRecord, Conflict>>, Error> {
        let lock_path = self.dir.join("lock");
        let lock = self
            .lock
            .try_clone()
            .map_err(|e| storage("open", &lock_path, e))?;
        let held = Held::exclusive(&lock, &lock_path)?;
        let answers = self.write_group(requests);
        drop(held);
        answers
    }

    fn owner(&mut self, partition: PartitionId) -> Result<Option<OwnerRecord>, Error> {
        self.refresh()?;
        Ok(self.records.get(&partition).cloned())
    }

    fn list(&mut self) -> Result<Vec<OwnerRecord>, Error> {
        self.refresh()?;
        Ok(self.records.values().cloned().collect())
    }

    fn changes(&mut self, after: Revision) -> Result<Vec<OwnerRecord>, Error> {
        // Before the look: what is told while we look makes us look again.
        if let Some(told) = &self.told {
            let mut events = [0; 4096];
            while rustix::io::read(told, &mut events).is_ok_and(|got| got > 0) {}
        }
        self.refresh()?;
        if self.revision <= after {
            return Ok(Vec::new());
        }
        let newer = self
            .records
            .values()
            .filter(|record| record.revision > after);
        let mut newer: Vec<OwnerRecord> = newer.cloned().collect();
        newer.sort_by_key(|record| record.revision);
        Ok(newer)
    }

    fn news(&self) -> Option<BorrowedFd<'_>> {
        self.told.as_ref().map(AsFd::as_fd)
    }
}

/// Makes the kernel tell of groups that are written and of files that are put in place.
fn watch(dir: &Path) -> rustix::io::Result<OwnedFd> {
    let told = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&told, dir, what)?;
    Ok(told)
}

/// The lock, held until it is dropped.
struct Held<'a>(&'a File);

impl Held<'_> {
    fn exclusive<'a>(lock: &'a File, path: &Path) -> Result<Held<'a>, Error> {
        let taken = flock(lock, FlockOperation::LockExclusive);
        taken
            .map(|()| Held(lock))
            .map_err(|e| storage("lock", path, e.into()))
    }

    fn shared<'a>(lock: &'a File, path: &Path) -> Result<Held<'a>, Error> {
        let taken = flock(lock, FlockOperation::LockShared);
        taken
            .map(|()| Held(lock))
            .map_err(|e| storage("lock", path, e.into()))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        flock(self.0, FlockOperation::Unlock).expect("a lock that is held can be let go");
    }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("owners.log")
}

fn open_log(dir: &Path) -> Result<(File, u64), Error> {
    let path = log_path(dir);
    let log = OpenOptions::new().read(true).write(true).open(&path);
    let log = log.map_err(|e| storage("open", &path, e))?;
    let inode = log
        .metadata()
        .map_err(|e| storage("look at", &path, e))?
        .ino();
    Ok((log, inode))
}

/// Puts a whole new log in place of the old one; the exclusive lock is held.
fn write_log(
    dir: &Path,
    records: &BTreeMap<PartitionId, OwnerRecord>,
    group: Revision,
) -> Result<(), Error> {
    let mut body = Vec::new();
    for record in records.values() {
        owner_log::encode(record, group, &mut body);
    }
    let mut bytes = owner_log::encode_header((HEADER_LEN + body.len()) as u64).to_vec();
    bytes.extend_from_slice(&body);
    let (path, temporary) = (log_path(dir), dir.join("owners.log.new"));
    let file = File::create(&temporary).map_err(|e| storage("create", &temporary, e))?;
    let written = file.write_all_at(&bytes, 0).and_then(|()| file.sync_all());
    written.map_err(|e| storage("write", &temporary, e))?;
    std::fs::rename(&temporary, &path).map_err(|e| storage("put in place", &path, e))?;
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|e| storage("sync directory", dir, e))
}

fn storage(operation: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Storage {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
