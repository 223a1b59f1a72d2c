//! Compaction: the oldest segment's live records are appended again, and the segment is released.
//!
//! A log is given back from its beginning only, so the oldest segment is always the next one. Its
//! live records are those that the directory points to. They are appended while the lock of the
//! [`Order`](super::order::Order) is held, those left out whose key has a change under way, which
//! makes them old or fails; until nothing of the segment is live. The release is durable before a
//! slot is used again, and the copies are durable before that: a crash anywhere leaves one of the
//! two, or both, and of both the later counts. A delete is dropped with its segment: whatever it
//! deleted lay before it.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use wal::Lsn;
use wal::log::saved::Run;
use wal::log::{Error, Result};

use super::append::New;
use super::place::Place;
use super::record::{self, Change};
use super::{Core, hint, load};

/// Records are moved in batches of about this: the order is held while they are looked up and
/// copied, and all writers wait for it.
const MOVE_BYTES: usize = 32 << 10;
/// How often a segment is looked through before its live records are said to be lost.
const LOOKS_MAX: u32 = 300;
/// Segments that are kept beyond what the live records are worth.
const SLACK: u64 = 4;

/// How far compaction has come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Segments below have no live records.
    clean: u64,
    /// Where the log ended when this round of the log began.
    round: u64,
    /// A whole round gave nothing: rest until the log ends in this segment.
    rest: u64,
}

/// What one step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compacted {
    /// The segment that has no live records any more.
    pub segment: u64,
    pub records_moved: u64,
    pub bytes_moved: u64,
    /// Where the log begins now; not behind the segment if somebody holds it.
    pub first: Lsn,
}

/// Records of the segment that is compacted, to be moved at once.
#[derive(Debug, Default)]
struct Load {
    payloads: Vec<(Place, Vec<u8>)>,
    bytes: usize,
}

impl Core {
    /// Compacts the oldest segment, or tries again to release what is clean; `None` if there is
    /// nothing to be had. `pace` is told of bytes before they are moved; it says whether to go on.
    pub fn compact(&self, mut pace: impl FnMut(usize) -> bool) -> Result<Option<Compacted>> {
        let mut progress = self.progress();
        let layout = &self.layout;
        let begin = layout.number(self.appender.control().saved::<Run>()?.first);
        if begin < progress.clean {
            let first = self.release(progress.clean)?;
            if layout.number(first) < progress.clean {
                return Ok(None);
            }
        }
        let segment = begin.max(progress.clean);
        if !load::is_finished(layout, segment, self.appender.position()) {
            return Ok(None);
        }
        let Some((records_moved, bytes_moved)) = self.empty(segment, &mut pace)? else {
            return Ok(None);
        };
        progress.clean = segment + 1;
        let first = self.release(progress.clean)?;
        Ok(Some(Compacted {
            segment,
            records_moved,
            bytes_moved,
            first,
        }))
    }

    /// There is more to be had than the store allows itself.
    pub fn wants_compaction(&self) -> Result<bool> {
        let control = self.appender.control();
        let (layout, first) = (&self.layout, control.saved::<Run>()?.first);
        let (begin, end) = (
            layout.number(first),
            layout.number(self.appender.position()),
        );
        let mut progress = self.progress();
        let head = begin.max(progress.clean);
        if head >= end || end < progress.rest {
            return Ok(false);
        }
        if self.directory.live_in(head) == 0 {
            return Ok(true);
        }
        let kept = end - begin + 1;
        if kept <= self.segments_max() {
            (progress.round, progress.rest) = (0, 0);
            return Ok(false);
        }
        if progress.round == 0 {
            progress.round = end;
        } else if head > progress.round {
            (progress.round, progress.rest) = (0, end + kept.div_ceil(4));
            return Ok(false);
        }
        Ok(true)
    }

    /// Segments that the store allows itself for what is live.
    pub fn segments_max(&self) -> u64 {
        let segment = u64::from(self.layout.segment_bytes);
        u64::from(self.options.space_factor.max(2)) * self.directory.live().div_ceil(segment)
            + SLACK
    }

    /// Moves all live records of a segment: how many and how many bytes; `None` if told to stop.
    fn empty(
        &self,
        segment: u64,
        pace: &mut impl FnMut(usize) -> bool,
    ) -> Result<Option<(u64, u64)>> {
        let control = self.appender.control();
        let from = control
            .saved::<Run>()?
            .first
            .max(self.layout.begin(segment));
        let mut moved = (0, 0);
        for _ in 0..LOOKS_MAX {
            if self.directory.live_in(segment) == 0 {
                return Ok(Some(moved));
            }
            if !self.look_through(from, &mut moved, pace)? {
                return Ok(None);
            }
            if self.directory.live_in(segment) > 0 {
                // What was left out is being changed by somebody.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Err(Error::Damaged {
            at: from,
            why: "a record that the store knows is not in its segment",
        })
    }

    /// Moves what is live of the segment that `from` lies in; `false` if told to stop.
    fn look_through(
        &self,
        from: Lsn,
        moved: &mut (u64, u64),
        pace: &mut impl FnMut(usize) -> bool,
    ) -> Result<bool> {
        let (mut load, mut goes_on) = (Load::default(), true);
        let mut send = |load: &mut Load| {
            goes_on = goes_on && pace(load.bytes);
            if goes_on {
                let (records, bytes) = self.relocate(load)?;
                *moved = (moved.0 + records, moved.1 + bytes);
            }
            *load = Load::default();
            Ok(())
        };
        load::scan(self.appender.control(), from, |record, change| {
            let place = Place::new(record.lsn, record.payload.len());
            let is_put = matches!(change, Change::Put { .. });
            if !is_put || self.directory.get(change.key()) != Some(place) {
                return Ok(());
            }
            load.bytes += place.len_max();
            load.payloads.push((place, record.payload.to_vec()));
            match load.bytes >= MOVE_BYTES {
                true => send(&mut load),
                false => Ok(()),
            }
        })?;
        send(&mut load)?;
        Ok(goes_on)
    }

    /// Appends what of this is still live again; how many records and bytes.
    fn relocate(&self, load: &Load) -> Result<(u64, u64)> {
        let order = self.lock_order();
        let is_live = |(place, payload): &&(Place, Vec<u8>)| {
            let change = Change::read(record::RELOCATED, payload);
            change.is_some_and(|change| {
                // In this order: what has left is in the directory.
                !order.has(change.key()) && self.directory.get(change.key()) == Some(*place)
            })
        };
        let live = load.payloads.iter().filter(is_live);
        let records: Vec<New> = live
            .map(|(_, payload)| (record::RELOCATED, &payload[..]))
            .collect();
        if records.is_empty() {
            return Ok((0, 0));
        }
        self.append(order, &records)?;
        let bytes = records.iter().map(|(_, payload)| payload.len() as u64);
        Ok((records.len() as u64, bytes.sum()))
    }

    /// Gives segments below `clean` back, and their hints. Says where the log begins now.
    fn release(&self, clean: u64) -> Result<Lsn> {
        let layout = &self.layout;
        let old = self.appender.control().saved::<Run>()?.first;
        let first = self.appender.release(layout.begin(clean))?;
        let number = layout.number(first);
        self.files.forget_below(number);
        for gone in layout.number(old)..number {
            // One that stays is never believed: its segment is before the log.
            let _ = std::fs::remove_file(hint::path(layout, gone));
        }
        Ok(first)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
