//! The `-wal` file: a 32-byte header, then frames of a 24-byte header and a page each.

use super::checksum::{Checksum, WordOrder, checksum};
use super::is_page_size;
use crate::error::Error;

/// Bytes of the WAL header (file format, section 4.1).
pub const WAL_HEADER_LEN: usize = 32;
/// Bytes in front of each page in the WAL (section 4.1).
pub const WAL_FRAME_HEADER_LEN: usize = 24;
/// The only version there has been (section 4.1).
pub const WAL_VERSION: u32 = 3_007_000;

/// The magic number without its low bit, which says how words are summed (section 4.1).
const MAGIC: u32 = 0x377f_0682;
const WAL: &str = "WAL header";
const FRAME: &str = "WAL frame header";

/// Two numbers, renewed at each restart, that tie frames to their header (section 4.1). Kept as
/// the file's big-endian words; the WAL-index stores the same eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Salts(pub [u32; 2]);

impl Salts {
    /// The salts after a restart: the first counts up, the second is random (section 4.4).
    #[must_use]
    pub fn restarted(self, random: u32) -> Salts {
        Salts([self.0[0].wrapping_add(1), random])
    }

    pub(super) fn read(bytes: &[u8]) -> Salts {
        Salts([be(bytes, 0), be(bytes, 4)])
    }

    pub(super) fn write(self, out: &mut [u8]) {
        out[..4].copy_from_slice(&self.0[0].to_be_bytes());
        out[4..8].copy_from_slice(&self.0[1].to_be_bytes());
    }
}

/// Where frame number `frame` (1-based) begins in the file; 0 names the header.
pub fn frame_offset(frame: u32, page_size: u32) -> u64 {
    let frame_len = WAL_FRAME_HEADER_LEN as u64 + u64::from(page_size);
    if frame == 0 {
        0
    } else {
        WAL_HEADER_LEN as u64 + u64::from(frame - 1) * frame_len
    }
}

/// The first 32 bytes of a WAL.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WalHeader {
    pub order: WordOrder,
    pub page_size: u32,
    /// How many times the WAL was restarted; for people.
    pub checkpoint_sequence: u32,
    pub salts: Salts,
    /// Sums over the first 24 bytes: the seed of the frames' chain.
    pub checksum: Checksum,
}

impl WalHeader {
    /// A header with its checksum.
    pub fn new(order: WordOrder, page_size: u32, sequence: u32, salts: Salts) -> WalHeader {
        let zero = Checksum::default();
        let mut header = WalHeader {
            order,
            page_size,
            checkpoint_sequence: sequence,
            salts,
            checksum: zero,
        };
        header.checksum = checksum(order, zero, &header.encode()[..24]);
        header
    }

    /// Reads and verifies the header, its checksum included.
    pub fn parse(bytes: &[u8]) -> Result<WalHeader, Error> {
        let Some(head) = bytes.first_chunk::<WAL_HEADER_LEN>() else {
            let (have, need) = (bytes.len(), WAL_HEADER_LEN);
            return Err(Error::Short {
                what: WAL,
                have,
                need,
            });
        };
        let order = match be(head, 0) {
            MAGIC => WordOrder::Little,
            magic if magic == MAGIC | 1 => WordOrder::Big,
            _ => return Err(Error::Magic { what: WAL }),
        };
        if be(head, 4) != WAL_VERSION {
            let found = be(head, 4);
            return Err(Error::Version {
                what: WAL,
                found,
                known: WAL_VERSION,
            });
        }
        let page_size = be(head, 8);
        if !is_page_size(page_size) {
            let value = u64::from(page_size);
            return Err(Error::Field {
                what: WAL,
                field: "page_size",
                value,
            });
        }
        let stored = Checksum([be(head, 24), be(head, 28)]);
        if checksum(order, Checksum::default(), &head[..24]) != stored {
            return Err(Error::Checksum { what: WAL });
        }
        Ok(WalHeader {
            order,
            page_size,
            checkpoint_sequence: be(head, 12),
            salts: Salts::read(&head[16..24]),
            checksum: stored,
        })
    }

    pub fn encode(&self) -> [u8; WAL_HEADER_LEN] {
        let mut out = [0; WAL_HEADER_LEN];
        let magic = MAGIC | u32::from(self.order == WordOrder::Big);
        out[..4].copy_from_slice(&magic.to_be_bytes());
        out[4..8].copy_from_slice(&WAL_VERSION.to_be_bytes());
        out[8..12].copy_from_slice(&self.page_size.to_be_bytes());
        out[12..16].copy_from_slice(&self.checkpoint_sequence.to_be_bytes());
        self.salts.write(&mut out[16..24]);
        out[24..28].copy_from_slice(&self.checksum.0[0].to_be_bytes());
        out[28..32].copy_from_slice(&self.checksum.0[1].to_be_bytes());
        out
    }
}

/// The 24 bytes in front of a page in the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WalFrameHeader {
    pub page: u32,
    /// Pages of the database after this commit; 0 in all frames but the last of a transaction.
    pub commit_pages: u32,
    pub salts: Salts,
    /// Sums over the WAL header, the first 8 bytes of every frame header and every page so far.
    pub checksum: Checksum,
}

impl WalFrameHeader {
    /// The header of the frame that follows one whose checksum is `seed` (the WAL header's for
    /// the first frame).
    pub fn new(
        header: &WalHeader,
        seed: Checksum,
        page: u32,
        commit_pages: u32,
        image: &[u8],
    ) -> WalFrameHeader {
        let zero = Checksum::default();
        let mut frame = WalFrameHeader {
            page,
            commit_pages,
            salts: header.salts,
            checksum: zero,
        };
        frame.checksum = frame.sum(header.order, seed, image);
        frame
    }

    /// Reads the fields; [`WalFrameHeader::holds`] says whether they may be believed.
    pub fn parse(bytes: &[u8]) -> Result<WalFrameHeader, Error> {
        let Some(head) = bytes.first_chunk::<WAL_FRAME_HEADER_LEN>() else {
            let (have, need) = (bytes.len(), WAL_FRAME_HEADER_LEN);
            return Err(Error::Short {
                what: FRAME,
                have,
                need,
            });
        };
        Ok(WalFrameHeader {
            page: be(head, 0),
            commit_pages: be(head, 4),
            salts: Salts::read(&head[8..16]),
            checksum: Checksum([be(head, 16), be(head, 20)]),
        })
    }

    /// Whether the frame belongs to `header`'s log and continues the chain from `seed` (section
    /// 4.1: salts equal, checksums equal; a page number of 0 is never valid).
    pub fn holds(&self, header: &WalHeader, seed: Checksum, image: &[u8]) -> bool {
        self.page != 0
            && self.salts == header.salts
            && self.sum(header.order, seed, image) == self.checksum
    }

    pub fn is_commit(&self) -> bool {
        self.commit_pages != 0
    }

    pub fn encode(&self) -> [u8; WAL_FRAME_HEADER_LEN] {
        let mut out = [0; WAL_FRAME_HEADER_LEN];
        out[..4].copy_from_slice(&self.page.to_be_bytes());
        out[4..8].copy_from_slice(&self.commit_pages.to_be_bytes());
        self.salts.write(&mut out[8..16]);
        out[16..20].copy_from_slice(&self.checksum.0[0].to_be_bytes());
        out[20..24].copy_from_slice(&self.checksum.0[1].to_be_bytes());
        out
    }

    fn sum(&self, order: WordOrder, seed: Checksum, image: &[u8]) -> Checksum {
        checksum(order, checksum(order, seed, &self.encode()[..8]), image)
    }
}

fn be(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
