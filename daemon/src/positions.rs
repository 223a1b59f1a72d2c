//! The positions file: how far every partition of this node has come, readable without asking.
//!
//! `<state_dir>/positions` is an array of 64-byte slots, little-endian, slot 0 being the header. A
//! monitor maps or preads it and sees, within microseconds, how much of a database is consumed,
//! applied and durable at the best peer; a request to the daemon would cost more than what is
//! measured. This module is only the layout; the runtime writes the bytes.
//!
//! | offset | header (slot 0) | slot |
//! |---|---|---|
//! | 0 | magic `FSPOS\0\0\1` | partition id, 0 = free |
//! | 8 | number of slots after the header | epoch |
//! | 16 | 0 | lsn consumed from the source |
//! | 24 | 0 | highest lsn applied by a peer |
//! | 32 | 0 | highest lsn durable at a peer |
//! | 40 | 0 | change offset: lsn minus the WAL-index change counter |
//! | 48 | 0 | time of the last update, CLOCK_MONOTONIC ns |
//! | 56 | 0 | 0, reserved |
//!
//! Invariant: a writer stores the fields of a slot before it raises `durable_best`, so a reader
//! that sees a new durable position never pairs it with an older epoch or offset.

use wal::{Epoch, Lsn, PartitionId};

/// Bytes of a slot, and of the header.
pub const SLOT_LEN: usize = 64;

/// First bytes of the file; the last byte is the version of the layout.
pub const MAGIC: [u8; 8] = *b"FSPOS\0\0\x01";

/// One partition's progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    pub partition: u64,
    pub epoch: Epoch,
    pub consumed: Lsn,
    pub applied_best: Lsn,
    pub durable_best: Lsn,
    pub change_offset: ChangeOffset,
    pub updated_ns: u64,
}

/// Lsn minus the WAL-index change counter (iChange), modulo 2^64; fixed at attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChangeOffset(pub u64);

impl ChangeOffset {
    /// The offset of a log whose change counter stood at `change` when its lsn was `at`.
    pub fn between(at: Lsn, change: u32) -> ChangeOffset {
        ChangeOffset(at.0.wrapping_sub(u64::from(change)))
    }

    /// The lsn of the commit that raised the change counter to `change`.
    pub fn lsn(self, change: u32) -> Lsn {
        Lsn(u64::from(change).wrapping_add(self.0))
    }
}

impl Slot {
    /// A slot of `partition` with nothing known yet.
    pub fn new(partition: PartitionId) -> Slot {
        Slot {
            partition: partition.0,
            ..Slot::default()
        }
    }

    /// Where slot `index` (0 = first after the header) begins in the file.
    pub fn offset(index: u64) -> u64 {
        (index + 1) * SLOT_LEN as u64
    }

    /// The slot's bytes.
    pub fn encode(&self) -> [u8; SLOT_LEN] {
        let words = [
            self.partition,
            self.epoch.0,
            self.consumed.0,
            self.applied_best.0,
            self.durable_best.0,
            self.change_offset.0,
            self.updated_ns,
            0,
        ];
        pack(words)
    }

    /// The slot in `bytes`; `None` if it is free.
    pub fn decode(bytes: &[u8; SLOT_LEN]) -> Option<Slot> {
        let [
            partition,
            epoch,
            consumed,
            applied,
            durable,
            offset,
            updated_ns,
            _,
        ] = unpack(bytes);
        (partition != 0).then_some(Slot {
            partition,
            epoch: Epoch(epoch),
            consumed: Lsn(consumed),
            applied_best: Lsn(applied),
            durable_best: Lsn(durable),
            change_offset: ChangeOffset(offset),
            updated_ns,
        })
    }
}

/// The header of a file with `slots` slots after it.
pub fn encode_header(slots: u64) -> [u8; SLOT_LEN] {
    pack([u64::from_le_bytes(MAGIC), slots, 0, 0, 0, 0, 0, 0])
}

/// How many slots follow the header; `None` if these bytes are not one.
pub fn decode_header(bytes: &[u8; SLOT_LEN]) -> Option<u64> {
    let [magic, slots, ..] = unpack(bytes);
    (magic.to_le_bytes() == MAGIC).then_some(slots)
}

fn pack(words: [u64; 8]) -> [u8; SLOT_LEN] {
    let mut bytes = [0; SLOT_LEN];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn unpack(bytes: &[u8; SLOT_LEN]) -> [u64; 8] {
    let mut words = [0; 8];
    for (word, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut le = [0; 8];
        le.copy_from_slice(from);
        *word = u64::from_le_bytes(le);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_survives_the_file() {
        let slot = Slot {
            partition: 0x1122_3344_5566_7788,
            epoch: Epoch(3),
            consumed: Lsn(100),
            applied_best: Lsn(99),
            durable_best: Lsn(98),
            change_offset: ChangeOffset::between(Lsn(100), 40),
            updated_ns: 7,
        };
        let bytes = slot.encode();
        assert_eq!(bytes[..8], 0x1122_3344_5566_7788u64.to_le_bytes());
        assert_eq!(bytes[32..40], 98u64.to_le_bytes());
        assert_eq!(Slot::decode(&bytes), Some(slot));
    }

    #[test]
    fn a_free_slot_is_nobodys() {
        assert_eq!(Slot::decode(&[0; SLOT_LEN]), None);
    }

    #[test]
    fn only_this_layout_is_read() {
        assert_eq!(decode_header(&encode_header(24)), Some(24));
        let mut later = encode_header(24);
        later[7] = 2;
        assert_eq!(decode_header(&later), None);
    }

    #[test]
    fn the_offset_holds_even_when_the_change_counter_is_ahead_of_the_lsn() {
        let offset = ChangeOffset::between(Lsn(1), 5000);
        assert_eq!(offset.lsn(5003), Lsn(4));
    }
}
