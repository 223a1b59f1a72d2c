//! What the commit thread does all day.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::group::{GroupBuffer, disk_len};
use super::segments::{Slot, SlotIndex};
use super::{CommitOptions, Committed, GROUP_BYTES_MAX, Order, Place, SegmentNumber, Ticket, Wake};
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Step};

/// One part in so many: what writes take of the disk's time while submissions never end. Flushes of
/// one disk wait for one another, and the applications' own flushes come first.
const DISK_SHARE: u32 = 20;

/// State of the thread.
pub(super) struct Worker {
    dir: PathBuf,
    options: CommitOptions,
    direct: bool,
    slots: Vec<Slot>,
    /// The segment being written.
    open: Option<OpenSegment>,
    next: SegmentNumber,
    sequence: u64,
    /// A slot being filled with zeros ahead of need.
    spare: Option<JoinHandle<Result<Slot>>>,
    buffer: GroupBuffer,
    /// When the last write began, and how long it took.
    wrote: Option<(Instant, Duration)>,
    answers: flume::Sender<Committed>,
    wake: Arc<Wake>,
}

struct OpenSegment {
    place: Place,
    path: PathBuf,
    file: File,
    synchronous: bool,
    at: u64,
}

/// Where the sequence of a run begins. Segments are numbered anew once none is needed, and what an
/// earlier run left behind a wiped group carries the same number: by chance alone would it also
/// follow what this run writes before it.
fn anywhere() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

impl Worker {
    pub(super) fn new(
        dir: &Path,
        options: &CommitOptions,
        slots: Vec<Slot>,
        next: SegmentNumber,
        answers: flume::Sender<Committed>,
        wake: Arc<Wake>,
    ) -> Result<Worker> {
        let mut worker = Worker {
            dir: dir.to_owned(),
            options: options.clone(),
            direct: options.direct,
            slots,
            open: None,
            next,
            sequence: anywhere(),
            spare: None,
            buffer: GroupBuffer::new(GROUP_BYTES_MAX)?,
            wrote: None,
            answers,
            wake,
        };
        // The first segment is made here, so that a disk without room is told at the start. A
        // journal that is only full of unreleased records will be told by its owner.
        match worker.rotate(0) {
            Err(error) if error.kind() != Kind::Full => Err(error),
            _ => Ok(worker),
        }
    }

    pub(super) fn is_direct(&self) -> bool {
        self.direct
    }

    /// Until the submitting end is dropped.
    pub(super) fn run(mut self, orders: &flume::Receiver<Order>) {
        let mut held: Option<(Ticket, wal::frame::Frame)> = None;
        let mut group: Vec<Ticket> = Vec::new();
        loop {
            let first = match held.take() {
                Some((ticket, frame)) => Order::Write(ticket, frame),
                None => match orders.recv() {
                    Ok(order) => order,
                    Err(_) => break,
                },
            };
            self.pace();
            self.buffer.clear();
            group.clear();
            let mut next = Some(first);
            while let Some(order) = next {
                match order {
                    Order::Free(slot) => self.free(slot),
                    Order::Write(ticket, frame) if self.fits(frame.len()) => {
                        match self.buffer.push(&frame) {
                            Ok(()) => group.push(ticket),
                            Err(error) => {
                                self.answer(ticket, Err(error));
                                self.wake.ring();
                            }
                        }
                    }
                    Order::Write(ticket, frame) => {
                        held = Some((ticket, frame));
                        break;
                    }
                }
                next = orders.try_recv().ok();
            }
            if !group.is_empty() {
                self.commit(&group);
            }
        }
        self.take_spare();
    }

    /// Lets submissions gather, so that writes take up [`DISK_SHARE`] of the time at most, and
    /// nobody waits longer than [`CommitOptions::gather_max`] for it.
    fn pace(&self) {
        let Some((began, took)) = self.wrote else {
            return;
        };
        let spacing = (took * DISK_SHARE).min(self.options.gather_max);
        if let Some(rest) = spacing.checked_sub(began.elapsed()) {
            std::thread::sleep(rest);
        }
    }

    /// Whether a frame may join the group: the first always may.
    fn fits(&self, len: usize) -> bool {
        self.buffer.len() == 0 || self.buffer.len() + len <= GROUP_BYTES_MAX
    }

    fn commit(&mut self, group: &[Ticket]) {
        match self.write() {
            Ok(place) => group
                .iter()
                .for_each(|ticket| self.answer(*ticket, Ok(place))),
            Err(error) => {
                for ticket in group {
                    let reason = error.reason.clone();
                    let copy = Error::new(error.kind(), error.op, error.subject.clone(), reason);
                    self.answer(*ticket, Err(copy));
                }
            }
        }
        self.wake.ring();
    }

    fn answer(&self, ticket: Ticket, result: Result<Place>) {
        // The submitter may be gone; then nobody wants the answer.
        let _ = self.answers.send(Committed { ticket, result });
    }

    /// Makes the group in the buffer durable.
    fn write(&mut self) -> Result<Place> {
        let len = disk_len(self.buffer.len()) as u64;
        if self
            .open
            .as_ref()
            .is_none_or(|open| open.at + len > open.place.bytes)
        {
            self.rotate(len)?;
        }
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let Some(open) = &mut self.open else {
            return Err(Error::new(
                Kind::Fatal,
                "write",
                "the journal",
                "no segment is open",
            ));
        };
        let bytes = self.buffer.finish(open.place.segment, sequence);
        let began = Instant::now();
        let passed = failpoint::pass(Step::JournalWrite).map_err(std::io::Error::other);
        let written = passed
            .and_then(|()| open.file.write_all_at(bytes, open.at))
            .and_then(|()| {
                if open.synchronous {
                    Ok(())
                } else {
                    open.file.sync_data()
                }
            });
        self.wrote = Some((began, began.elapsed()));
        failpoint::reach(Step::JournalSynced);
        match written {
            Ok(()) => {
                open.at += len;
                Ok(open.place)
            }
            Err(error) => {
                let error = Error::at("write", &open.path, error);
                // What is on the disk there is unknown: it is never continued.
                self.leave();
                Err(error)
            }
        }
    }

    /// Leaves the open segment; one without an acknowledged group is nobody's and free again.
    fn leave(&mut self) {
        if let Some(open) = self.open.take()
            && open.at == 0
        {
            self.free(open.place.slot);
        }
    }

    /// Begins the next segment, in a free slot with room for `len` bytes.
    fn rotate(&mut self, len: u64) -> Result<()> {
        let wanted = len
            .max(self.options.segment_bytes)
            .next_multiple_of(super::BLOCK as u64);
        self.leave();
        let free = |slots: &[Slot]| {
            slots
                .iter()
                .position(|slot| !slot.used && slot.bytes >= len.max(super::BLOCK as u64))
        };
        if free(&self.slots).is_none() {
            self.take_spare();
        }
        let at = match free(&self.slots) {
            Some(at) => at,
            None => {
                self.within_cap(wanted)?;
                let slot = Slot::create(&self.dir, self.free_index(), wanted)?;
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[at];
        let (file, synchronous) = slot.open(self.direct)?;
        self.direct &= synchronous;
        slot.used = true;
        let place = Place {
            segment: self.next,
            slot: slot.index,
            bytes: slot.bytes,
        };
        let path = slot.path.clone();
        self.next = SegmentNumber(place.segment.0 + 1);
        self.open = Some(OpenSegment {
            place,
            path,
            file,
            synchronous,
            at: 0,
        });
        self.prepare_spare();
        Ok(())
    }

    /// Fills a slot on another thread when no free one is left, so that the next rotation is
    /// instant.
    fn prepare_spare(&mut self) {
        let wanted = self
            .options
            .segment_bytes
            .next_multiple_of(super::BLOCK as u64);
        let needed = self.spare.is_none() && self.slots.iter().all(|slot| slot.used);
        if !needed || self.within_cap(wanted).is_err() {
            return;
        }
        let (dir, index) = (self.dir.clone(), self.free_index());
        let spawned = std::thread::Builder::new()
            .name("journal-fill".to_owned())
            .spawn(move || Slot::create(&dir, index, wanted));
        // Without a thread the next rotation fills its slot itself.
        self.spare = spawned.ok();
    }

    /// Adds the slot that was filled ahead, if there is one. Its error is met again by whoever
    /// needs the slot.
    fn take_spare(&mut self) {
        if let Some(Ok(Ok(slot))) = self.spare.take().map(JoinHandle::join) {
            self.slots.push(slot);
        }
    }

    fn within_cap(&self, more: u64) -> Result<()> {
        let held: u64 = self.slots.iter().map(|slot| slot.bytes).sum();
        if held + more <= self.options.bytes_max {
            return Ok(());
        }
        let reason = format!(
            "{held} of {} bytes hold records that no checkpoint released yet",
            self.options.bytes_max
        );
        Err(Error::new(
            Kind::Full,
            "write to",
            self.dir.display().to_string(),
            reason,
        ))
    }

    fn free_index(&self) -> SlotIndex {
        SlotIndex(
            self.slots
                .iter()
                .map(|slot| slot.index.0 + 1)
                .max()
                .unwrap_or(0),
        )
    }

    fn free(&mut self, index: SlotIndex) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.index == index) {
            slot.used = false;
            if let Err(error) = slot.wipe(self.direct) {
                tracing::debug!(%error, "released records will be read once more");
            }
        }
    }
}
