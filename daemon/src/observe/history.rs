//! What happened to partitions as a whole: moves, and requests for backups.
//!
//! Bounded: so many partitions, the longest silent goes first; so many of the newest happenings.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use wal::PartitionName;

/// Partitions that are kept, at most.
const PARTITIONS_MAX: usize = 4096;
/// Happenings that are kept for display.
const RECENT_MAX: usize = 64;

/// What can happen to a partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Happening {
    /// It was moved away from here.
    Left,
    /// It is served here now.
    Came,
    /// Somebody asked for a backup.
    Backup,
}

/// One of the newest happenings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Past {
    /// Seconds since 1970.
    pub at: i64,
    pub partition: Arc<PartitionName>,
    pub happening: Happening,
}

/// What happened to one partition in this bin.
#[derive(Clone, Debug)]
pub struct Tally {
    pub name: Arc<PartitionName>,
    pub moves: u64,
    pub backups: u64,
    /// Counts happenings of all partitions: a larger one is later.
    last: u64,
}

/// What happened in this bin, and lately.
#[derive(Clone, Debug, Default)]
pub struct History {
    partitions: BTreeMap<PartitionName, Tally>,
    recent: VecDeque<Past>,
    count: u64,
}

impl History {
    pub fn add(&mut self, at: i64, name: &PartitionName, happening: Happening) {
        if self.partitions.len() >= PARTITIONS_MAX && !self.partitions.contains_key(name) {
            let silent = self.partitions.iter().min_by_key(|(_, tally)| tally.last);
            let silent = silent.map(|(name, _)| name.clone());
            silent.and_then(|name| self.partitions.remove(&name));
        }
        self.count += 1;
        let last = self.count;
        let fresh = || Tally {
            name: Arc::new(name.clone()),
            moves: 0,
            backups: 0,
            last,
        };
        let tally = self.partitions.entry(name.clone()).or_insert_with(fresh);
        tally.last = last;
        match happening {
            Happening::Left | Happening::Came => tally.moves += 1,
            Happening::Backup => tally.backups += 1,
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Past {
            at,
            partition: Arc::clone(&tally.name),
            happening,
        });
    }

    /// Every partition that is kept, in the order of its name.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = &Tally> {
        self.partitions.values()
    }

    /// The newest happenings, oldest first.
    pub fn recent(&self) -> impl DoubleEndedIterator<Item = &Past> {
        self.recent.iter()
    }

    /// A bin is over: counts begin anew.
    pub fn next_bin(&mut self) {
        for tally in self.partitions.values_mut() {
            (tally.moves, tally.backups) = (0, 0);
        }
    }

    /// Bytes in use, roughly.
    pub fn bytes(&self) -> usize {
        let names = self.partitions.keys().map(|name| 2 * name.as_str().len());
        names.sum::<usize>() + self.partitions.len() * 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> PartitionName {
        PartitionName::new(&format!("t{number}")).expect("a name")
    }

    #[test]
    fn moves_and_backups_are_counted_apart_and_stay_with_zeros() {
        let mut history = History::default();
        assert_eq!(history.partitions().len(), 0, "an empty history");
        history.add(1, &name(1), Happening::Left);
        history.add(2, &name(1), Happening::Came);
        history.add(3, &name(1), Happening::Backup);
        let counts = |history: &History| {
            let tally = history.partitions().next().expect("one");
            (tally.moves, tally.backups)
        };
        assert_eq!(counts(&history), (2, 1));
        history.next_bin();
        assert_eq!(counts(&history), (0, 0));
        assert_eq!(history.recent().count(), 3);
    }

    #[test]
    fn both_lists_are_bounded_and_the_oldest_goes() {
        let mut history = History::default();
        for number in 0..PARTITIONS_MAX + 10 {
            history.add(number as i64, &name(number), Happening::Backup);
        }
        assert_eq!(history.partitions().len(), PARTITIONS_MAX);
        assert!(!history.partitions().any(|tally| *tally.name == name(9)));
        assert!(history.partitions().any(|tally| *tally.name == name(10)));
        assert_eq!(history.recent().count(), RECENT_MAX);
    }
}
