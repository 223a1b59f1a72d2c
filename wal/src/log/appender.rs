//! Group commit: many threads append, one of them writes for all, and one compare-and-swap of the
//! commit word acknowledges the group.
//!
//! There is no thread of our own on this path. Whoever appends while fewer than
//! [`Options::groups_in_flight`] groups are being written becomes a leader and writes the oldest
//! group that waits; the others sleep until their group is acknowledged or they are asked to lead.
//! Groups in flight are acknowledged in order, whatever order the disk has.
//!
//! Invariants:
//! - a group is on stable storage before the commit word passes it, and the word passes it before
//!   any of its appends returns;
//! - no block of an acknowledged group is written again;
//! - after a failure nothing that lies behind it is acknowledged; appends go on in a new run, so
//!   that what was written behind it is no group of the log any more.

mod keeper;
mod queue;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::control::{self, Control, Creation, Word};
use super::error::{Error, Result};
use super::group::Kind;
use super::recent::Shared;
use super::saved::{self, Ownership, Run};
use super::segment::{Layout, Writers};
use super::{BLOCK, mirror};
use crate::ids::PartitionId;
use crate::lsn::{Epoch, Lsn};
use queue::Queue;

/// Beside the log, locked by the one who appends; his process id is in it.
const LOCK: &str = "-appender";

/// How long an open waits for the appender before: the system takes a moment to let go of what a
/// process held that was killed.
const LOCK_MAX: Duration = Duration::from_millis(200);

/// When an append returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// When it is on stable storage of this node.
    #[default]
    Local,
    /// When a peer has it on stable storage, too; an error if that takes longer.
    Mirrored { timeout: Duration },
}

/// How a log is opened. Id and segment length count only when the log is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    pub id: PartitionId,
    /// Length of a segment, and so of the longest batch: 64 KiB to 1 GiB, whole blocks.
    pub segment_bytes: u32,
    pub durability: Durability,
    /// Groups written at the same time, 1 to 64. More than one hides the wait for a processor on a
    /// busy machine; with many, groups are small and writes many.
    pub groups_in_flight: u32,
    /// Make the log if there is none. Without it an open fails where nothing is: an application
    /// that waits for its log to arrive at another node must not make an empty one in its place.
    pub create: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            id: PartitionId(0),
            segment_bytes: 4 << 20,
            durability: Durability::Local,
            groups_in_flight: 2,
            create: true,
        }
    }
}

/// Appends to a log; one at a time and machine-wide, shared by the threads of a process.
#[derive(Debug)]
pub struct Appender {
    log: Arc<Opened>,
    queue: Mutex<Queue>,
    durability: Durability,
}

/// A log that is open for appending.
#[derive(Debug)]
struct Opened {
    control: Control,
    layout: Layout,
    writers: Writers,
    recent: Mutex<Shared>,
    /// Held by the keeper while it works; `true` until the appender is dropped.
    keeping: Mutex<bool>,
    /// Locked until this is dropped.
    _lock: File,
}

impl Opened {
    /// Shows a group that is about to be written to the one who follows.
    fn share(&self, lsn: Lsn, bytes: &[u8]) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.copy_in(&self.control, lsn, bytes);
    }
}

impl Appender {
    /// Opens the log at `path`, through symlinks, or makes it ([`Options::create`]). A log that is
    /// sealed is refused.
    pub fn open(path: &Path, options: &Options) -> Result<Appender> {
        let path = resolve(path);
        if !options.create {
            std::fs::metadata(&path).map_err(|error| Error::system("open", &path, &error))?;
        }
        refuse_sealed(&path)?;
        let lock = take_lock(&control::beside(&path, LOCK))?;
        if !path.exists() {
            create(&path, options)?;
        }
        let control = Control::open(&path)?;
        let ownership = control.saved::<Ownership>()?;
        let word = control.word();
        if word.sealed || ownership.sealed {
            return Err(sealed(&ownership, word));
        }
        let run = begin_run(&control, &ownership, word.lsn)?;
        let layout = control.layout();
        let queue = Queue::new(word, &run, options.groups_in_flight.clamp(1, 64));
        let log = Opened {
            writers: Writers::new(control.slots()?)?,
            recent: Mutex::default(),
            control,
            layout,
            keeping: Mutex::new(true),
            _lock: lock,
        };
        Ok(Appender {
            log: Arc::new(log),
            queue: Mutex::new(queue),
            durability: options.durability,
        })
    }

    /// Appends one record; returns its position once it is durable.
    pub fn append(&self, kind: Kind, payload: &[u8]) -> Result<Lsn> {
        let mut at = Lsn(0);
        self.append_batch(&[(kind, payload)], |lsn| at = lsn)?;
        Ok(at)
    }

    /// Appends records that are there together or not at all. Tells the position of each, and
    /// returns where the batch ends, once it is durable.
    pub fn append_batch(&self, records: &[(Kind, &[u8])], placed: impl FnMut(Lsn)) -> Result<Lsn> {
        if self.log.control.lease_is_over() {
            return Err(Error::LeaseOver);
        }
        let end = queue::append(self, records, placed)?;
        if let Durability::Mirrored { timeout } = self.durability {
            mirror::wait(&self.log.control, end, timeout)?;
        }
        Ok(end)
    }

    /// Everything below is acknowledged.
    pub fn position(&self) -> Lsn {
        self.log.control.word().lsn
    }

    pub fn control(&self) -> &Control {
        &self.log.control
    }

    /// Says that nothing below `lsn` is needed any more. Segments that lie wholly below it are used
    /// again, once the sidecar does not hold them. Returns where the log begins now.
    pub fn release(&self, lsn: Lsn) -> Result<Lsn> {
        let position = self.position();
        // A position at the very end of a segment is that segment's.
        let upto = Lsn(lsn.min(position).0.saturating_sub(1));
        let number = self.log.layout.number(upto);
        let begin = self.log.layout.begin(number);
        let old = self.log.control.saved::<Run>()?.first;
        if begin <= old {
            return Ok(old);
        }
        self.log.control.save(|run: &mut Run| {
            run.number += 1;
            run.first = begin;
            run.lsn = run.lsn.max(position);
        })?;
        self.log.writers.trim(self.log.free_below()?)?;
        Ok(begin)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sealed(&self, word: Word) -> Error {
        match self.log.control.saved::<Ownership>() {
            Ok(ownership) => sealed(&ownership, word),
            Err(error) => error,
        }
    }
}

impl Opened {
    /// Where a segment begins in the file.
    fn place(&self, number: u64) -> Result<u64> {
        self.writers.place(number, || self.free_below())
    }

    /// Slots of segments below this one may be used again.
    fn free_below(&self) -> Result<u64> {
        let first = self.control.saved::<Run>()?.first;
        let held = self.control.held()?;
        Ok(self
            .layout
            .number(held.map_or(first, |held| first.min(held))))
    }
}

impl Drop for Appender {
    /// When this returns nobody of this process touches the log's files any more.
    fn drop(&mut self) {
        let keeping = &self.log.keeping;
        *keeping.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

fn sealed(ownership: &Ownership, word: Word) -> Error {
    Error::Sealed {
        epoch: ownership.epoch,
        at: word.lsn,
    }
}

/// Fails if the log is sealed for good. Whoever looks again and again whether a log that moves is
/// there yet meets its tombstone, and shall not lock and wake it each time.
fn refuse_sealed(path: &Path) -> Result<()> {
    let mut page = [0; BLOCK];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut page, 0));
    // What is not a log, or not there, is told by those who open it.
    if read.is_err() || control::read_fixed(&page, path).is_err() {
        return Ok(());
    }
    let block = |at: usize| *page[at..].first_chunk().expect("within the page");
    match saved::newest::<Ownership>(block) {
        Some(ownership) if ownership.sealed => {
            let (epoch, at) = (ownership.epoch, ownership.lsn);
            Err(Error::Sealed { epoch, at })
        }
        _ => Ok(()),
    }
}

/// What `path` leads to, also where a symlink leads to a log that is yet to be made.
fn resolve(path: &Path) -> PathBuf {
    let made = || {
        let target = std::fs::read_link(path).ok()?;
        Some(path.parent()?.join(target))
    };
    let found = std::fs::canonicalize(path).ok();
    found.or_else(made).unwrap_or_else(|| path.to_owned())
}

/// Locks the file for as long as it stays open, and leaves our process id in it.
fn take_lock(path: &Path) -> Result<File> {
    let failed = |error| Error::system("open", path, &error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(path).map_err(failed)?;
    let until = Instant::now() + LOCK_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // It is there for people; the lock is what counts.
                let _ = file.read_to_string(&mut pid);
                let (path, pid) = (path.to_owned(), pid.trim().parse().unwrap_or(0));
                return Err(Error::InUse { path, pid });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    let write = |file: &mut File| -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    // On a full disk the log can still be opened, to release segments.
    let _ = write(&mut file);
    Ok(file)
}

fn create(path: &Path, options: &Options) -> Result<()> {
    let creation = Creation {
        id: options.id,
        segment_bytes: options.segment_bytes,
        epoch: Epoch(1),
        first: Lsn(BLOCK as u64),
        lsn: Lsn(BLOCK as u64),
        sealed: false,
    };
    Control::create(path, creation)
}

/// Begins a new run at `lsn`: what earlier ones left behind from there on does not count.
fn begin_run(control: &Control, ownership: &Ownership, lsn: Lsn) -> Result<Run> {
    let run = control.saved::<Run>()?;
    let fits = run.epoch == ownership.epoch && [run.began, run.lsn] == [lsn; 2];
    // Taken in any case: it is not unused any more.
    if control.take_unused(run.run) && fits {
        return Ok(run);
    }
    control.save(|run: &mut Run| {
        run.number += 1;
        run.run += 1;
        run.epoch = ownership.epoch;
        (run.began, run.lsn) = (lsn, lsn);
    })
}
