//! The hash of every page of a partition at one position, and their digest.

use wal::Digest;
use wal::digest::PageHash;

/// Hashes of pages `1..=page_count`, rolling.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    hashes: Vec<PageHash>,
    digest: Digest,
}

impl Table {
    /// The table of these hashes, page 1 first.
    pub fn new(hashes: Vec<PageHash>) -> Table {
        let digest = Digest::of(&hashes);
        Table { hashes, digest }
    }

    pub fn hashes(&self) -> &[PageHash] {
        &self.hashes
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn page_count(&self) -> u32 {
        self.hashes.len() as u32
    }

    /// The hash of `page`; `ABSENT` beyond the end.
    pub fn get(&self, page: u32) -> PageHash {
        let index = (page as usize).wrapping_sub(1);
        self.hashes.get(index).copied().unwrap_or(PageHash::ABSENT)
    }

    pub fn set(&mut self, page: u32, hash: PageHash) {
        let old = &mut self.hashes[page as usize - 1];
        self.digest = self.digest.replace(*old, hash);
        *old = hash;
    }

    /// Forgets pages beyond `page_count`, or makes room for new ones.
    pub fn resize(&mut self, page_count: u32) {
        let keep = (page_count as usize).min(self.hashes.len());
        for gone in &self.hashes[keep..] {
            self.digest = self.digest.replace(*gone, PageHash::ABSENT);
        }
        self.hashes.resize(page_count as usize, PageHash::ABSENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinking_and_growing_back_restores_the_digest() {
        let hashes: Vec<PageHash> = (1..=5).map(|n| PageHash::of(n, &[n as u8; 512])).collect();
        let mut table = Table::new(hashes.clone());
        let whole = table.digest();
        table.resize(3);
        assert_eq!(table.digest(), Digest::of(&hashes[..3]));
        table.resize(5);
        table.set(4, hashes[3]);
        table.set(5, hashes[4]);
        assert_eq!(table.digest(), whole);
    }
}
