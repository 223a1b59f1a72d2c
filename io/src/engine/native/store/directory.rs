//! The key directory: every key and where its value lies, in memory. No files here.
//!
//! Threads come back from the log in any order, so a change is applied only if it is newer in the
//! log than what the directory knows of its key. A key that was deleted has no entry; a grave says
//! where, as long as a change that is older may still come.
//!
//! Memory: an entry is 32 bytes, 24 for the key and 8 for the [`Place`], and one byte of the table;
//! tables are between 7/16 and 7/8 full, so 38 to 75 bytes a key. Keys of up to 22 bytes lie in
//! the entry; longer ones take an allocation of their own besides.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use wal::Lsn;
use xxhash_rust::xxh3::xxh3_64;

use super::place::Place;

/// Parts that are locked on their own.
const SHARDS: usize = 16;
const SHORT_MAX: usize = 22;

/// A key: in place if it is short.
#[derive(Clone, Debug)]
enum Key {
    Short(u8, [u8; SHORT_MAX]),
    Long(Box<[u8]>),
}

impl Key {
    fn new(key: &[u8]) -> Key {
        let mut short = [0; SHORT_MAX];
        match short.get_mut(..key.len()) {
            Some(place) => {
                place.copy_from_slice(key);
                Key::Short(key.len() as u8, short)
            }
            None => Key::Long(key.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Key::Short(len, bytes) => &bytes[..usize::from(*len)],
            Key::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

/// Keys and places, for many threads.
#[derive(Debug)]
pub struct Directory {
    shards: [RwLock<Shard>; SHARDS],
    segment_bytes: u64,
}

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<Key, Place>,
    /// Where keys were deleted, while something older may come.
    graves: HashMap<Key, Lsn>,
    /// Bytes of live records by segment.
    live: BTreeMap<u64, u64>,
}

impl Directory {
    pub fn new(segment_bytes: u32) -> Directory {
        Directory {
            shards: Default::default(),
            segment_bytes: u64::from(segment_bytes),
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<Place> {
        self.read(key).places.get(key).copied()
    }

    /// Tells the directory of an acknowledged put. Nothing that may still come is older than
    /// `oldest`.
    pub fn put(&self, key: &[u8], place: Place, oldest: Lsn) {
        let mut shard = self.write(key);
        shard.bury(oldest);
        let buried = shard.graves.get(key).is_some_and(|at| *at > place.lsn());
        let known = shard.places.get(key).copied();
        if buried || known.is_some_and(|known| known >= place) {
            return;
        }
        shard.graves.remove(key);
        shard.count(place, self.segment_bytes, 1);
        match known {
            Some(known) => {
                shard.count(known, self.segment_bytes, -1);
                *shard.places.get_mut(key).expect("known") = place;
            }
            None => {
                shard.places.insert(Key::new(key), place);
            }
        }
    }

    /// Tells the directory of an acknowledged delete at `at`; `oldest` as in [`Directory::put`].
    pub fn delete(&self, key: &[u8], at: Lsn, oldest: Lsn) {
        let mut shard = self.write(key);
        shard.bury(oldest);
        if let Some(known) = shard.places.get(key).copied() {
            if known.lsn() > at {
                return;
            }
            shard.places.remove(key);
            shard.count(known, self.segment_bytes, -1);
        }
        if oldest < at {
            let grave = shard.graves.entry(Key::new(key)).or_insert(at);
            *grave = at.max(*grave);
        }
    }

    pub fn count(&self) -> usize {
        self.shards().map(|shard| shard.places.len()).sum()
    }

    /// All keys, in no order; each as it was when its part of the directory was looked at.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys = Vec::with_capacity(self.count());
        for shard in self.shards() {
            keys.extend(shard.places.keys().map(|key| key.bytes().to_vec()));
        }
        keys
    }

    /// Bytes of live records in segment `number`.
    pub fn live_in(&self, number: u64) -> u64 {
        let of = |shard: RwLockReadGuard<Shard>| shard.live.get(&number).copied().unwrap_or(0);
        self.shards().map(of).sum()
    }

    /// Bytes of live records.
    pub fn live(&self) -> u64 {
        self.shards()
            .map(|shard| shard.live.values().sum::<u64>())
            .sum()
    }

    fn shards(&self) -> impl Iterator<Item = RwLockReadGuard<'_, Shard>> {
        let shards = self.shards.iter();
        shards.map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn shard(&self, key: &[u8]) -> &RwLock<Shard> {
        &self.shards[(xxh3_64(key) as usize) % SHARDS]
    }

    fn read(&self, key: &[u8]) -> RwLockReadGuard<'_, Shard> {
        let shard = self.shard(key).read();
        shard.unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &[u8]) -> RwLockWriteGuard<'_, Shard> {
        let shard = self.shard(key).write();
        shard.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// Forgets graves that nothing older can come for.
    fn bury(&mut self, oldest: Lsn) {
        if !self.graves.is_empty() {
            self.graves.retain(|_, at| *at > oldest);
        }
    }

    /// A record at `place` became live, or is not any more.
    fn count(&mut self, place: Place, segment_bytes: u64, sign: i64) {
        let number = place.lsn().0 / segment_bytes;
        let bytes = self.live.entry(number).or_default();
        let change = place.len_max() as i64 * sign;
        *bytes = bytes.checked_add_signed(change).expect("counted once");
        if *bytes == 0 {
            self.live.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_is_as_small_as_it_says() {
        assert_eq!(size_of::<(Key, Place)>(), 32);
    }

    proptest! {
        /// Changes come in any order, each once; nothing is older than the first that is missing.
        #[test]
        fn the_last_change_in_the_log_wins_in_whatever_order_they_come(
            changes in prop::collection::vec((0u8..4, any::<bool>(), 0usize..40), 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 40),
        ) {
            let directory = Directory::new(256);
            let at = |index: usize| Lsn(4096 + index as u64 * 64);
            let mut left: Vec<usize> = (0..changes.len()).collect();
            for pick in order {
                if left.is_empty() {
                    break;
                }
                let oldest = at(left[0]);
                let index = left.remove(pick.index(left.len()));
                let (key, is_put, len) = changes[index];
                // The longest key is not in place.
                let key = vec![key; 1 + usize::from(key) * 10];
                match is_put {
                    true => directory.put(&key, Place::new(at(index), len), oldest),
                    false => directory.delete(&key, at(index), oldest),
                }
            }
            prop_assume!(left.is_empty());
            let mut model = BTreeMap::new();
            for (index, (key, is_put, len)) in changes.iter().enumerate() {
                let key = vec![*key; 1 + usize::from(*key) * 10];
                model.remove(&key);
                if *is_put {
                    model.insert(key, Place::new(at(index), *len));
                }
            }
            let mut keys = directory.keys();
            keys.sort();
            prop_assert_eq!(keys, model.keys().cloned().collect::<Vec<_>>());
            prop_assert_eq!(directory.count(), model.len());
            for (key, place) in &model {
                prop_assert_eq!(directory.get(key), Some(*place));
            }
            let live: u64 = model.values().map(|place| place.len_max() as u64).sum();
            prop_assert_eq!(directory.live(), live);
            let by_segment: u64 = (0..100).map(|number| directory.live_in(number)).sum();
            prop_assert_eq!(by_segment, live);
        }
    }
}
