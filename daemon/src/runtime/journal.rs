//! The shard's journal of deltas: what is acknowledged survives a power cut.
//!
//! A delta is submitted when it is applied, and finished when it is durable too. The commit thread
//! answers in order, so per partition deltas finish in order.

use std::collections::{BTreeMap, BTreeSet};

use io::failpoint::{self, Step};
use io::journal::Journal as Segments;
use wal::frame::Frame;
use wal::{PartitionId, Position};

use super::lives::failure_of;
use crate::event::{Failure, Ticket};

/// The journal of one shard.
#[derive(Debug)]
pub struct Journal {
    segments: Segments,
    /// Deltas on their way to the disk: who waits, and where the shadow stands with them.
    pending: BTreeMap<io::commit::Ticket, (Ticket, Position)>,
}

impl Journal {
    pub fn new(segments: Segments) -> Journal {
        Journal {
            segments,
            pending: BTreeMap::new(),
        }
    }

    /// Readable when deltas became durable.
    pub fn wake_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.segments.wake_fd()
    }

    /// Sends a delta on its way to the disk; with it applied, its shadow stands at `position`.
    pub fn submit(
        &mut self,
        ticket: Ticket,
        position: Position,
        frame: Frame,
    ) -> Result<(), Failure> {
        let submission = self.segments.append(frame);
        let submission = submission.map_err(|error| failure_of(&error))?;
        self.pending.insert(submission, (ticket, position));
        Ok(())
    }

    /// Deltas that became durable since the last call, or failed to.
    pub fn take_finished(&mut self) -> Vec<(Ticket, Result<Position, Failure>)> {
        self.segments.clear_wake();
        let mut finished = Vec::new();
        while let Some(committed) = self.segments.poll() {
            // Nobody waits for what was released meanwhile.
            if let Some((ticket, position)) = self.pending.remove(&committed.ticket) {
                let durable = committed.result.map(|_| position);
                failpoint::reach(Step::JournalAcknowledge);
                finished.push((ticket, durable.map_err(|error| failure_of(&error))));
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
        self.pending
            .retain(|_, (ticket, _)| ticket.partition != partition);
        if let Err(error) = self.segments.forget(partition) {
            tracing::warn!(%error, "the journal can't recycle its segments");
        }
    }

    /// The partitions whose deltas keep the journal from going on.
    pub fn holders(&self) -> BTreeSet<PartitionId> {
        self.segments.holders().into_iter().collect()
    }
}
