//! The shard's journal of deltas: what is acknowledged survives a power cut.
//!
//! A delta is finished when it is both durable and applied, in whichever order that happens. The
//! commit thread answers in order, so per partition deltas finish in order too.

use std::collections::{BTreeMap, BTreeSet};

use io::journal::Journal as Segments;
use wal::frame::Frame;
use wal::lsn::Lsn;
use wal::{PartitionId, Position};

use crate::event::{Failure, Ticket};

/// A delta on its way.
#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    applied: Option<Position>,
    durable: Option<Result<(), Failure>>,
}

/// The journal of one shard.
#[derive(Debug)]
pub struct Journal {
    segments: Segments,
    pending: BTreeMap<(PartitionId, Lsn), Pending>,
    /// Which delta a submission was.
    submitted: BTreeMap<io::commit::Ticket, (PartitionId, Lsn)>,
}

impl Journal {
    pub fn new(segments: Segments) -> Journal {
        Journal {
            segments,
            pending: BTreeMap::new(),
            submitted: BTreeMap::new(),
        }
    }

    /// Readable when deltas became durable.
    pub fn wake_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.segments.wake_fd()
    }

    /// Sends a delta on its way to the disk.
    pub fn submit(&mut self, ticket: Ticket, frame: Frame) {
        let key = (ticket.partition, frame.header().to);
        let durable = match self.segments.append(frame) {
            Ok(submission) => {
                self.submitted.insert(submission, key);
                None
            }
            Err(error) => Some(Err(super::lives::failure_of(&error))),
        };
        self.pending.insert(
            key,
            Pending {
                ticket,
                applied: None,
                durable,
            },
        );
    }

    /// The delta that ends at `position` is applied; its result, if it is durable already.
    pub fn applied(
        &mut self,
        position: Position,
        partition: PartitionId,
    ) -> Option<Result<Position, Failure>> {
        let key = (partition, position.lsn);
        let pending = self.pending.get_mut(&key)?;
        pending.applied = Some(position);
        let durable = pending.durable.clone()?;
        self.pending.remove(&key);
        Some(durable.map(|()| position))
    }

    /// The delta was not applied: nobody waits for it any more.
    pub fn forget(&mut self, partition: PartitionId, to: Lsn) {
        self.pending.remove(&(partition, to));
    }

    /// Deltas that are finished because they became durable.
    pub fn take_finished(&mut self) -> Vec<(Ticket, Result<Position, Failure>)> {
        self.segments.clear_wake();
        let mut finished = Vec::new();
        while let Some(committed) = self.segments.poll() {
            let Some(key) = self.submitted.remove(&committed.ticket) else {
                continue;
            };
            let Some(pending) = self.pending.get_mut(&key) else {
                continue;
            };
            let durable = committed.result.map(|_| ());
            pending.durable = Some(durable.map_err(|error| super::lives::failure_of(&error)));
            if let Some(position) = pending.applied
                && let Some(pending) = self.pending.remove(&key)
                && let Some(durable) = pending.durable
            {
                finished.push((pending.ticket, durable.map(|()| position)));
            }
        }
        finished
    }

    /// Deltas of `partition` up to `position` are in its database file.
    pub fn release(&mut self, partition: PartitionId, position: Position) {
        if let Err(error) = self.segments.release(partition, position) {
            tracing::warn!(%error, "the journal can't recycle its segments");
        }
    }

    /// No delta of `partition` is needed any more.
    pub fn release_all(&mut self, partition: PartitionId) {
        self.pending.retain(|(id, _), _| *id != partition);
        if let Err(error) = self.segments.forget(partition) {
            tracing::warn!(%error, "the journal can't recycle its segments");
        }
    }

    /// The partitions whose deltas keep the journal from going on.
    pub fn holders(&self) -> BTreeSet<PartitionId> {
        self.segments.holders().into_iter().collect()
    }
}
