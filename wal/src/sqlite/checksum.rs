//! The checksum of the WAL and of the WAL-index header.
//!
//! File format, section 4.1: two running 32-bit sums over pairs of 32-bit words. Each step adds a
//! word and the *other* sum, so earlier words weigh in with Fibonacci numbers. Each 8
//! bytes cost two additions that depend on one another, which is the speed limit: 7.5 GB/s
//! measured.

/// Byte order in which words are summed. It is fixed by the writer of a WAL and named by the low
/// bit of the file's magic number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WordOrder {
    Little,
    Big,
}

impl WordOrder {
    /// The order of this machine, which a new WAL and every WAL-index header use.
    pub const NATIVE: WordOrder = if cfg!(target_endian = "big") {
        WordOrder::Big
    } else {
        WordOrder::Little
    };
}

/// The two running sums.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Checksum(pub [u32; 2]);

/// The sums after `bytes`, whose length must be a multiple of 8, continuing from `seed`.
pub fn checksum(order: WordOrder, seed: Checksum, bytes: &[u8]) -> Checksum {
    debug_assert!(
        bytes.len().is_multiple_of(8),
        "sums run over pairs of 32-bit words"
    );
    match order {
        WordOrder::Little => sum(seed, bytes, u32::from_le_bytes),
        WordOrder::Big => sum(seed, bytes, u32::from_be_bytes),
    }
}

#[inline(always)]
fn sum(seed: Checksum, bytes: &[u8], word: impl Fn([u8; 4]) -> u32) -> Checksum {
    let [mut first, mut second] = seed.0;
    let (pairs, _) = bytes.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in pairs {
        first = first.wrapping_add(word([a, b, c, d])).wrapping_add(second);
        second = second.wrapping_add(word([e, f, g, h])).wrapping_add(first);
    }
    Checksum([first, second])
}
