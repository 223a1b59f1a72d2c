//! The order in which changes were placed into the log, while they are not acknowledged yet.
//!
//! Whoever appends holds the lock of [`Order`] from before the append until the log has placed his
//! records, and no longer: not while they are written. So a relocation, which looks at the
//! directory and at what is under way and then appends, knows that no change of its keys comes
//! between: of one key the last record in the log is the truth, relocated or not.

use std::collections::{BTreeSet, HashMap};

use wal::Lsn;
use xxhash_rust::xxh3::xxh3_64;

/// What is on its way into the log.
#[derive(Debug, Default)]
pub struct Order {
    entered: u64,
    /// Where the batches begin; two may begin at one place, if the first one failed.
    batches: BTreeSet<(Lsn, u64)>,
    /// How many changes are under way, by the hash of the key.
    keys: HashMap<u64, u32>,
}

/// A batch on its way; has to leave, whatever becomes of it.
#[derive(Debug)]
pub struct Ticket {
    batch: (Lsn, u64),
    keys: Vec<u64>,
}

impl Order {
    /// A batch was placed at `lsn`.
    pub fn enter<'a>(&mut self, lsn: Lsn, keys: impl Iterator<Item = &'a [u8]>) -> Ticket {
        self.entered += 1;
        let batch = (lsn, self.entered);
        self.batches.insert(batch);
        let keys: Vec<u64> = keys.map(xxh3_64).collect();
        for key in &keys {
            *self.keys.entry(*key).or_default() += 1;
        }
        Ticket { batch, keys }
    }

    /// The directory knows what became of the batch.
    pub fn leave(&mut self, ticket: Ticket) {
        self.batches.remove(&ticket.batch);
        for key in ticket.keys {
            if let Some(count) = self.keys.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.keys.remove(&key);
                }
            }
        }
    }

    /// Nothing that the directory does not know yet lies below.
    pub fn oldest(&self) -> Lsn {
        self.batches.first().map_or(Lsn(u64::MAX), |(lsn, _)| *lsn)
    }

    /// A change of this key, or of one that looks like it, is under way.
    pub fn has(&self, key: &[u8]) -> bool {
        self.keys.contains_key(&xxh3_64(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_under_way_until_the_last_batch_with_it_has_left() {
        let mut order = Order::default();
        let one = order.enter(Lsn(64), [&b"a"[..], b"b", b"a"].into_iter());
        let two = order.enter(Lsn(64), [&b"a"[..]].into_iter());
        let three = order.enter(Lsn(128), [].into_iter());
        assert!(order.has(b"a") && order.has(b"b") && !order.has(b"c"));
        order.leave(one);
        assert!(order.has(b"a") && !order.has(b"b"));
        assert_eq!(order.oldest(), Lsn(64));
        order.leave(two);
        assert!(!order.has(b"a"));
        assert_eq!(order.oldest(), Lsn(128));
        order.leave(three);
        assert_eq!(order.oldest(), Lsn(u64::MAX));
    }
}
