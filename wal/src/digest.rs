//! The order-free rolling checksum of a whole partition.
//!
//! A digest is the XOR over all pages of a 64-bit hash of (page number, page bytes). Replacing a
//! page costs two XORs, whatever the size of the partition, and two copies that applied the same
//! changes in any grouping agree. A page that does not exist contributes nothing; SQLite's lock
//! page is never hashed because its bytes are not part of the database.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Digest of a whole partition.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Digest(pub u64);

/// Hash of one page at its place; never 0, so that 0 can mean "no page".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PageHash(pub u64);

impl PageHash {
    /// The hash of no page.
    pub const ABSENT: PageHash = PageHash(0);

    /// Hash of `bytes` as page number `page` (1-based).
    pub fn of(page: u32, bytes: &[u8]) -> PageHash {
        PageHash(xxh3_64_with_seed(bytes, u64::from(page)).max(1))
    }
}

impl Digest {
    /// The digest after a page's hash changed from `old` to `new`.
    #[must_use]
    pub fn replace(self, old: PageHash, new: PageHash) -> Digest {
        Digest(self.0 ^ old.0 ^ new.0)
    }

    /// The digest of a table of page hashes, page 1 first.
    pub fn of(hashes: &[PageHash]) -> Digest {
        hashes.iter().fold(Digest(0), |digest, hash| {
            digest.replace(PageHash::ABSENT, *hash)
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_changes_does_not_matter() {
        let pages: Vec<PageHash> = (1..=9).map(|n| PageHash::of(n, &[n as u8; 512])).collect();
        let whole = Digest::of(&pages);
        let backwards = pages
            .iter()
            .rev()
            .fold(Digest(0), |d, h| d.replace(PageHash::ABSENT, *h));
        assert_eq!(whole, backwards);
    }

    #[test]
    fn the_same_bytes_at_two_places_do_not_cancel() {
        let one = PageHash::of(1, &[7; 512]);
        let two = PageHash::of(2, &[7; 512]);
        assert_ne!(Digest::of(&[one, two]), Digest(0));
    }
}
