//! A live partition of any engine: read in order, frozen, fenced.
//!
//! What an engine has no need of does nothing here: a native log has no WAL to be checkpointed and
//! no pin that could stand in the way of anybody.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wal::delta::PageEdit;
use wal::digest::PageHash;
use wal::log::Control;
use wal::{Digest, Engine, Lsn};

use super::native;
use super::sqlite::{self, PinState, SourceOptions};
use super::task::{CheckpointTask, FenceTask, FreezeTask, Scan, ScanTask};
use crate::error::Result;

/// Which engine, and its limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    pub engine: Engine,
    pub sqlite: SourceOptions,
}

/// What a shadow held when it landed.
#[derive(Debug)]
pub struct Landed {
    pub hashes: Vec<PageHash>,
    pub extent: Extent,
}

/// How far what landed goes.
#[derive(Clone, Copy, Debug)]
pub enum Extent {
    /// A SQLite database: frames in its -wal.
    Frames(u32),
    /// A native log: where it begins and ends.
    Log(Lsn, Lsn),
}

/// A live partition.
#[derive(Debug)]
pub enum Source {
    Sqlite(Box<sqlite::Source>),
    Native(Box<native::Source>),
}

/// What was committed and read, and is yet to be consumed.
#[derive(Debug)]
pub enum Change {
    Sqlite(Box<sqlite::Change>),
    Native(Box<native::Change>),
}

/// What a scan meant.
#[derive(Debug)]
pub enum Adopted {
    /// The first table: changes can be read from now on.
    Ready,
    /// What was missed, as one change.
    Change(Change),
    /// Too much was missed for a change: `pages` pages of each shadow must be filled anew.
    Replaced { pages: usize, commits: u64 },
}

impl Change {
    /// How many commits; what the position's Lsn grows by. At least 1.
    pub fn commits(&self) -> u64 {
        match self {
            Change::Sqlite(change) => change.commits,
            Change::Native(change) => change.commits,
        }
    }

    pub fn page_count(&self) -> u32 {
        match self {
            Change::Sqlite(change) => change.page_count,
            Change::Native(change) => change.page_count,
        }
    }

    /// Whether a scan found it, because commits were missed.
    pub fn is_rescan(&self) -> bool {
        match self {
            Change::Sqlite(change) => change.rescan,
            Change::Native(_) => false,
        }
    }

    /// The changed pages in ascending order.
    pub fn edits(&self) -> Vec<PageEdit<'_>> {
        match self {
            Change::Sqlite(change) => change.edits(),
            Change::Native(change) => change.edits(),
        }
    }

    /// The digest of the whole partition after this change.
    pub fn digest(&self) -> Digest {
        match self {
            Change::Sqlite(change) => change.digest(),
            Change::Native(change) => change.digest(),
        }
    }

    pub fn pages(&self) -> usize {
        match self {
            Change::Sqlite(change) => change.pages(),
            Change::Native(change) => change.pages(),
        }
    }
}

impl Source {
    /// Attaches to the partition at `path`. It has no table yet: scan first.
    pub fn attach(path: &Path, options: &Options) -> Result<Source> {
        Ok(match options.engine {
            Engine::Sqlite => sqlite::Source::attach(path, &options.sqlite)?.into(),
            Engine::Native => native::Source::attach(path)?.into(),
        })
    }

    /// Attaches to a shadow that has just landed. `Retry` when something else is there: scan it.
    pub fn attach_landed(path: &Path, options: &Options, landed: Landed) -> Result<Source> {
        let hashes = landed.hashes;
        Ok(match landed.extent {
            Extent::Frames(frame) => {
                sqlite::Source::attach_known(path, &options.sqlite, hashes, frame)?.into()
            }
            Extent::Log(first, lsn) => {
                native::Source::attach_known(path, hashes, (first, lsn))?.into()
            }
        })
    }

    pub fn engine(&self) -> Engine {
        match self {
            Source::Sqlite(_) => Engine::Sqlite,
            Source::Native(_) => Engine::Native,
        }
    }

    /// The file itself, links followed.
    pub fn path(&self) -> &Path {
        match self {
            Source::Sqlite(source) => &source.paths().db,
            Source::Native(source) => source.control().path(),
        }
    }

    pub fn page_size(&self) -> u32 {
        match self {
            Source::Sqlite(source) => source.page_size(),
            Source::Native(source) => source.page_size(),
        }
    }

    /// Pages at the consumed position; 0 before the first scan.
    pub fn page_count(&self) -> u32 {
        match self {
            Source::Sqlite(source) => source.page_count(),
            Source::Native(source) => source.page_count(),
        }
    }

    /// The digest at the consumed position; that of no page before the first scan.
    pub fn digest(&self) -> Digest {
        match self {
            Source::Sqlite(source) => source.digest(),
            Source::Native(source) => source.digest(),
        }
    }

    /// The hash of each page at the consumed position; empty before the first scan.
    pub fn hashes(&self) -> &[PageHash] {
        match self {
            Source::Sqlite(source) => source.hashes(),
            Source::Native(source) => source.hashes(),
        }
    }

    /// Reads `page` as it is at the consumed position.
    pub fn read_page(&self, page: u32, into: &mut [u8]) -> Result<()> {
        match self {
            Source::Sqlite(source) => source.read_page(page, into),
            Source::Native(source) => source.read_page(page, into),
        }
    }

    /// Whether there may be something to read: a few loads from mapped memory.
    pub fn changed(&self) -> bool {
        match self {
            Source::Sqlite(source) => source.changed(),
            Source::Native(source) => source.changed(),
        }
    }

    /// What was committed, about `limit` pages of it but always whole commits; `None` when there
    /// is nothing, or when a scan must come first. Nothing is consumed yet.
    pub fn poll(&mut self, limit: usize) -> Result<Option<Change>> {
        Ok(match self {
            Source::Sqlite(source) => source
                .poll(limit)?
                .map(|change| Change::Sqlite(Box::new(change))),
            Source::Native(source) => source
                .poll(limit)?
                .map(|change| Change::Native(Box::new(change))),
        })
    }

    /// Takes `change`, the last that was polled, as done: the position moves behind it.
    pub fn consume(&mut self, change: &Change) {
        match (self, change) {
            (Source::Sqlite(source), Change::Sqlite(change)) => source.consume(change),
            (Source::Native(source), Change::Native(change)) => source.consume(change),
            _ => unreachable!("a change of another engine's source"),
        }
    }

    /// Whether a scan must come before anything more can be read, and why.
    pub fn wants_scan(&self) -> Option<&str> {
        match self {
            Source::Sqlite(source) => source.wants_scan(),
            Source::Native(source) => source.wants_scan(),
        }
    }

    /// Hashing everything at the present position, for another thread.
    pub fn scan(&mut self) -> Result<ScanTask> {
        Ok(match self {
            Source::Sqlite(source) => ScanTask::Sqlite(source.scan()?),
            Source::Native(source) => ScanTask::Native(source.scan()?),
        })
    }

    /// A scan that was begun will not be adopted.
    pub fn scan_lost(&mut self) {
        if let Source::Native(source) = self {
            source.scan_lost();
        }
    }

    /// Takes the result of a scan as what was consumed, or says what it found.
    pub fn adopt(&mut self, scan: Scan) -> Result<Adopted> {
        Ok(match (self, scan) {
            (Source::Sqlite(source), Scan::Sqlite(scan)) => match source.adopt(scan)? {
                sqlite::Adopted::Ready => Adopted::Ready,
                sqlite::Adopted::Change(change) => Adopted::Change(Change::Sqlite(change)),
                sqlite::Adopted::Replaced { pages, commits } => {
                    Adopted::Replaced { pages, commits }
                }
            },
            (Source::Native(source), Scan::Native(scan)) => match source.adopt(scan)? {
                native::Adopted::Ready => Adopted::Ready,
                native::Adopted::Replaced { pages, commits } => {
                    Adopted::Replaced { pages, commits }
                }
            },
            _ => unreachable!("a scan of another engine's source"),
        })
    }

    /// A task that stops writers for a moment, within `budget`.
    pub fn freeze(&mut self, budget: Duration) -> FreezeTask {
        match self {
            Source::Sqlite(source) => FreezeTask::Sqlite(source.freeze(budget)),
            Source::Native(source) => {
                let frozen = source.freeze();
                FreezeTask::Native(frozen.map(|()| Arc::clone(source.control())))
            }
        }
    }

    /// Lets writers go on, or gives up a freeze that is still waiting.
    pub fn thaw(&mut self) -> Result<()> {
        match self {
            Source::Sqlite(source) => source.thaw(),
            Source::Native(source) => {
                source.thaw();
                Ok(())
            }
        }
    }

    /// A task that stops writers for good. Everything must be consumed, and the source frozen.
    pub fn fence(&mut self) -> Result<FenceTask> {
        Ok(match self {
            Source::Sqlite(source) => FenceTask::Sqlite(source.fence()?),
            Source::Native(source) => FenceTask::Native(source.fence()?),
        })
    }

    /// A task that takes back a fence that nobody was told of.
    pub fn lift_fence(&mut self) -> Result<FenceTask> {
        Ok(match self {
            Source::Sqlite(source) => FenceTask::Sqlite(source.lift_fence()?),
            Source::Native(source) => FenceTask::Lift(source.lift_fence()),
        })
    }

    /// Whether the newest state is fenced.
    pub fn is_fenced(&self) -> Result<bool> {
        match self {
            Source::Sqlite(source) => source.is_fenced(),
            Source::Native(source) => Ok(source.is_fenced()),
        }
    }

    /// Whoever reads by way of SQLite is sent away too. A reader of a native log reads a log that
    /// has ended, and sees so: nothing to do.
    pub fn refuse_readers(&mut self) -> Result<()> {
        match self {
            Source::Sqlite(source) => source.refuse_readers(),
            Source::Native(_) => Ok(()),
        }
    }

    /// Whether the names still lead to the files that are attached; `Fatal` if not. For once a
    /// second.
    pub fn verify_names(&self) -> Result<()> {
        match self {
            Source::Sqlite(source) => source.verify_names(),
            Source::Native(source) => source.verify_names(),
        }
    }

    /// Makes way for an application's own checkpoint, and comes back after it. For every look.
    pub fn make_way(&mut self, now: Instant) -> Result<PinState> {
        match self {
            Source::Sqlite(source) => source.yield_pin_if_asked(now),
            Source::Native(_) => Ok(PinState::Held),
        }
    }

    /// Lets others checkpoint and restart the WAL, for one that grows over its cap.
    pub fn drop_pin(&mut self) -> Result<()> {
        match self {
            Source::Sqlite(source) => source.drop_pin(),
            Source::Native(_) => Ok(()),
        }
    }

    pub fn take_pin(&mut self) -> Result<()> {
        match self {
            Source::Sqlite(source) => source.take_pin(),
            Source::Native(_) => Ok(()),
        }
    }

    /// Bytes that a checkpoint would take.
    pub fn wal_bytes(&self) -> u64 {
        match self {
            Source::Sqlite(source) => source.wal_bytes(),
            Source::Native(_) => 0,
        }
    }

    /// Copying the WAL back, for another thread; `None` if there is nothing to copy.
    pub fn checkpoint(&mut self) -> Option<CheckpointTask> {
        match self {
            Source::Sqlite(source) => source.checkpoint(),
            Source::Native(_) => None,
        }
    }

    /// What a monitor sees counting the commits without asking: SQLite's change counter. A native
    /// log has none; its control page says how far a mirror is.
    pub fn change_counter(&self) -> Option<u32> {
        match self {
            Source::Sqlite(source) => Some(source.mark().change),
            Source::Native(_) => None,
        }
    }

    /// The consumed position in a native log.
    pub fn log_lsn(&self) -> Option<Lsn> {
        match self {
            Source::Sqlite(_) => None,
            Source::Native(source) => Some(source.lsn()),
        }
    }

    /// The control page of a native log, with its bell.
    pub fn log_control(&self) -> Option<&Arc<Control>> {
        match self {
            Source::Sqlite(_) => None,
            Source::Native(source) => Some(source.control()),
        }
    }

    /// Says how far a peer has a native log durably, to who waits for that.
    pub fn set_mirrored(&self, lsn: Lsn) {
        if let Source::Native(source) = self {
            source.control().set_mirrored(lsn);
        }
    }

    /// Says how far a native log went to a peer.
    pub fn set_shipped(&self, lsn: Lsn) {
        if let Source::Native(source) = self {
            source.control().set_shipped(lsn);
        }
    }
}

impl From<sqlite::Source> for Source {
    fn from(source: sqlite::Source) -> Source {
        Source::Sqlite(Box::new(source))
    }
}

impl From<native::Source> for Source {
    fn from(source: native::Source) -> Source {
        Source::Native(Box::new(source))
    }
}
