//! A group: the unit that is written, checked and acknowledged. Header, records, zeros to the end
//! of the block.
//!
//! The group's checksum covers everything after itself, so a group is there whole or not at all.
//! Each record has a checksum of its own besides, for engines that read single records by position.
//! Both cover the position: what an earlier use of the file left behind proves nothing.

use crc32fast::Hasher;
use rkyv::util::AlignedVec;

use super::BLOCK;
use crate::lsn::{Epoch, Lsn};

/// Bytes of the header of a group.
pub const HEADER_LEN: usize = 64;
/// Bytes of the head of a record.
pub const RECORD_HEAD: usize = 16;
/// First bytes of every group.
pub const MAGIC: [u8; 4] = *b"FSHG";
/// Records begin at multiples of this.
pub const ALIGN: usize = 8;

const CRC_AT: usize = 4;
const CRC_FROM: usize = 8;

/// Bytes for direct I/O: aligned as devices ask for it.
pub type Bytes = AlignedVec<BLOCK>;

/// What the engine says a record is; Foreshadow does not look at it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Kind(pub u16);

/// One record of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    pub lsn: Lsn,
    pub kind: Kind,
    pub payload: &'a [u8],
}

/// The fields of a group's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Where the group begins.
    pub lsn: Lsn,
    /// Where the group before it ended: at `lsn`, or at the end of the segment before.
    pub after: Lsn,
    /// What was committed when the group was written.
    pub committed: Lsn,
    pub epoch: Epoch,
    /// Which opening of the log wrote it.
    pub run: u32,
    /// Bytes of header and records.
    pub len: u32,
    pub records: u32,
}

impl Header {
    /// Where the next group begins, unless it does not fit this segment.
    pub fn end(&self) -> Lsn {
        self.lsn.after(padded(self.len as usize) as u64)
    }

    /// The header that `bytes` begin with, without its checksum; `None` if they are no header.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let head = bytes.first_chunk::<HEADER_LEN>()?;
        if head[..4] != MAGIC {
            return None;
        }
        let header = Header {
            lsn: Lsn(u64_at(head, 8)),
            after: Lsn(u64_at(head, 16)),
            committed: Lsn(u64_at(head, 24)),
            epoch: Epoch(u64_at(head, 32)),
            run: u32_at(head, 40),
            len: u32_at(head, 44),
            records: u32_at(head, 48),
        };
        let rest_is_zero = head[52..].iter().all(|byte| *byte == 0);
        let len = header.len as usize;
        (rest_is_zero && len >= HEADER_LEN && len.is_multiple_of(ALIGN)).then_some(header)
    }

    fn write(&self, out: &mut [u8]) {
        out[..4].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.lsn.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.after.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.committed.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[40..44].copy_from_slice(&self.run.to_le_bytes());
        out[44..48].copy_from_slice(&self.len.to_le_bytes());
        out[48..52].copy_from_slice(&self.records.to_le_bytes());
        out[52..HEADER_LEN].fill(0);
    }
}

/// `len` rounded up to whole blocks.
pub const fn padded(len: usize) -> usize {
    len.next_multiple_of(BLOCK)
}

/// Bytes that a record of `payload` takes.
pub const fn record_len(payload: usize) -> usize {
    RECORD_HEAD + payload.next_multiple_of(ALIGN)
}

/// Bytes that a group with the records of these payloads takes, without padding.
pub fn group_len<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> usize {
    HEADER_LEN + payloads.map(|p| record_len(p.len())).sum::<usize>()
}

/// A group that is being filled.
pub struct Builder {
    bytes: Bytes,
    lsn: Lsn,
    records: u32,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Builder({} records at {:?})", self.records, self.lsn)
    }
}

impl Builder {
    /// An empty group at `lsn`, in the memory of an earlier one.
    pub fn new(mut bytes: Bytes, lsn: Lsn) -> Builder {
        bytes.clear();
        bytes.resize(HEADER_LEN, 0);
        Builder {
            bytes,
            lsn,
            records: 0,
        }
    }

    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Bytes so far, without padding.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn records(&self) -> u32 {
        self.records
    }

    /// Appends a record and says where it lies.
    pub fn push(&mut self, kind: Kind, payload: &[u8]) -> Lsn {
        let at = self.bytes.len();
        let lsn = self.lsn.after(at as u64);
        let len = u32::try_from(payload.len()).expect("bounded by the segment's length");
        let crc = record_crc(lsn, len, kind, payload);
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes.extend_from_slice(&kind.0.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 6]);
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(at + record_len(payload.len()), 0);
        self.records += 1;
        lsn
    }

    /// Fills in header and checksum and pads to whole blocks.
    pub fn finish(mut self, after: Lsn, committed: Lsn, epoch: Epoch, run: u32) -> (Header, Bytes) {
        let header = Header {
            lsn: self.lsn,
            after,
            committed,
            epoch,
            run,
            len: u32::try_from(self.bytes.len()).expect("bounded by the segment's length"),
            records: self.records,
        };
        header.write(&mut self.bytes);
        let crc = crc32fast::hash(&self.bytes[CRC_FROM..]);
        self.bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_le_bytes());
        let whole = padded(self.bytes.len());
        self.bytes.resize(whole, 0);
        (header, self.bytes)
    }
}

/// The checksum of a group's bytes, header and records without padding, is right.
pub fn is_whole(bytes: &[u8]) -> bool {
    u32_at(bytes, CRC_AT) == crc32fast::hash(&bytes[CRC_FROM..])
}

/// The records of a group whose checksum is right. Ends early at what no writer wrote.
pub fn records<'a>(header: &Header, bytes: &'a [u8]) -> Records<'a> {
    Records {
        bytes,
        base: header.lsn,
        at: HEADER_LEN,
    }
}

/// Iterates over the records of one group.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    base: Lsn,
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let head = self.bytes.get(self.at..self.at + RECORD_HEAD)?;
        let len = u32_at(head, 0) as usize;
        let from = self.at + RECORD_HEAD;
        let payload = self.bytes.get(from..from.checked_add(len)?)?;
        let record = Record {
            lsn: self.base.after(self.at as u64),
            kind: Kind(u16::from_le_bytes([head[8], head[9]])),
            payload,
        };
        self.at += record_len(len);
        Some(record)
    }
}

/// How long the payload of the record is that begins with `head`, and its kind.
pub fn record_head(head: &[u8; RECORD_HEAD]) -> (u32, Kind) {
    (
        u32_at(head, 0),
        Kind(u16::from_le_bytes([head[8], head[9]])),
    )
}

/// `payload` is that of the record at `lsn` that begins with `head`.
pub fn record_is_whole(head: &[u8; RECORD_HEAD], lsn: Lsn, payload: &[u8]) -> bool {
    let (len, kind) = record_head(head);
    len as usize == payload.len() && u32_at(head, 4) == record_crc(lsn, len, kind, payload)
}

fn record_crc(lsn: Lsn, len: u32, kind: Kind, payload: &[u8]) -> u32 {
    let mut prefix = [0; 14];
    prefix[..8].copy_from_slice(&lsn.0.to_le_bytes());
    prefix[8..12].copy_from_slice(&len.to_le_bytes());
    prefix[12..].copy_from_slice(&kind.0.to_le_bytes());
    let mut crc = Hasher::new();
    crc.update(&prefix);
    crc.update(payload);
    crc.finalize()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn built(at: u64, payloads: &[Vec<u8>]) -> (Header, Bytes, Vec<Lsn>) {
        let mut builder = Builder::new(Bytes::new(), Lsn(at));
        let places = payloads
            .iter()
            .enumerate()
            .map(|(kind, payload)| builder.push(Kind(kind as u16), payload))
            .collect();
        let (header, bytes) = builder.finish(Lsn(at), Lsn(at), Epoch(3), 9);
        (header, bytes, places)
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(
            block in 1u64..1 << 40,
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40),
        ) {
            let (header, bytes, places) = built(block * BLOCK as u64, &payloads);
            prop_assert!(bytes.len().is_multiple_of(BLOCK));
            prop_assert_eq!(Header::read(&bytes), Some(header));
            let body = &bytes[..header.len as usize];
            prop_assert!(is_whole(body));
            prop_assert_eq!(group_len(payloads.iter().map(Vec::as_slice)), header.len as usize);
            let found: Vec<_> = records(&header, body).collect();
            prop_assert_eq!(found.len(), header.records as usize);
            for (index, record) in found.iter().enumerate() {
                prop_assert_eq!(record.payload, &payloads[index][..]);
                prop_assert_eq!((record.lsn, record.kind), (places[index], Kind(index as u16)));
                let at = (record.lsn.0 - header.lsn.0) as usize;
                let head = bytes[at..].first_chunk().expect("a head");
                prop_assert!(record_is_whole(head, record.lsn, record.payload));
                prop_assert!(!record_is_whole(head, record.lsn.after(8), record.payload));
            }
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..6),
            place in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let (header, mut bytes, _) = built(4096, &payloads);
            let at = place.index(header.len as usize);
            bytes[at] ^= 1 << bit;
            let seen = Header::read(&bytes).is_some_and(|read| {
                let body = bytes.get(..read.len as usize);
                body.is_some_and(is_whole) && read.lsn == header.lsn
            });
            prop_assert!(!seen, "bit {} of byte {}", bit, at);
        }
    }
}
