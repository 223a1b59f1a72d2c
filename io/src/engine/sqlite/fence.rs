//! Stopping the writers of a live database: first for a moment, then for good.
//!
//! Freeze: SQLite's WRITE lock is taken, and every writer waits in its busy handler. It ends with
//! us. Fence: page 1 with write version 3 is the last transaction of the log, after which every
//! connection, open or to come, answers READONLY. It survives us, recovery and checkpoints, and is
//! totally ordered with every commit; so a durable fence is the commit point of a switchover.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wal::sqlite::{VERSION_FENCED, VERSION_WAL, WRITE_LOCK, frame_of, region_base, region_of};

use super::append::append_page_one;
use super::files::Files;
use super::gate::{Gate, Writer};
use super::locks::{self, byte};
use super::open;
use super::shm::Shm;
use super::source::{Source, newest};
use super::table::WRITE_VERSION_AT;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};

/// How often a freeze looks whether a checkpoint of ours is done with WRITE.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// Waits for WRITE; to be run on a thread that may block.
#[derive(Debug)]
pub struct FreezeTask {
    shm: Arc<Shm>,
    gate: Arc<Gate>,
    give_up: Arc<AtomicBool>,
    budget: Duration,
}

impl FreezeTask {
    /// Queues for WRITE in the kernel, which polling writers can't overtake for long. The kernel
    /// knows no timeout here: a grant after the budget, or after [`Source::thaw`], is let go at
    /// once, and the answer is `Retry`.
    pub fn run(self) -> Result<()> {
        let deadline = Instant::now() + self.budget;
        let too_late = || self.give_up.load(Ordering::Acquire) || Instant::now() > deadline;
        while !self.gate.turn(Writer::Nobody, Writer::Waiting) {
            if too_late() {
                return Err(self.late());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let waited = self.wait(&too_late);
        let mut writer = self.gate.writer();
        match waited {
            Ok(true) if !too_late() => {
                *writer = Writer::Frozen;
                failpoint::reach(Step::FenceLocked);
                Ok(())
            }
            other => {
                let freed = locks::unlock(self.shm.file(), byte(WRITE_LOCK));
                *writer = Writer::Nobody;
                let result = other.and(freed);
                result.map_err(|e| Error::at("freeze", self.shm.path(), e))?;
                Err(self.late())
            }
        }
    }

    /// Waits until WRITE is granted; false when it got too late meanwhile.
    fn wait(&self, too_late: &dyn Fn() -> bool) -> std::io::Result<bool> {
        while !locks::wait_exclusive(self.shm.file(), byte(WRITE_LOCK))? {
            if too_late() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn late(&self) -> Error {
        let reason = "a writer held WRITE for longer than the budget";
        Error::new(
            Kind::Retry,
            "freeze",
            self.shm.path().display().to_string(),
            reason,
        )
    }
}

/// Writes a fence, or its lifting; to be run on a thread that may block on the disk.
#[derive(Debug)]
pub struct FenceTask {
    files: Arc<Files>,
    shm: Arc<Shm>,
    gate: Arc<Gate>,
    image: Vec<u8>,
}

impl FenceTask {
    /// Frame, fdatasync, publication. When this returns `Ok` the fence is durable and in force;
    /// when it fails nothing was committed and the source is still frozen.
    pub fn run(self) -> Result<()> {
        append_page_one(&self.files, &self.shm, &self.image)
    }
}

impl Drop for FenceTask {
    fn drop(&mut self) {
        self.gate.turn(Writer::Fencing, Writer::Frozen);
    }
}

impl Source {
    /// A task that takes WRITE within `budget`. Its answer says whether the source is frozen.
    pub fn freeze(&mut self, budget: Duration) -> FreezeTask {
        self.give_up = Arc::default();
        let (shm, gate) = (Arc::clone(&self.shm), Arc::clone(&self.gate));
        FreezeTask {
            shm,
            gate,
            give_up: Arc::clone(&self.give_up),
            budget,
        }
    }

    /// Whether WRITE is ours, so that nothing can be committed by others.
    pub fn is_frozen(&self) -> bool {
        matches!(*self.gate.writer(), Writer::Frozen | Writer::Fencing)
    }

    /// Lets WRITE go, or gives up a freeze that is still waiting. `Refused` while a fence is being
    /// written: its task must come back first.
    pub fn thaw(&mut self) -> Result<()> {
        self.give_up.store(true, Ordering::Release);
        let mut writer = self.gate.writer();
        match *writer {
            Writer::Frozen => {
                let freed = locks::unlock(self.shm.file(), byte(WRITE_LOCK));
                *writer = Writer::Nobody;
                freed.map_err(|e| Error::at("thaw", self.shm.path(), e))
            }
            Writer::Fencing => {
                drop(writer);
                Err(self.error(Kind::Refused, "thaw", "its fence is being written"))
            }
            Writer::Nobody | Writer::Brief | Writer::Waiting => Ok(()),
        }
    }

    /// A task that appends the fence. Everything must be consumed, and WRITE ours.
    pub fn fence(&mut self) -> Result<FenceTask> {
        self.version_task(VERSION_FENCED)
    }

    /// A task that appends page 1 without the fence: writers that open the database from now on
    /// may write again; connections that met the fence stay read-only until they reopen.
    pub fn lift_fence(&mut self) -> Result<FenceTask> {
        self.version_task(VERSION_WAL)
    }

    fn version_task(&mut self, version: u8) -> Result<FenceTask> {
        if self.changed() {
            return Err(self.error(Kind::Retry, "fence", "transactions are left to be consumed"));
        }
        let mut image = vec![0; self.files.page_size as usize];
        newest_page_one(&self.files, &self.shm, &mut image)?;
        image[WRITE_VERSION_AT] = version;
        image[WRITE_VERSION_AT + 1] = VERSION_WAL;
        if !self.gate.turn(Writer::Frozen, Writer::Fencing) {
            return Err(self.error(Kind::Refused, "fence", "it is not frozen"));
        }
        let (files, shm) = (Arc::clone(&self.files), Arc::clone(&self.shm));
        Ok(FenceTask {
            files,
            shm,
            gate: Arc::clone(&self.gate),
            image,
        })
    }

    /// Whether the newest state is fenced.
    pub fn is_fenced(&self) -> Result<bool> {
        let mut image = vec![0; self.files.page_size as usize];
        newest_page_one(&self.files, &self.shm, &mut image)?;
        Ok(image[WRITE_VERSION_AT] == VERSION_FENCED)
    }

    /// The second stage, after the time in which stale reads are allowed: connections that are
    /// open can't read any more either. Only while the index lives; a rebuilt one reads again.
    pub fn refuse_readers(&mut self) -> Result<()> {
        let header = newest(&self.shm)?;
        let _write = match self.is_frozen() {
            true => None,
            false => {
                let busy = || self.error(Kind::Retry, "refuse readers of", "a writer is at work");
                Some(self.shm.try_write()?.ok_or_else(busy)?)
            }
        };
        self.shm.publish_unreadable(&header);
        Ok(())
    }
}

/// Whether the database at `path` is fenced, in its WAL or in its file: for recovery after a
/// crash, when it is not attached.
pub fn fence_state(path: &Path) -> Result<bool> {
    let (files, shm) = open::open(path)?;
    let mut image = vec![0; files.page_size as usize];
    newest_page_one(&files, &shm, &mut image)?;
    Ok(image[WRITE_VERSION_AT] == VERSION_FENCED)
}

/// Page 1 as any new reader would see it.
fn newest_page_one(files: &Files, shm: &Shm, into: &mut [u8]) -> Result<()> {
    let header = newest(shm)?;
    let last = if header.max_frame == 0 {
        None
    } else {
        Some(region_of(header.max_frame))
    };
    for region in last.iter().flat_map(|last| (0..=*last).rev()) {
        let bytes = shm.region(region)?;
        let from = region_base(region) + 1;
        if let Some(frame) = frame_of(region, &bytes, 1, from, header.max_frame)? {
            return files.read_frame_page(frame, into);
        }
    }
    files.read_db(1, into)
}
