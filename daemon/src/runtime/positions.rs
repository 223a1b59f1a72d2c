//! Writes `<state_dir>/positions`: how far every partition of this node has come.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use wal::lsn::Lsn;
use wal::{PartitionId, Position};

use super::host::Host;
use crate::positions::{SLOT_LEN, Slot, encode_header};

/// Slots by which the file grows.
const GROW: u64 = 64;

/// The file, shared by the shards: slots are handed out once and belong to one shard each.
#[derive(Debug)]
pub struct PositionsFile {
    file: File,
    state: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    index: BTreeMap<PartitionId, u64>,
    room: u64,
}

impl PositionsFile {
    /// Begins anew: positions of an earlier run mean nothing.
    pub fn create(path: &Path) -> std::io::Result<PositionsFile> {
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        file.write_all_at(&encode_header(0), 0)?;
        Ok(PositionsFile {
            file,
            state: Mutex::default(),
        })
    }

    fn write(&self, slot: &Slot) -> std::io::Result<()> {
        let index = self.slot_of(PartitionId(slot.partition))?;
        self.file.write_all_at(&slot.encode(), Slot::offset(index))
    }

    fn slot_of(&self, id: PartitionId) -> std::io::Result<u64> {
        let mut slots = self
            .state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(index) = slots.index.get(&id) {
            return Ok(*index);
        }
        let index = slots.index.len() as u64;
        if index >= slots.room {
            slots.room += GROW;
            self.file.set_len((slots.room + 1) * SLOT_LEN as u64)?;
            self.file.write_all_at(&encode_header(slots.room), 0)?;
        }
        slots.index.insert(id, index);
        Ok(index)
    }
}

/// The positions of one shard's partitions, and which of them changed since they were written.
#[derive(Default, Debug)]
pub struct Positions {
    slots: BTreeMap<PartitionId, Slot>,
    dirty: Vec<PartitionId>,
    /// Whether something was written in this turn before its end.
    written: bool,
}

impl Positions {
    fn change(&mut self, id: PartitionId, change: impl FnOnce(&mut Slot)) {
        let slot = self.slots.entry(id).or_insert_with(|| Slot::new(id));
        let before = *slot;
        change(slot);
        if *slot != before && self.dirty.last() != Some(&id) {
            self.dirty.push(id);
        }
    }
}

impl Host {
    /// The tail of a live database consumed up to its position.
    pub fn positions_consumed(&mut self, id: PartitionId) {
        let Some(live) = self.lives.by_id.get(&id) else {
            return;
        };
        let (position, offset) = (live.position, live.change_offset);
        self.positions.change(id, |slot| {
            slot.epoch = position.epoch;
            slot.consumed = position.lsn;
            slot.change_offset = offset;
        });
    }

    /// A shadow here applied up to `position`.
    pub fn positions_applied(&mut self, id: PartitionId, position: Position) {
        self.positions.change(id, |slot| {
            slot.epoch = position.epoch;
            slot.applied_best = position.lsn;
        });
        // Whoever follows a database that commits now and then sees it when it happens; a flood
        // costs one write a turn.
        if !std::mem::replace(&mut self.positions.written, true) {
            self.write_positions();
        }
    }

    /// A shadow here is durable up to `position`.
    pub fn positions_durable(&mut self, id: PartitionId, position: Position) {
        self.positions
            .change(id, |slot| slot.durable_best = position.lsn);
    }

    /// A peer acknowledged `lsn` of a live database.
    pub fn positions_acknowledged(&mut self, id: PartitionId, lsn: Lsn) {
        self.mirrored(id, lsn);
        self.positions.change(id, |slot| {
            slot.applied_best = slot.applied_best.max(lsn);
            slot.durable_best = slot.durable_best.max(lsn);
        });
    }

    pub fn positions_forget(&mut self, id: PartitionId) {
        self.positions.change(id, |slot| *slot = Slot::new(id));
    }

    /// Writes what changed in this turn and was not written yet.
    pub fn publish_positions(&mut self) {
        self.write_positions();
        self.positions.written = false;
    }

    fn write_positions(&mut self) {
        let now = io::reactor::now();
        for id in std::mem::take(&mut self.positions.dirty) {
            let Some(slot) = self.positions.slots.get_mut(&id) else {
                continue;
            };
            slot.updated_ns = now.0;
            if let Err(error) = self.setup.positions.write(slot) {
                tracing::debug!(%error, "the positions file can't be written");
            }
        }
    }
}
