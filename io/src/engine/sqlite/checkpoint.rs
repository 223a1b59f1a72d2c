//! Copying consumed frames into the database file and restarting the WAL, off the tail's thread.
//!
//! The copying takes CKPT and READ0 but not WRITE, so writers go on. The restart takes WRITE for
//! some microseconds, when nothing is left to copy; a large WAL is restarted even if a small rest
//! has to be copied under WRITE, and one far above the cap whatever the rest. Live readers are
//! respected as SQLite does: nothing is copied past the mark of a slot in use, and nothing
//! restarted while READ1 to READ4 are in use. Our own slot is turned into an exclusive lock in
//! place, so the pin is never let go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wal::sqlite::{
    IndexHeader, READ_MARK_UNUSED, READ_MARKS, page_of_frame, region_base, region_of,
};

use super::append::random;
use super::files::Files;
use super::gate::{Gate, Writer};
use super::locks::Held;
use super::shm::Shm;
use super::source::{Source, newest};
use crate::durable;
use crate::error::{Error, Result};

/// How often copying begins again because writers went on.
const ROUNDS: u32 = 4;
/// A WAL of this size is restarted even if writers have to wait for it: SQLite alone lets them
/// wait for whole checkpoints of 4 MiB, and while the file grows, each of their syncs is slower.
const LARGE: u64 = 16 << 20;
/// The most frames that are copied while writers wait. Above the cap each round after the first
/// allows four times as many, so that the fastest writers are caught up with.
const FRAMES_UNDER_WRITE: u32 = 256;
/// How long a restart tries to get WRITE, and then waits for the tail and for readers, if the WAL
/// is large or above its cap.
const LARGE_WRITE_MAX: Duration = Duration::from_millis(20);
const LARGE_CATCH_UP_MAX: Duration = Duration::from_millis(2);
const FORCE_WRITE_MAX: Duration = Duration::from_millis(100);
const FORCE_CATCH_UP_MAX: Duration = Duration::from_millis(20);
/// How long a reader that is about to leave is waited for.
const SHORT_READER_MAX: Duration = Duration::from_micros(500);
const BETWEEN_TRIES: Duration = Duration::from_micros(50);

/// How much a restart may cost the writers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Urge {
    /// Nothing but the restart itself.
    Gentle,
    Large,
    OverCap,
}

impl Urge {
    fn write_max(self) -> Duration {
        match self {
            Urge::Gentle => Duration::ZERO,
            Urge::Large => LARGE_WRITE_MAX,
            Urge::OverCap => FORCE_WRITE_MAX,
        }
    }

    fn tail_max(self) -> Duration {
        match self {
            Urge::Gentle => Duration::ZERO,
            Urge::Large => LARGE_CATCH_UP_MAX,
            Urge::OverCap => FORCE_CATCH_UP_MAX,
        }
    }

    fn readers_max(self) -> Duration {
        self.tail_max().max(SHORT_READER_MAX)
    }

    /// Frames that may be copied while writers wait.
    fn frames_max(self, round: u32) -> u32 {
        match self {
            Urge::Gentle => 0,
            Urge::Large => FRAMES_UNDER_WRITE,
            Urge::OverCap => FRAMES_UNDER_WRITE << (2 * round),
        }
    }
}

/// A checkpoint to run on another thread. One at a time.
#[derive(Debug)]
pub struct CheckpointTask {
    files: Arc<Files>,
    shm: Arc<Shm>,
    gate: Arc<Gate>,
    slot: usize,
    wal_bytes_max: u64,
}

/// What a checkpoint achieved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpointed {
    /// The WAL begins anew; its old content is all in the database file, durably.
    pub restarted: bool,
    /// Frames in the database file, of those in the WAL.
    pub backfilled: u32,
    pub frames: u32,
    /// What was in the way of a restart.
    pub obstacle: Option<Obstacle>,
    /// The WAL is above its cap and was not restarted: if this goes on, drop the pin.
    pub over_cap: bool,
}

/// Why a WAL was not restarted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Obstacle {
    /// A reader looks at the WAL, or at the database file.
    Reader,
    /// A writer is at work, or went on after the last copy.
    Writer,
    /// Transactions are left to be consumed.
    Tail,
    /// A scan needs the database file as it is.
    Scan,
    /// The source is frozen or about to be.
    Freeze,
    /// An application checkpoints on its own.
    Checkpoint,
}

impl Source {
    /// A checkpoint of what is consumed; `None` when there is nothing to do, one is running, the
    /// source is frozen, or the pin is not held.
    pub fn checkpoint(&self) -> Option<CheckpointTask> {
        let slot = self.pin.slot()?;
        let idle = self.shm.pulse().max_frame > 0 && !self.is_frozen();
        if !idle || !self.gate.begin_checkpoint() {
            return None;
        }
        Some(CheckpointTask {
            files: Arc::clone(&self.files),
            shm: Arc::clone(&self.shm),
            gate: Arc::clone(&self.gate),
            slot,
            wal_bytes_max: self.options.wal_bytes_max,
        })
    }
}

impl Drop for CheckpointTask {
    fn drop(&mut self) {
        self.gate.end_checkpoint();
    }
}

impl CheckpointTask {
    /// Copies, and restarts the WAL if nothing is in the way.
    pub fn run(self) -> Result<Checkpointed> {
        let Some(_checkpoint) = self.shm.try_checkpoint()? else {
            return self.report(Some(Obstacle::Checkpoint));
        };
        let mut obstacle = None;
        for round in 0..ROUNDS {
            let header = newest(&self.shm)?;
            if header.max_frame == 0 {
                return self.report(None);
            }
            // Far above the cap writers wait from the start: they would outrun any copy.
            let far_above = self.is_over(&header, 2 * self.wal_bytes_max);
            if !far_above && !self.copy(&header)? {
                return self.report(Some(Obstacle::Reader));
            }
            match self.restart(far_above, round)? {
                None => {
                    let frames = header.max_frame;
                    return Ok(Checkpointed {
                        restarted: true,
                        backfilled: frames,
                        frames,
                        obstacle: None,
                        over_cap: false,
                    });
                }
                Some(other) => obstacle = Some(other),
            }
            let again = matches!(obstacle, Some(Obstacle::Writer | Obstacle::Tail));
            if !again {
                break;
            }
        }
        self.report(obstacle)
    }

    fn report(&self, obstacle: Option<Obstacle>) -> Result<Checkpointed> {
        let header = newest(&self.shm)?;
        Ok(Checkpointed {
            restarted: false,
            backfilled: self.shm.backfilled(),
            frames: header.max_frame,
            obstacle,
            over_cap: self.is_over(&header, self.wal_bytes_max),
        })
    }

    fn is_over(&self, header: &IndexHeader, bytes: u64) -> bool {
        wal::sqlite::frame_offset(header.max_frame + 1, self.files.page_size) > bytes
    }

    /// Copies consumed frames that no reader forbids into the database file, durably; false when a
    /// reader of the file itself forbids all. The caller holds CKPT.
    fn copy(&self, header: &IndexHeader) -> Result<bool> {
        let done = self.shm.backfilled();
        let safe = self.safe_frame(header)?;
        if safe <= done {
            return Ok(true);
        }
        let Some(_readers) = patiently(SHORT_READER_MAX, || self.shm.try_slot(0))? else {
            return Ok(false);
        };
        if newest(&self.shm)?.salts != header.salts {
            return Ok(true);
        }
        self.shm.set_backfill_attempted(safe);
        durable::sync_data(&self.files.wal, &self.files.paths.wal)?;
        let mut image = vec![0; self.files.page_size as usize];
        for (page, frame) in self.newest_frames(done, safe)? {
            if page > header.page_count {
                continue;
            }
            self.files.read_frame_page(frame, &mut image)?;
            let offset = u64::from(page - 1) * u64::from(self.files.page_size);
            durable::write_at(&self.files.db, &self.files.paths.db, &image, offset)?;
        }
        durable::sync_data(&self.files.db, &self.files.paths.db)?;
        self.shm.set_backfilled(safe);
        Ok(true)
    }

    /// The last frame that may be copied: consumed by us, and not past any reader's mark. Slots
    /// that nobody is in are moved out of the way.
    fn safe_frame(&self, header: &IndexHeader) -> Result<u32> {
        let mut safe = header.max_frame.min(self.gate.consumed(header.salts));
        for slot in (1..READ_MARKS).filter(|slot| *slot != self.slot) {
            let mark = self.shm.read_mark(slot);
            if safe <= mark {
                continue;
            }
            match self.shm.try_slot(slot)? {
                Some(_slot) => {
                    self.shm
                        .set_read_mark(slot, if slot == 1 { safe } else { READ_MARK_UNUSED });
                }
                None => safe = safe.min(mark),
            }
        }
        Ok(safe)
    }

    /// The newest frame of each page in `after+1..=last`, in page order.
    fn newest_frames(&self, after: u32, last: u32) -> Result<BTreeMap<u32, u32>> {
        let mut newest = BTreeMap::new();
        let mut frame = after + 1;
        while frame <= last {
            let region = region_of(frame);
            let bytes = self.shm.region(region)?;
            let end = region_base(region + 1).min(last);
            for number in frame..=end {
                newest.insert(page_of_frame(region, &bytes, number)?, number);
            }
            frame = end + 1;
        }
        Ok(newest)
    }

    fn urge(&self, header: &IndexHeader) -> Urge {
        if self.is_over(header, self.wal_bytes_max) {
            Urge::OverCap
        } else if self.is_over(header, LARGE) {
            Urge::Large
        } else {
            Urge::Gentle
        }
    }

    /// Restarts the WAL; says what is in the way otherwise. If it is large, a small rest is copied
    /// while writers wait; if it is `far_above` its cap, whatever is left.
    fn restart(&self, far_above: bool, round: u32) -> Result<Option<Obstacle>> {
        if self.gate.is_scanning() {
            return Ok(Some(Obstacle::Scan));
        }
        let urge = self.urge(&newest(&self.shm)?);
        let Some(write) = self.brief_write(urge.write_max())? else {
            let ours = *self.gate.writer() != Writer::Nobody;
            return Ok(Some(if ours {
                Obstacle::Freeze
            } else {
                Obstacle::Writer
            }));
        };
        let header = newest(&self.shm)?;
        if !self.wait_for_tail(&header, urge.tail_max()) {
            return Ok(Some(Obstacle::Tail));
        }
        let rest = header.max_frame - self.shm.backfilled().min(header.max_frame);
        if rest > 0 {
            if !far_above && rest > urge.frames_max(round) {
                return Ok(Some(Obstacle::Writer));
            }
            if !self.copy(&header)? || self.shm.backfilled() != header.max_frame {
                return Ok(Some(Obstacle::Reader));
            }
        }
        // With all copied, new readers go to slot 0, so slots 1 to 4 only drain.
        let all = || Ok(self.shm.try_all_slots()?.then_some(()));
        let all = patiently(urge.readers_max(), all)?;
        if all.is_none() {
            return Ok(Some(Obstacle::Reader));
        }
        // One may have begun while this waited: it reads frames by their number.
        let restarted = match self.gate.is_scanning() {
            true => Ok(Some(Obstacle::Scan)),
            false => self.reset(&header).map(|()| None),
        };
        self.shm.keep_slot(self.slot)?;
        drop(write);
        restarted
    }

    /// Publishes an empty WAL. WRITE and READ1 to READ4 are ours.
    fn reset(&self, header: &IndexHeader) -> Result<()> {
        let len = u64::from(header.page_count) * u64::from(self.files.page_size);
        let fail = |e| Error::at("shorten", &self.files.paths.db, e);
        // Only here, where nothing is left to be read by the tail, may the file become shorter.
        if self.files.db.metadata().map_err(fail)?.len() > len {
            self.files.db.set_len(len).map_err(fail)?;
        }
        let mut fresh = *header;
        fresh.max_frame = 0;
        fresh.salts = header.salts.restarted(random()?);
        self.shm.publish(&fresh);
        self.shm.set_backfilled(0);
        self.shm.set_backfill_attempted(0);
        for slot in 1..READ_MARKS {
            let pinned = slot == 1 || slot == self.slot;
            self.shm
                .set_read_mark(slot, if pinned { 0 } else { READ_MARK_UNUSED });
        }
        Ok(())
    }

    /// Whether everything published is consumed, after `patience` at the latest.
    fn wait_for_tail(&self, header: &IndexHeader, patience: Duration) -> bool {
        let consumed = || self.gate.consumed(header.salts) >= header.max_frame;
        patiently(patience, || Ok(consumed().then_some(()))).is_ok_and(|done| done.is_some())
    }

    /// WRITE for a moment, after `patience` at the latest.
    fn brief_write(&self, patience: Duration) -> Result<Option<BriefWrite<'_>>> {
        if !self.gate.turn(Writer::Nobody, Writer::Brief) {
            return Ok(None);
        }
        let mut brief = BriefWrite {
            gate: &self.gate,
            held: None,
        };
        brief.held = patiently(patience, || self.shm.try_write())?;
        Ok(brief.held.is_some().then_some(brief))
    }
}

/// Tries again and again until it works or `patience` is over.
fn patiently<T>(patience: Duration, attempt: impl Fn() -> Result<Option<T>>) -> Result<Option<T>> {
    let deadline = Instant::now() + patience;
    loop {
        let got = attempt()?;
        if got.is_some() || Instant::now() >= deadline {
            return Ok(got);
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
}

/// WRITE, and the gate's word for it; let go in this order.
struct BriefWrite<'a> {
    gate: &'a Gate,
    held: Option<Held>,
}

impl Drop for BriefWrite<'_> {
    fn drop(&mut self) {
        self.held = None;
        self.gate.turn(Writer::Brief, Writer::Nobody);
    }
}
