//! A source's bounded log of the deltas it made for one partition.
//!
//! A peer that was away for a while continues from here instead of being compared page by page. The
//! log is a convenience: nothing is synced, the newest frames are also kept in memory, the oldest
//! are dropped above a cap. On reopening, every frame is verified and must continue the one before;
//! what follows a torn or damaged place is cut off, because the source makes no delta twice and a
//! log with a hole serves nobody.
//!
//! Invariants: deltas form one chain: each starts at the position where the one before ended; a
//! position that [`DeltaLog::position_at`] names is the source's own, digest included.

mod segment;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use wal::delta::Decoder;
use wal::frame::Frame;
use wal::{Lsn, Position};

use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};
use segment::Segment;

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeltaLogLimits {
    /// Bytes on disk. The oldest segment goes as a whole, so a sixteenth more may be there.
    pub disk_bytes: u64,
    /// Bytes of the newest frames kept in memory.
    pub memory_bytes: usize,
}

impl Default for DeltaLogLimits {
    fn default() -> DeltaLogLimits {
        DeltaLogLimits {
            disk_bytes: 64 << 20,
            memory_bytes: 1 << 20,
        }
    }
}

/// The open log. One writer.
#[derive(Debug)]
pub struct DeltaLog {
    dir: PathBuf,
    limits: DeltaLogLimits,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    entries: VecDeque<Entry>,
    /// Where the log begins: the position before its first delta.
    base: Option<Position>,
    memory_bytes: usize,
    /// How many of the newest entries are in memory.
    cached: usize,
}

/// One delta.
#[derive(Debug)]
struct Entry {
    to: Position,
    segment: u64,
    offset: u64,
    len: usize,
    frame: Option<Frame>,
}

impl DeltaLog {
    /// Opens or creates the log in `dir`, verifying what is there.
    pub fn open(dir: &Path, limits: DeltaLogLimits) -> Result<DeltaLog> {
        std::fs::create_dir_all(dir).map_err(|e| Error::at("create directory", dir, e))?;
        let mut log = DeltaLog {
            dir: dir.to_owned(),
            limits,
            segments: VecDeque::new(),
            entries: VecDeque::new(),
            base: None,
            memory_bytes: 0,
            cached: 0,
        };
        let mut numbers = segment::numbers(dir)?.into_iter();
        for number in numbers.by_ref() {
            let mut found = Segment::open(dir, number)?;
            let whole = log.index(&mut found)?;
            log.segments.push_back(found);
            if !whole {
                break;
            }
        }
        for number in numbers {
            Segment::open(dir, number)?.remove()?;
        }
        log.drop_old()?;
        Ok(log)
    }

    /// The position after the newest delta; `None` when the log is empty.
    pub fn newest(&self) -> Option<Position> {
        self.entries.back().map(|entry| entry.to).or(self.base)
    }

    /// The oldest position from which a peer can continue.
    pub fn oldest(&self) -> Option<Position> {
        self.base
    }

    /// The source's position at `lsn`; `None` when no delta begins or ends there, or it is gone.
    pub fn position_at(&self, lsn: Lsn) -> Option<Position> {
        if self.base.is_some_and(|base| base.lsn == lsn) && self.place_after(lsn) == Some(0) {
            return self.base;
        }
        let at = self.entries.partition_point(|entry| entry.to.lsn < lsn);
        // Several may end at one lsn (a change of epoch): the newest is where the source stood.
        let same = self
            .entries
            .iter()
            .skip(at)
            .take_while(|entry| entry.to.lsn == lsn);
        same.last().map(|entry| entry.to)
    }

    /// Adds a delta that starts where the newest one ended. Buffered by the kernel, not synced.
    pub fn append(&mut self, frame: &Frame) -> Result<()> {
        let head = Decoder::delta_head(frame)?;
        if let Some(newest) = self.newest()
            && newest != head.from
        {
            let reason = format!("it starts at {}, the log ends at {newest}", head.from);
            return Err(Error::new(
                Kind::Refused,
                "append a delta to",
                self.subject(),
                reason,
            ));
        }
        let (segment, offset) = self.room_for(frame.len())?.append(frame.bytes())?;
        failpoint::pass(Step::ShipLogged)?;
        if self.base.is_none() {
            self.base = Some(head.from);
        }
        let len = frame.len();
        let frame = Some(frame.clone());
        self.entries.push_back(Entry {
            to: head.to,
            segment,
            offset,
            len,
            frame,
        });
        self.memory_bytes += len;
        self.cached += 1;
        self.drop_from_memory();
        self.drop_old()
    }

    /// The deltas after `lsn`, oldest first, about `bytes_max` of them but at least one.
    /// `None`: the log does not reach back to `lsn`, so the peer must be compared page by page.
    /// Empty: `lsn` is the newest.
    pub fn frames_after(&self, lsn: Lsn, bytes_max: usize) -> Result<Option<Vec<Frame>>> {
        let Some(start) = self.place_after(lsn) else {
            return Ok(None);
        };
        let mut frames = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.iter().skip(start) {
            if bytes > 0 && bytes + entry.len > bytes_max {
                break;
            }
            bytes += entry.len;
            frames.push(self.frame(entry)?);
        }
        Ok(Some(frames))
    }

    /// Bytes of deltas after `lsn`: what a peer there has yet to get.
    pub fn bytes_after(&self, lsn: Lsn) -> Option<u64> {
        let start = self.place_after(lsn)?;
        Some(
            self.entries
                .iter()
                .skip(start)
                .map(|entry| entry.len as u64)
                .sum(),
        )
    }

    /// Forgets everything; the next delta begins at `base`.
    pub fn reset(&mut self, base: Option<Position>) -> Result<()> {
        while let Some(segment) = self.segments.pop_back() {
            segment.remove()?;
        }
        self.entries.clear();
        self.memory_bytes = 0;
        self.cached = 0;
        self.base = base;
        Ok(())
    }

    /// Where the first delta after `lsn` is in `entries`; `None` when `lsn` is no boundary.
    fn place_after(&self, lsn: Lsn) -> Option<usize> {
        let base = self.base?;
        let place = self.entries.partition_point(|entry| entry.to.lsn <= lsn);
        let boundary = match place {
            0 => base,
            place => self.entries[place - 1].to,
        };
        (boundary.lsn == lsn).then_some(place)
    }

    fn frame(&self, entry: &Entry) -> Result<Frame> {
        if let Some(frame) = &entry.frame {
            return Ok(frame.clone());
        }
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.number() == entry.segment);
        let Some(segment) = segment else {
            let reason = "a segment that the index names is gone";
            return Err(Error::new(Kind::Fatal, "read", self.subject(), reason));
        };
        Ok(Frame::parse(&segment.read(entry.offset, entry.len)?)?)
    }

    /// The segment to write to, a fresh one when the last is full.
    fn room_for(&mut self, len: usize) -> Result<&mut Segment> {
        let full = match self.segments.back() {
            Some(last) => last.bytes() > 0 && last.bytes() + len as u64 > self.segment_bytes(),
            None => true,
        };
        if full {
            let number = self.segments.back().map_or(1, |last| last.number() + 1);
            self.segments.push_back(Segment::create(&self.dir, number)?);
        }
        self.segments.back_mut().ok_or_else(|| {
            Error::new(
                Kind::Fatal,
                "append to",
                self.dir.display().to_string(),
                "no segment",
            )
        })
    }

    fn segment_bytes(&self) -> u64 {
        (self.limits.disk_bytes / 16).clamp(64 << 10, 4 << 20)
    }

    fn drop_from_memory(&mut self) {
        // The newest stays, whatever its size: it is about to be sent.
        while self.memory_bytes > self.limits.memory_bytes && self.cached > 1 {
            let oldest = self.entries.len() - self.cached;
            self.entries[oldest].frame = None;
            self.memory_bytes -= self.entries[oldest].len;
            self.cached -= 1;
        }
    }

    fn drop_old(&mut self) -> Result<()> {
        let held = |log: &DeltaLog| log.segments.iter().map(Segment::bytes).sum::<u64>();
        while self.segments.len() > 1 && held(self) > self.limits.disk_bytes {
            let Some(oldest) = self.segments.pop_front() else {
                break;
            };
            while self
                .entries
                .front()
                .is_some_and(|entry| entry.segment == oldest.number())
            {
                let Some(entry) = self.entries.pop_front() else {
                    break;
                };
                self.base = Some(entry.to);
                if entry.frame.is_some() {
                    self.memory_bytes -= entry.len;
                    self.cached -= 1;
                }
            }
            oldest.remove()?;
        }
        Ok(())
    }

    /// Adds a segment's deltas; `false` when it was cut at a place that does not continue.
    fn index(&mut self, segment: &mut Segment) -> Result<bool> {
        let bytes = segment.read(0, segment.bytes() as usize)?;
        let mut at = 0;
        while let Some((frame, head)) = next_delta(&bytes[at..]) {
            if self.newest().is_some_and(|newest| newest != head.from) {
                break;
            }
            self.base.get_or_insert(head.from);
            let (number, offset) = (segment.number(), at as u64);
            let len = frame.len();
            self.entries.push_back(Entry {
                to: head.to,
                segment: number,
                offset,
                len,
                frame: None,
            });
            at += len;
        }
        if at == bytes.len() {
            return Ok(true);
        }
        segment.cut(at as u64)?;
        Ok(false)
    }

    fn subject(&self) -> String {
        self.dir.display().to_string()
    }
}

/// The delta at the beginning of `bytes`, if a whole and valid one is there.
fn next_delta(bytes: &[u8]) -> Option<(Frame, wal::delta::DeltaHead)> {
    let len = wal::frame::frame_len(bytes).ok()??;
    let frame = Frame::parse(bytes.get(..len)?).ok()?;
    let head = Decoder::delta_head(&frame).ok()?;
    Some((frame, head))
}

#[cfg(test)]
mod tests;
