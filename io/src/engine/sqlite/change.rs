//! What one or more consumed transactions changed: the last image of each page, and the image
//! before them.

use wal::Digest;
use wal::delta::PageEdit;
use wal::sqlite::{Checksum, Salts};

use crate::engine::change::{self, Changed};

/// How far a WAL was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    pub salts: Salts,
    /// The last frame read; 0 before the first.
    pub frame: u32,
    /// The chain's sums there; meaningless at frame 0, where the WAL header has them.
    pub checksum: Checksum,
    /// What `iChange` was, or must have been, there.
    pub change: u32,
    /// Commits since the last audit that may be repetitions of the one before, as SQLite writes
    /// them to fill a disk sector.
    pub(super) repeats: u32,
}

/// Transactions that were read and are yet to be consumed.
#[derive(Debug)]
pub struct Change {
    /// How many transactions; what the position's Lsn grows by. At least 1.
    pub commits: u64,
    pub page_count: u32,
    /// Whether this is the difference found by a scan, because transactions were missed.
    pub rescan: bool,
    pub(super) page_size: usize,
    pub(super) digest: Digest,
    pub(super) from: Mark,
    pub(super) to: Mark,
    pub(super) fenced: bool,
    /// Frames as they were read, then images from elsewhere.
    pub(super) bytes: Vec<u8>,
    pub(super) pages: Vec<Changed>,
    /// Page and newest frame of all that was read, for the page map.
    pub(super) frames: Vec<(u32, u32)>,
}

impl Change {
    /// The changed pages in ascending order.
    pub fn edits(&self) -> Vec<PageEdit<'_>> {
        change::edits(&self.pages, &self.bytes, self.page_size)
    }

    /// The digest of the whole partition after this change.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many pages differ.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }
}
