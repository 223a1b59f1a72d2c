//! Where in a change log: sequence numbers, fencing epochs and positions.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use crate::digest::Digest;

/// Sequence number of a change log; for SQLite the count of transactions consumed.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
)]
pub struct Lsn(pub u64);

impl Lsn {
    /// This sequence number, `count` changes later.
    pub fn after(self, count: u64) -> Lsn {
        Lsn(self
            .0
            .checked_add(count)
            .expect("a 64-bit change count does not overflow"))
    }
}

/// Fencing token: grows at each change of owner, never shrinks.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
)]
pub struct Epoch(pub u64);

/// A point in a partition's history, with the digest of the whole partition there.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Position {
    pub epoch: Epoch,
    pub lsn: Lsn,
    pub digest: Digest,
}

/// The changes after `from` up to and including `to`.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LsnRange {
    pub from: Lsn,
    pub to: Lsn,
}

impl LsnRange {
    /// A range that does not run backwards; `None` otherwise.
    pub fn new(from: Lsn, to: Lsn) -> Option<LsnRange> {
        (from <= to).then_some(LsnRange { from, to })
    }

    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    pub fn changes(&self) -> u64 {
        self.to.0 - self.from.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.epoch, self.lsn, self.digest)
    }
}
