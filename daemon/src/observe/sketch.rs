//! Heavy hitters: the keys that are asked for most, out of any number, in bounded memory.
//!
//! Filtered space-saving (Homem and Carvalho, "Finding top-k elements in data streams", 2010) with
//! a count-min sketch (Cormode and Muthukrishnan, 2005; conservative update) as the filter. A key
//! that is *held* has a slot and is counted exactly from then on. A key that is not is counted in
//! the filter; when its estimate there exceeds the least weight of the held ones, it takes that
//! slot, and who had it goes back into the filter. At the end of a bin everything is halved, so
//! that what was asked for long ago makes room.
//!
//! What holds, with N the accesses in a bin and `width` the cells of a row ([`Sketch::width`]):
//!
//! 1. A held key's accesses in this bin lie in `count ..= count + error`. `error` is 0 for a key
//!    that was held when the bin began, and for every key until the slots are full.
//! 2. A key that is not held was accessed at most [`Sketch::floor`] times in this bin.
//! 3. With probability at least 1 - e^-4 (98 %), `error` is at most e / `width` times what passed
//!    the filter: the N of this bin that were of no held key, and half of the bin's before, and so
//!    on.
//!
//! The filter is made when the slots are full, and costs nothing before.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128;

/// Rows of the filter: each lowers the chance of a large error by e.
const ROWS: usize = 4;
/// Bytes of a slot beside its key: the item, its counts, and its place in the index.
const SLOT_BYTES: usize = 160;
/// Regions counted apart for one key, at most; what comes from more is counted without a region.
pub const REGIONS_MAX: usize = 8;
/// Bytes of one region's count.
const REGION_BYTES: usize = 24;
/// Bytes of a name on the heap, at most.
pub const NAME_BYTES_MAX: usize = 768;
/// Bytes of a slot with everything in it, at most.
pub const SLOT_BYTES_MAX: usize = SLOT_BYTES + NAME_BYTES_MAX + REGIONS_MAX * REGION_BYTES;

/// Names a region among those of the whole node.
pub type Region = u16;
/// What stands for no region, or for one too many.
pub const NOWHERE: Region = 0;

/// Accesses from one region in this bin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    pub region: Region,
    pub accesses: u64,
    pub bytes: u64,
}

/// A held key.
#[derive(Clone, Debug)]
pub struct Held<T> {
    pub item: T,
    hash: u128,
    size: usize,
    /// Accesses of this bin and, halved each time, of those before; at least the truth.
    weight: u64,
    /// What may have been missed of this bin, at most.
    error: u64,
    counts: Vec<Count>,
}

impl<T> Held<T> {
    /// Accesses in this bin since it is held.
    pub fn accesses(&self) -> u64 {
        self.counts.iter().map(|count| count.accesses).sum()
    }

    /// Accesses of this bin from before it was held, at most.
    pub fn error(&self) -> u64 {
        self.error
    }

    /// By region, in the order of their first access; regions that are silent now have zeros.
    pub fn counts(&self) -> &[Count] {
        &self.counts
    }

    fn bytes(&self) -> usize {
        SLOT_BYTES + self.size + self.counts.capacity() * REGION_BYTES
    }
}

/// How large a sketch may become: [`SLOT_BYTES_MAX`] for each held key, and the filter.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Keys held.
    pub held: usize,
    /// Bytes of the filter.
    pub filter_bytes: usize,
}

/// The keys that are asked for most.
#[derive(Clone, Debug)]
pub struct Sketch<T> {
    limits: Limits,
    slots: Vec<Held<T>>,
    index: BTreeMap<u128, u32>,
    filter: Vec<u32>,
    /// No held key weighs less, and no other key weighs more.
    floor: u64,
    /// Where the search for somebody who makes room goes on.
    hand: usize,
    bytes: usize,
}

impl<T> Sketch<T> {
    pub fn new(limits: Limits) -> Sketch<T> {
        assert!(limits.held > 0, "a sketch holds something");
        assert!(
            u32::try_from(limits.held).is_ok(),
            "slots are named in 32 bits"
        );
        Sketch {
            limits,
            slots: Vec::new(),
            index: BTreeMap::new(),
            filter: Vec::new(),
            floor: 0,
            hand: 0,
            bytes: 0,
        }
    }

    /// Counts one access. `name` tells items apart; `make` is called, and `size` are its bytes on
    /// the heap, when the item is held from now on.
    pub fn add(&mut self, name: &[u8], access: Count, size: usize, make: impl FnOnce() -> T) {
        debug_assert!(size <= NAME_BYTES_MAX, "checked where events are read");
        let hash = xxh3_128(name);
        if let Some(&slot) = self.index.get(&hash) {
            let held = &mut self.slots[slot as usize];
            let before = held.bytes();
            held.weight = held.weight.saturating_add(access.accesses);
            add_to(&mut held.counts, access);
            self.bytes = self.bytes - before + held.bytes();
            return;
        }
        let missed = self.estimate(hash);
        let weight = missed.saturating_add(access.accesses);
        let slot = match self.slots.len() < self.limits.held {
            true => None,
            false => match self.make_room(weight) {
                Some(slot) => Some(slot),
                None => return self.sift(hash, weight),
            },
        };
        let held = Held {
            item: make(),
            hash,
            size,
            weight,
            error: missed,
            counts: vec![access],
        };
        self.put(slot, held);
    }

    /// The held keys, in no particular but always the same order.
    pub fn held(&self) -> &[Held<T>] {
        &self.slots
    }

    /// A bin is over: counts begin anew, weights are halved.
    pub fn next_bin(&mut self) {
        for held in &mut self.slots {
            held.weight /= 2;
            held.error = 0;
            for count in &mut held.counts {
                count.accesses = 0;
                count.bytes = 0;
            }
        }
        // Halves of sums are never less than sums of halves: what is in a cell stays covered.
        self.filter.iter_mut().for_each(|cell| *cell /= 2);
        self.floor /= 2;
    }

    /// A key that is not held was accessed at most so many times in this bin.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Cells in a row of the filter.
    pub fn width(&self) -> usize {
        let cells = self.limits.filter_bytes / (ROWS * size_of::<u32>());
        // A power of two, so that a cell is found by a mask.
        1 << cells.max(1).ilog2()
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.bytes + self.filter.len() * size_of::<u32>()
    }

    fn put(&mut self, slot: Option<usize>, held: Held<T>) {
        self.bytes += held.bytes();
        match slot {
            Some(slot) => {
                self.index.insert(held.hash, slot as u32);
                let old = std::mem::replace(&mut self.slots[slot], held);
                self.bytes -= old.bytes();
                self.index.remove(&old.hash);
                self.sift(old.hash, old.weight);
            }
            None => {
                self.index.insert(held.hash, self.slots.len() as u32);
                self.slots.push(held);
            }
        }
    }

    /// The slot of a key that weighs less than `weight`, if there is one.
    ///
    /// The hand goes on where it stopped, and a whole round without success raises the floor; so a
    /// round is paid for by what it takes to raise the floor.
    fn make_room(&mut self, weight: u64) -> Option<usize> {
        while weight > self.floor {
            let (mut least, count) = (u64::MAX, self.slots.len());
            for _ in 0..count {
                let slot = self.hand;
                self.hand = (self.hand + 1) % count;
                least = least.min(self.slots[slot].weight);
                if self.slots[slot].weight <= self.floor {
                    return Some(slot);
                }
            }
            self.floor = least;
        }
        None
    }

    fn cells(&self, hash: u128) -> impl Iterator<Item = usize> + use<T> {
        let (first, step) = (hash as u64, (hash >> 64) as u64 | 1);
        let width = self.width();
        let row = move |row: usize| {
            let at = first.wrapping_add(step.wrapping_mul(row as u64)) as usize & (width - 1);
            row * width + at
        };
        (0..ROWS).map(row)
    }

    /// Accesses of a key that is not held, at least the truth.
    fn estimate(&self, hash: u128) -> u64 {
        if self.filter.is_empty() {
            return 0;
        }
        let cells = self.cells(hash).map(|cell| self.filter[cell]);
        u64::from(cells.min().unwrap_or(0))
    }

    /// Sees to it that the filter says at least `weight`.
    fn sift(&mut self, hash: u128, weight: u64) {
        if self.filter.is_empty() {
            self.filter = vec![0; self.width() * ROWS];
        }
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        for cell in self.cells(hash) {
            self.filter[cell] = self.filter[cell].max(weight);
        }
    }
}

fn add_to(counts: &mut Vec<Count>, access: Count) {
    let known = |counts: &[Count], region| counts.iter().position(|one| one.region == region);
    // One place is kept for what has no region, so that nothing goes uncounted.
    let full = counts.len() >= REGIONS_MAX - 1;
    let at = known(counts, access.region).or_else(|| match full {
        true => known(counts, NOWHERE),
        false => None,
    });
    match at {
        Some(at) => {
            counts[at].accesses = counts[at].accesses.saturating_add(access.accesses);
            counts[at].bytes = counts[at].bytes.saturating_add(access.bytes);
        }
        None => {
            counts.reserve_exact(1);
            counts.push(Count {
                region: if full { NOWHERE } else { access.region },
                ..access
            });
        }
    }
}

#[cfg(test)]
#[path = "sketch_tests.rs"]
mod tests;
