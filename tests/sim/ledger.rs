//! What applications know of each database: every commit, in order, and which must survive.

use std::collections::BTreeMap;

use wal::{Epoch, PartitionId};

use super::world::World;

#[derive(Default)]
pub struct Ledger {
    /// Every commit of the line that counts.
    pub committed: Vec<u32>,
    /// So many of them were acknowledged as durable (`synchronous=FULL`).
    pub durable: usize,
    /// Databases under older epochs were taken over from: what is written there is lost.
    pub floor: Epoch,
    /// A takeover decided the floor, and the new owner has not landed yet.
    pub open: bool,
    /// Lines that were given up: by a takeover, or by a power cut that took what was not durable.
    pub past: Vec<Vec<u32>>,
}

impl Ledger {
    /// Whether `writes` is a beginning of the line that counts.
    pub fn has_prefix(&self, writes: &[u32]) -> bool {
        is_prefix(writes, &self.committed)
    }

    /// Whether `writes` is a beginning of any line there ever was.
    pub fn had_prefix(&self, writes: &[u32]) -> bool {
        self.has_prefix(writes) || self.past.iter().any(|line| is_prefix(writes, line))
    }

    pub fn cut(&mut self, len: usize) {
        if len < self.committed.len() {
            let line = self.committed[..len].to_vec();
            self.past.push(std::mem::replace(&mut self.committed, line));
        }
    }
}

/// The last write stands for all before it: each is unique and was checked when it was the last.
fn is_prefix(writes: &[u32], line: &[u32]) -> bool {
    writes.len() <= line.len() && writes.last() == line[..writes.len()].last()
}

pub type Ledgers = BTreeMap<PartitionId, Ledger>;

impl World {
    /// A commit became visible in a database under `epoch`.
    pub fn committed_under(&mut self, id: PartitionId, epoch: Epoch, write: u32, full: bool) {
        let ledger = self.ledgers.entry(id).or_default();
        if epoch < ledger.floor {
            return;
        }
        ledger.committed.push(write);
        if full {
            ledger.durable = ledger.committed.len();
        }
    }

    /// The coordinator gave the partition to a node without its owner's word.
    pub fn taken_over(&mut self, id: PartitionId, epoch: Epoch) {
        self.people.takeovers += 1;
        let ledger = self.ledgers.entry(id).or_default();
        ledger.floor = epoch;
        ledger.open = true;
    }

    /// A database is live under `epoch`: after a takeover its writes are the line that counts.
    pub fn landed_under(&mut self, node: usize, id: PartitionId, epoch: Epoch) {
        let live = self.nodes[node].disks[&id].live.as_ref();
        let writes = live.map(|live| live.content.writes().to_vec());
        let ledger = self.ledgers.entry(id).or_default();
        if !ledger.open || epoch < ledger.floor {
            return;
        }
        let Some(writes) = writes else { return };
        ledger.open = false;
        let line = std::mem::take(&mut ledger.committed);
        if !is_prefix(&writes, &line) {
            // The shadow followed an owner that was already taken over from once.
            ledger.past.push(writes.clone());
        }
        ledger.past.push(line);
        ledger.durable = writes.len();
        ledger.committed = writes;
    }
}
