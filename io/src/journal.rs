//! The journal of a shard: every delta that its shadows acknowledged and no checkpoint holds yet.
//!
//! A delta is appended here before it counts as received; the shadow's own files are synced only by
//! checkpoints. After a crash [`Journal::replay`] gives the deltas back in order, and each shadow
//! takes those after its checkpoint. The commit thread ([`crate::commit`]) does the writing.
//!
//! Retention is by segment: one whose every record was released by its partition's checkpoint is
//! recycled. Above half of the cap [`Journal::holders`] names the partitions that hold back the
//! oldest segments, so that the caller checkpoints them; at the cap appends are answered `Full`,
//! and succeed again once something was released.
//!
//! Invariants: a frame answered `Ok` is replayed after any crash until its partition released it;
//! frames of a partition are replayed in the order of their appends; a frame may be replayed twice
//! (an append answered with an error may be durable nevertheless), which shadows ignore.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use wal::frame::Frame;
use wal::{Epoch, Lsn, PartitionId, Position};

use crate::commit::{
    Commit, CommitMode, CommitOptions, Committed, Place, SegmentNumber, Slot, SlotIndex, Ticket,
    clean_slots, scan_slots,
};
use crate::error::{Error, Result};
use crate::failpoint::{self, Step};

/// Where a record ends in its partition's history; ordered as that history is.
type End = (Epoch, Lsn);

/// The open journal. One owner.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    commit: Commit,
    bytes_max: u64,
    next_ticket: u64,
    /// Submitted and not answered, in order; `None`: its partition was forgotten meanwhile.
    waiting: VecDeque<(Ticket, Option<(PartitionId, End)>)>,
    segments: BTreeMap<SegmentNumber, Segment>,
    /// Segments from here on are of this run: the newest of them may be written to.
    first: SegmentNumber,
    released: HashMap<PartitionId, End>,
}

/// A segment that holds records.
#[derive(Debug)]
struct Segment {
    slot: SlotIndex,
    bytes: u64,
    /// The newest record of each partition.
    newest: HashMap<PartitionId, End>,
}

/// What a replay went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    pub frames: u64,
    pub bytes: u64,
}

impl Journal {
    /// Opens or creates the journal in `dir` and starts its commit thread. Reads every record.
    pub fn open(dir: &Path, options: &CommitOptions) -> Result<Journal> {
        std::fs::create_dir_all(dir).map_err(|e| Error::at("create directory", dir, e))?;
        clean_slots(dir)?;
        let mut slots = scan_slots(dir)?;
        let mut segments = BTreeMap::new();
        for slot in &mut slots {
            if let Some((number, newest)) = contents(slot)? {
                slot.used = true;
                segments.insert(
                    number,
                    Segment {
                        slot: slot.index,
                        bytes: slot.bytes,
                        newest,
                    },
                );
            }
        }
        let next = segments
            .keys()
            .next_back()
            .map_or(1, |newest: &SegmentNumber| newest.0 + 1);
        let first = SegmentNumber(next);
        let commit = Commit::start(dir, options, slots, first)?;
        Ok(Journal {
            dir: dir.to_owned(),
            commit,
            bytes_max: options.bytes_max,
            next_ticket: 1,
            waiting: VecDeque::new(),
            segments,
            first,
            released: HashMap::new(),
        })
    }

    /// What the commit thread got of what it asked for.
    pub fn mode(&self) -> CommitMode {
        self.commit.mode()
    }

    /// Submits `frame`; [`Journal::poll`] returns its answer, answers come in order.
    pub fn append(&mut self, frame: Frame) -> Result<Ticket> {
        let ticket = Ticket(self.next_ticket);
        let header = frame.header();
        failpoint::pass(Step::JournalAppend)?;
        self.commit.submit(ticket, frame)?;
        self.next_ticket += 1;
        let end = (header.epoch, header.to);
        self.waiting
            .push_back((ticket, Some((header.partition, end))));
        Ok(ticket)
    }

    /// Readable when answers may be there. Clear it before polling until `None`.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.commit.wake_fd()
    }

    pub fn clear_wake(&self) {
        self.commit.clear_wake();
    }

    /// The next answer, if one is there.
    pub fn poll(&mut self) -> Option<Committed> {
        let answer = self.commit.answer()?;
        self.answered(&answer);
        Some(answer)
    }

    /// Waits for the next answer; `None` when nothing was submitted or the thread died.
    pub fn wait(&mut self) -> Option<Committed> {
        if self.waiting.is_empty() {
            return None;
        }
        let answer = self.commit.wait()?;
        self.answered(&answer);
        Some(answer)
    }

    /// Says that `partition` is durable elsewhere up to `position`.
    pub fn release(&mut self, partition: PartitionId, position: Position) -> Result<()> {
        let end = (position.epoch, position.lsn);
        let held = self.released.entry(partition).or_insert(end);
        *held = end.max(*held);
        self.recycle()
    }

    /// Says that nothing of `partition` is needed any more.
    pub fn forget(&mut self, partition: PartitionId) -> Result<()> {
        for segment in self.segments.values_mut() {
            segment.newest.remove(&partition);
        }
        for (_, record) in &mut self.waiting {
            record.take_if(|(of, _)| *of == partition);
        }
        self.released.remove(&partition);
        self.recycle()
    }

    /// Partitions with records that were not released.
    pub fn partitions(&self) -> Vec<PartitionId> {
        let held = self
            .segments
            .values()
            .flat_map(|segment| self.unreleased(segment));
        let mut partitions: Vec<PartitionId> = held.collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }

    /// Bytes of segments that hold records.
    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Above half of the cap: the partitions whose checkpoint lets the oldest segments go, enough
    /// of them to come back to half. Empty below.
    pub fn holders(&self) -> Vec<PartitionId> {
        let mut excess = self.bytes().saturating_sub(self.bytes_max / 2);
        let mut holders = Vec::new();
        for segment in self.segments.values() {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(segment.bytes);
            holders.extend(self.unreleased(segment));
        }
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// Hands every retained record to `sink`, oldest first: at least all that was answered before
    /// the call. Blocks and reads every segment; meant for the start.
    pub fn replay(
        &self,
        sink: &mut dyn FnMut(PartitionId, Frame) -> Result<()>,
    ) -> Result<Replayed> {
        let mut replayed = Replayed::default();
        let slots = scan_slots(&self.dir)?;
        for (number, segment) in &self.segments {
            let Some(slot) = slots.iter().find(|slot| slot.index == segment.slot) else {
                continue;
            };
            let Some((found, groups)) = slot.read()? else {
                continue;
            };
            if found != *number {
                continue;
            }
            for frame in groups.into_iter().flat_map(|group| group.frames) {
                replayed.frames += 1;
                replayed.bytes += frame.len() as u64;
                sink(frame.header().partition, frame)?;
            }
        }
        Ok(replayed)
    }

    fn answered(&mut self, answer: &Committed) {
        let Some((ticket, record)) = self.waiting.pop_front() else {
            return;
        };
        assert_eq!(
            ticket, answer.ticket,
            "answers come in the order of submission"
        );
        if let Ok(Place {
            segment,
            slot,
            bytes,
        }) = answer.result
        {
            let fresh = || Segment {
                slot,
                bytes,
                newest: HashMap::new(),
            };
            let newest = &mut self.segments.entry(segment).or_insert_with(fresh).newest;
            if let Some((partition, end)) = record {
                let held = newest.entry(partition).or_insert(end);
                *held = end.max(*held);
            }
        }
    }

    fn unreleased<'a>(&'a self, segment: &'a Segment) -> impl Iterator<Item = PartitionId> + 'a {
        segment
            .newest
            .iter()
            .filter(|(partition, end)| !self.is_released(**partition, **end))
            .map(|(partition, _)| *partition)
    }

    fn is_released(&self, partition: PartitionId, end: End) -> bool {
        self.released
            .get(&partition)
            .is_some_and(|released| *released >= end)
    }

    /// Gives back every segment without unreleased records, but the newest of this run: the commit
    /// thread may still be writing to it.
    fn recycle(&mut self) -> Result<()> {
        let Some(newest) = self.segments.keys().next_back().copied() else {
            return Ok(());
        };
        let free = |(number, segment): (&SegmentNumber, &Segment)| {
            let written = *number == newest && newest >= self.first;
            let idle = !written && self.unreleased(segment).next().is_none();
            idle.then_some((*number, segment.slot))
        };
        let free: Vec<(SegmentNumber, SlotIndex)> = self.segments.iter().filter_map(free).collect();
        for (number, slot) in free {
            self.commit.free(slot)?;
            self.segments.remove(&number);
        }
        Ok(())
    }
}

/// The segment in a slot, with the newest record of each partition in it.
fn contents(slot: &Slot) -> Result<Option<(SegmentNumber, HashMap<PartitionId, End>)>> {
    let Some((number, groups)) = slot.read()? else {
        return Ok(None);
    };
    let mut newest: HashMap<PartitionId, End> = HashMap::new();
    for header in groups
        .iter()
        .flat_map(|group| &group.frames)
        .map(Frame::header)
    {
        let end = (header.epoch, header.to);
        let held = newest.entry(header.partition).or_insert(end);
        *held = end.max(*held);
    }
    Ok(Some((number, newest)))
}

#[cfg(test)]
mod tests;
