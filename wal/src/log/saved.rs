//! What of the control page survives a power cut: blocks with a number and a checksum, in sectors
//! of their own, two of each kind, written in turn. The newest whole one of a kind counts.
//!
//! Each kind has one writer, so nobody ever waits for anybody: the appender says which run this
//! is, the sidecar says whose log it is. A process that is stopped in the middle stops no other.

use super::group::u64_at;
use crate::lsn::{Epoch, Lsn};

/// Bytes of one block.
pub const LEN: usize = 64;

const WORDS: usize = 7;
const CRC_AT: usize = WORDS * 8;

/// What a block says, as numbers.
type Words = [u64; WORDS];

/// A kind of block.
pub trait Block: Sized + Copy {
    /// Where its two places are in the control page.
    const AT: [usize; 2];

    fn number(&self) -> u64;
    fn words(&self) -> Words;
    /// `None` if the numbers contradict each other.
    fn from_words(words: Words) -> Option<Self>;

    /// Where the block of this number lies.
    fn place(&self) -> usize {
        Self::AT[(self.number() % 2) as usize]
    }

    fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        for (place, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(self.words()) {
            *place = word.to_le_bytes();
        }
        let crc = u64::from(crc32fast::hash(&out[..CRC_AT]));
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` if the block is torn, damaged or was never written.
    fn decode(bytes: &[u8; LEN]) -> Option<Self> {
        if u64_at(bytes, CRC_AT) != u64::from(crc32fast::hash(&bytes[..CRC_AT])) {
            return None;
        }
        let words = std::array::from_fn(|index| u64_at(bytes, index * 8));
        Self::from_words(words).filter(|block| block.number() > 0)
    }
}

/// The newest block that is whole, of the two places that `read` is asked for.
pub fn newest<B: Block>(read: impl Fn(usize) -> [u8; LEN]) -> Option<B> {
    let blocks = B::AT.map(|at| B::decode(&read(at))).into_iter().flatten();
    blocks.max_by_key(B::number)
}

/// Which opening of the log writes it, and from where; the appender's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Counts the blocks written; the higher one is the newer.
    pub number: u64,
    /// Counts the openings.
    pub run: u32,
    /// Under which epoch it writes.
    pub epoch: Epoch,
    /// Where it began: groups of earlier runs from here on are leftovers.
    pub began: Lsn,
    /// The log ends here or later, unless it is sealed.
    pub lsn: Lsn,
    /// Where the oldest group that is kept lies.
    pub first: Lsn,
}

impl Block for Run {
    const AT: [usize; 2] = [512, 1024];

    fn number(&self) -> u64 {
        self.number
    }

    fn words(&self) -> Words {
        let run = u64::from(self.run);
        let (began, lsn, first) = (self.began.0, self.lsn.0, self.first.0);
        [self.number, run, self.epoch.0, began, lsn, first, 0]
    }

    fn from_words([number, run, epoch, began, lsn, first, zero]: Words) -> Option<Run> {
        let run = Run {
            number,
            run: u32::try_from(run).ok()?,
            epoch: Epoch(epoch),
            began: Lsn(began),
            lsn: Lsn(lsn),
            first: Lsn(first),
        };
        (began <= lsn && first <= lsn && zero == 0).then_some(run)
    }
}

/// Whose log it is; the sidecar's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ownership {
    /// Counts the blocks written; the higher one is the newer.
    pub number: u64,
    /// Only groups of this epoch count from `lsn` on.
    pub epoch: Epoch,
    /// Nobody may append, and the log ends at `lsn`.
    pub sealed: bool,
    /// Where the log stood when this was written.
    pub lsn: Lsn,
}

impl Block for Ownership {
    const AT: [usize; 2] = [1536, 2048];

    fn number(&self) -> u64 {
        self.number
    }

    fn words(&self) -> Words {
        let sealed = u64::from(self.sealed);
        [self.number, self.epoch.0, sealed, self.lsn.0, 0, 0, 0]
    }

    fn from_words([number, epoch, sealed, lsn, zeros @ ..]: Words) -> Option<Ownership> {
        let ownership = Ownership {
            number,
            epoch: Epoch(epoch),
            sealed: sealed == 1,
            lsn: Lsn(lsn),
        };
        (sealed <= 1 && zeros == [0; 3]).then_some(ownership)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn runs()(
            number in 1u64..,
            run in any::<u32>(),
            epoch in any::<u64>(),
            first in 0u64..1 << 40,
            began in 0u64..1 << 40,
            more in 0u64..1 << 40,
        ) -> Run {
            let (epoch, lsn) = (Epoch(epoch), Lsn(first.max(began) + more));
            Run { number, run, epoch, began: Lsn(began), lsn, first: Lsn(first) }
        }
    }

    proptest! {
        #[test]
        fn what_is_saved_is_read(run in runs(), sealed in any::<bool>()) {
            prop_assert_eq!(Run::decode(&run.encode()), Some(run));
            let Run { number, epoch, lsn, .. } = run;
            let ownership = Ownership { number, epoch, sealed, lsn };
            prop_assert_eq!(Ownership::decode(&ownership.encode()), Some(ownership));
        }

        #[test]
        fn a_flipped_bit_makes_a_block_nothing(run in runs(), at in 0..LEN, bit in 0u8..8) {
            let mut bytes = run.encode();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Run::decode(&bytes), None);
        }
    }
}
