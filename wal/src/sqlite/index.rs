//! The `-shm` file's first bytes: the WAL-index header, twice, the marks and the lock bytes.
//!
//! All words are in this machine's byte order (WAL-mode file format, section 2.1).

use super::checksum::{Checksum, WordOrder, checksum};
use super::is_page_size;
use super::log::{Salts, WAL_VERSION};
use crate::error::Error;

/// Bytes of one copy of the header (WAL-mode file format, section 2.1.1).
pub const INDEX_HEADER_LEN: usize = 48;
/// Where the second copy lies: a writer fills in the second copy first, a reader takes the first
/// copy first and wants both equal.
pub const SECOND_HEADER_AT: usize = 48;
/// `nBackfill`: frames already copied into the database (section 2.1.2).
pub const BACKFILL_AT: usize = 96;
/// `aReadMark[5]`: how far readers of each slot look (section 2.1.2).
pub const READ_MARKS_AT: usize = 100;
/// How many reader slots there are.
pub const READ_MARKS: usize = 5;
/// The value of a slot that no reader uses.
pub const READ_MARK_UNUSED: u32 = 0xffff_ffff;
/// First of the eight bytes that locks lie on; never read or written (section 2.3).
pub const LOCKS_AT: usize = 120;
/// `nBackfillAttempted`: frames that a checkpoint may have begun to copy (section 2.1.2).
pub const BACKFILL_ATTEMPTED_AT: usize = 128;
/// Where page numbers begin in the first region.
pub const INDEX_PREFIX_LEN: usize = 136;

/// Held by the one writer (section 2.3.1).
pub const WRITE_LOCK: u64 = 120;
/// Held by the one checkpointer.
pub const CHECKPOINT_LOCK: u64 = 121;
/// Held while the index is rebuilt.
pub const RECOVER_LOCK: u64 = 122;
/// First of the five reader locks.
pub const READ_LOCKS: u64 = 123;
/// The "dead-man switch": held shared by every connection; whoever gets it alone starts afresh.
pub const DEAD_MAN_SWITCH_LOCK: u64 = 128;

const WHAT: &str = "WAL-index header";

/// The lock byte of reader slot `slot`, below [`READ_MARKS`].
pub fn read_lock(slot: usize) -> u64 {
    assert!(slot < READ_MARKS, "the WAL-index has five reader slots");
    READ_LOCKS + slot as u64
}

/// One copy of the WAL-index header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IndexHeader {
    /// `iChange`: grows by one with each commit.
    pub change: u32,
    /// Byte order of the WAL's sums.
    pub order: WordOrder,
    /// 0 while the log is empty and was never written by this index's connections.
    pub page_size: u32,
    /// `mxFrame`: the last frame that is part of a commit.
    pub max_frame: u32,
    /// `nPage`: pages of the database at that commit.
    pub page_count: u32,
    /// The chain's sums at that frame.
    pub frame_checksum: Checksum,
    pub salts: Salts,
}

impl IndexHeader {
    /// Reads both copies out of the first 96 bytes; `None` while they differ, or are not valid:
    /// a writer is at work or the index must be recovered (section 2.1.1).
    pub fn parse_pair(bytes: &[u8]) -> Option<IndexHeader> {
        let first = bytes.get(..INDEX_HEADER_LEN)?;
        let second = bytes.get(SECOND_HEADER_AT..SECOND_HEADER_AT + INDEX_HEADER_LEN)?;
        if first != second {
            return None;
        }
        IndexHeader::parse(first).ok()
    }

    /// Reads one copy and verifies its checksum.
    pub fn parse(bytes: &[u8]) -> Result<IndexHeader, Error> {
        let Some(head) = bytes.first_chunk::<INDEX_HEADER_LEN>() else {
            let (have, need) = (bytes.len(), INDEX_HEADER_LEN);
            return Err(Error::Short {
                what: WHAT,
                have,
                need,
            });
        };
        let stored = Checksum([ne(head, 40), ne(head, 44)]);
        if checksum(WordOrder::NATIVE, Checksum::default(), &head[..40]) != stored {
            return Err(Error::Checksum { what: WHAT });
        }
        if ne(head, 0) != WAL_VERSION {
            let found = ne(head, 0);
            return Err(Error::Version {
                what: WHAT,
                found,
                known: WAL_VERSION,
            });
        }
        if head[12] == 0 {
            return Err(Error::Field {
                what: WHAT,
                field: "isInit",
                value: 0,
            });
        }
        // The value 1 stands for 65,536, which does not fit 16 bits.
        let stored_size = u32::from(u16::from_ne_bytes([head[14], head[15]]));
        let page_size = (stored_size & 0xfe00) + ((stored_size & 1) << 16);
        // An index recovered from an absent or empty WAL knows no page size yet.
        let none_yet = page_size == 0 && ne(head, 16) == 0;
        if !is_page_size(page_size) && !none_yet {
            let value = u64::from(stored_size);
            return Err(Error::Field {
                what: WHAT,
                field: "szPage",
                value,
            });
        }
        Ok(IndexHeader {
            change: ne(head, 8),
            order: if head[13] == 0 {
                WordOrder::Little
            } else {
                WordOrder::Big
            },
            page_size,
            max_frame: ne(head, 16),
            page_count: ne(head, 20),
            frame_checksum: Checksum([ne(head, 24), ne(head, 28)]),
            salts: Salts::read(&head[32..40]),
        })
    }

    /// One copy, with its checksum.
    pub fn encode(&self) -> [u8; INDEX_HEADER_LEN] {
        let mut out = [0; INDEX_HEADER_LEN];
        out[..4].copy_from_slice(&WAL_VERSION.to_ne_bytes());
        out[8..12].copy_from_slice(&self.change.to_ne_bytes());
        out[12] = 1;
        out[13] = u8::from(self.order == WordOrder::Big);
        let stored_size = (self.page_size & 0xfe00 | self.page_size >> 16) as u16;
        out[14..16].copy_from_slice(&stored_size.to_ne_bytes());
        out[16..20].copy_from_slice(&self.max_frame.to_ne_bytes());
        out[20..24].copy_from_slice(&self.page_count.to_ne_bytes());
        out[24..28].copy_from_slice(&self.frame_checksum.0[0].to_ne_bytes());
        out[28..32].copy_from_slice(&self.frame_checksum.0[1].to_ne_bytes());
        self.salts.write(&mut out[32..40]);
        let own = checksum(WordOrder::NATIVE, Checksum::default(), &out[..40]);
        out[40..44].copy_from_slice(&own.0[0].to_ne_bytes());
        out[44..48].copy_from_slice(&own.0[1].to_ne_bytes());
        out
    }
}

fn ne(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
