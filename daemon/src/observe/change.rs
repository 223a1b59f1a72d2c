//! How much each partition and segment changes, and in how large steps, from the tailed log.
//!
//! A shard adds up what it read in a [`Summary`] for each partition, and hands it over now and
//! then; [`Changes`] adds these up for a bin. Bytes are those of deltas as logged, because that is
//! what a copy costs; a segment's share of them is by its pages. The sizes of a segment's updates
//! are the average of one summary.
//!
//! Invariant: never more than the bound; who was silent for the longest time goes first, and what
//! finds no room is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use wal::PartitionName;

/// Bytes of a segment: the unit of prefetch.
pub const SEGMENT_BYTES: u32 = 64 << 10;
/// Segments of one summary; the pages of more of them count for the partition alone.
pub const SEGMENTS_PER_SUMMARY: usize = 4096;
/// Sizes are counted by powers of two, up to 2 GiB.
const SIZES: usize = 32;
/// Bytes that a partition takes, beside its name: its counts, and its samples.
const PARTITION_BYTES: usize = size_of::<Tally>() + 128 + 4 * SAMPLE_BYTES;
/// Bytes that a segment takes, with its samples.
const SEGMENT_COST: usize = size_of::<Tally>() + 48 + 4 * SAMPLE_BYTES;
/// Bytes of one sample.
pub const SAMPLE_BYTES: usize = size_of::<super::Sample>();

/// Sizes of updates, by powers of two.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sizes([u32; SIZES]);

impl Sizes {
    /// Counts `times` updates of `bytes` each.
    pub fn add(&mut self, bytes: u64, times: u64) {
        let class = (u64::BITS - bytes.leading_zeros()) as usize;
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        let count = &mut self.0[class.min(SIZES - 1)];
        *count = count.saturating_add(times);
    }

    fn join(&mut self, other: &Sizes) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    /// The middle of the class that holds the median; 0 where there was no update. It is right
    /// within a factor of 1.5.
    pub fn median(&self) -> f32 {
        let all: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let mut left = all.div_ceil(2);
        for (class, count) in self.0.iter().enumerate() {
            if left <= u64::from(*count) && *count > 0 {
                // Class k holds 2^(k-1) .. 2^k - 1; class 0 only 0.
                return if class == 0 {
                    0.0
                } else {
                    1.5 * (1_u64 << (class - 1)) as f32
                };
            }
            left -= u64::from(*count);
        }
        0.0
    }
}

/// What happened to one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    pub changes: u64,
    pub pages: u64,
    pub bytes: u64,
}

/// What happened to one partition since the last summary.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    pub commits: u64,
    pub pages: u64,
    pub bytes: u64,
    pub sizes: Sizes,
    pub segments: BTreeMap<u32, Share>,
}

impl Summary {
    /// Counts commits that changed `pages` (from 1, in ascending order) in `bytes` of delta;
    /// `per_segment` pages are a segment, and 0 leaves segments out.
    pub fn add(
        &mut self,
        commits: u64,
        bytes: u64,
        pages: impl ExactSizeIterator<Item = u32>,
        per_segment: u32,
    ) {
        let count = pages.len() as u64;
        self.commits = self.commits.saturating_add(commits);
        self.pages = self.pages.saturating_add(count);
        self.bytes = self.bytes.saturating_add(bytes);
        self.sizes.add(bytes / commits.max(1), commits);
        if per_segment == 0 {
            return;
        }
        let each = bytes / count.max(1);
        let mut last = None;
        for page in pages {
            let number = page.saturating_sub(1) / per_segment;
            let room = self.segments.len() < SEGMENTS_PER_SUMMARY;
            if !room && !self.segments.contains_key(&number) {
                continue;
            }
            let share = self.segments.entry(number).or_default();
            share.changes += u64::from(last != Some(number));
            share.pages += 1;
            share.bytes += each;
            last = Some(number);
        }
    }
}

/// Pages of `page_size` bytes that are one segment.
pub fn pages_per_segment(page_size: u32) -> u32 {
    SEGMENT_BYTES.checked_div(page_size).unwrap_or(1).max(1)
}

/// What happened in this bin.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    pub commits: u64,
    pub pages: u64,
    pub bytes: u64,
    pub sizes: Sizes,
    /// Number of the last bin in which something happened.
    active: u64,
}

impl Tally {
    fn add(&mut self, commits: u64, pages: u64, bytes: u64, bin: u64) {
        self.commits = self.commits.saturating_add(commits);
        self.pages = self.pages.saturating_add(pages);
        self.bytes = self.bytes.saturating_add(bytes);
        self.active = bin;
    }

    fn restart(&mut self) {
        let active = self.active;
        *self = Tally {
            active,
            ..Tally::default()
        };
    }
}

/// One partition and its segments.
#[derive(Clone, Debug)]
pub struct Changed {
    pub name: Arc<PartitionName>,
    pub whole: Tally,
    pub segments: BTreeMap<u32, Tally>,
}

impl Changed {
    fn cost(name: &PartitionName) -> usize {
        PARTITION_BYTES + 2 * name.as_str().len()
    }
}

/// What happened to every partition in this bin.
#[derive(Clone, Debug)]
pub struct Changes {
    bytes_max: usize,
    partitions: BTreeMap<PartitionName, Changed>,
    bytes: usize,
    bin: u64,
    /// Partitions and segments that found no room.
    lost: u64,
}

impl Changes {
    pub fn new(bytes_max: usize) -> Changes {
        Changes {
            bytes_max,
            partitions: BTreeMap::new(),
            bytes: 0,
            bin: 0,
            lost: 0,
        }
    }

    /// Takes in what a shard read.
    pub fn add(&mut self, name: &PartitionName, summary: &Summary) {
        if !self.partitions.contains_key(name) && !self.take_room(Changed::cost(name)) {
            return;
        }
        let bin = self.bin;
        let fresh = || Changed {
            name: Arc::new(name.clone()),
            whole: Tally::default(),
            segments: BTreeMap::new(),
        };
        let changed = self.partitions.entry(name.clone()).or_insert_with(fresh);
        let whole = &mut changed.whole;
        whole.add(summary.commits, summary.pages, summary.bytes, bin);
        whole.sizes.join(&summary.sizes);
        for (number, share) in &summary.segments {
            let known = |all: &Changes| all.partitions[name].segments.contains_key(number);
            if !known(self) && !self.take_room(SEGMENT_COST) {
                continue;
            }
            let Some(changed) = self.partitions.get_mut(name) else {
                return;
            };
            let tally = changed.segments.entry(*number).or_default();
            tally.add(share.changes, share.pages, share.bytes, bin);
            let each = share.bytes / share.changes.max(1);
            tally.sizes.add(each, share.changes);
        }
    }

    /// Every partition that is kept, in the order of its name.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = &Changed> {
        self.partitions.values()
    }

    /// A bin is over: counts begin anew, what is kept stays.
    pub fn next_bin(&mut self) {
        self.bin += 1;
        for changed in self.partitions.values_mut() {
            changed.whole.restart();
            changed.segments.values_mut().for_each(Tally::restart);
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Partitions and segments that found no room so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn take_room(&mut self, cost: usize) -> bool {
        if self.bytes + cost > self.bytes_max {
            self.drop_silent();
        }
        let room = self.bytes + cost <= self.bytes_max;
        if room {
            self.bytes += cost;
        } else {
            self.lost += 1;
        }
        room
    }

    /// Lets a quarter go of what was silent in this bin, the longest silent first.
    fn drop_silent(&mut self) {
        let tallies = self.partitions.values().flat_map(|changed| {
            let segments = changed.segments.values();
            segments.chain([&changed.whole]).map(|tally| tally.active)
        });
        let mut silent: Vec<u64> = tallies.filter(|active| *active < self.bin).collect();
        if silent.is_empty() {
            return;
        }
        silent.sort_unstable();
        let until = silent[silent.len() / 4];
        let mut freed = 0;
        self.partitions.retain(|name, changed| {
            let before = changed.segments.len();
            changed.segments.retain(|_, tally| tally.active > until);
            freed += (before - changed.segments.len()) * SEGMENT_COST;
            let keep = changed.whole.active > until || !changed.segments.is_empty();
            freed += if keep { 0 } else { Changed::cost(name) };
            keep
        });
        self.bytes -= freed;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: u32) -> PartitionName {
        PartitionName::new(&format!("tenant{number}.db")).expect("a name")
    }

    fn summary(pages: &[u32]) -> Summary {
        let mut summary = Summary::default();
        summary.add(1, 100, pages.iter().copied(), 16);
        summary
    }

    #[test]
    fn pages_count_for_their_segment() {
        let mut summary = Summary::default();
        summary.add(
            2,
            400,
            [1_u32, 16, 17, 33].into_iter(),
            pages_per_segment(4096),
        );
        assert_eq!((summary.commits, summary.pages, summary.bytes), (2, 4, 400));
        let share = |changes, pages, bytes| Share {
            changes,
            pages,
            bytes,
        };
        let expected = [
            (0, share(1, 2, 200)),
            (1, share(1, 1, 100)),
            (2, share(1, 1, 100)),
        ];
        assert_eq!(summary.segments, BTreeMap::from(expected));
        assert_eq!(
            summary.sizes.median(),
            192.0,
            "two of 200 bytes: 128 to 255"
        );
    }

    #[test]
    fn segments_can_be_left_out_and_are_bounded() {
        let mut summary = Summary::default();
        summary.add(1, 10, [1_u32, 2].into_iter(), 0);
        assert!(summary.segments.is_empty());
        summary.add(1, 10, 1..1_000_001_u32, 1);
        assert_eq!(summary.segments.len(), SEGMENTS_PER_SUMMARY);
        assert_eq!(summary.pages, 1_000_002);
    }

    #[test]
    fn odd_pages_are_a_segment_of_their_own() {
        assert_eq!(pages_per_segment(0), 1);
        assert_eq!(pages_per_segment(512), 128);
        assert_eq!(pages_per_segment(65_536), 1);
        assert_eq!(pages_per_segment(1 << 20), 1);
    }

    #[test]
    fn the_median_is_that_of_the_sizes() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.median(), 0.0, "an empty history has none");
        sizes.add(0, 1);
        assert_eq!(sizes.median(), 0.0);
        sizes.add(4096, 5);
        sizes.add(u64::MAX, 1);
        assert_eq!(sizes.median(), 6144.0);
    }

    #[test]
    fn what_is_silent_stays_with_zeros() {
        let mut changes = Changes::new(1 << 20);
        changes.add(&name(1), &summary(&[1]));
        changes.next_bin();
        let kept = changes.partitions().next().expect("kept");
        assert_eq!((kept.whole.commits, kept.segments.len()), (0, 1));
        changes.add(&name(1), &summary(&[1]));
        assert_eq!(changes.partitions().next().expect("back").whole.commits, 1);
    }

    #[test]
    fn the_longest_silent_makes_room() {
        let mut changes = Changes::new(12 * (PARTITION_BYTES + SEGMENT_COST + 32));
        for round in 0..100 {
            changes.add(&name(round), &summary(&[1]));
            assert!(changes.bytes() <= changes.bytes_max);
            changes.next_bin();
        }
        let newest = 100 - changes.partitions().len() as u32;
        assert!((88..=96).contains(&newest), "{newest}");
        for number in newest..100 {
            let kept = changes.partitions().find(|one| *one.name == name(number));
            assert_eq!(kept.expect("kept").segments.len(), 1, "{number}");
        }
        assert_eq!(changes.lost(), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut changes = Changes::new(2 * (PARTITION_BYTES + SEGMENT_COST + 32));
        for number in 0..10 {
            changes.add(&name(number), &summary(&[1]));
        }
        assert!(changes.lost() > 0);
        assert!(changes.bytes() <= changes.bytes_max);
    }

    proptest! {
        #[test]
        fn nothing_outgrows_its_bound_and_nothing_is_lost_below_it(
            steps in prop::collection::vec((0..20_u32, 1..2000_u32, any::<bool>()), 1..200),
            bytes_max in 1_000..200_000_usize,
        ) {
            let mut changes = Changes::new(bytes_max);
            let mut commits = 0;
            for (number, page, next) in steps {
                changes.add(&name(number), &summary(&[page]));
                commits += 1;
                prop_assert!(changes.bytes() <= bytes_max);
                let counted: usize = changes
                    .partitions()
                    .map(|one| Changed::cost(&one.name) + one.segments.len() * SEGMENT_COST)
                    .sum();
                prop_assert_eq!(counted, changes.bytes());
                let seen: u64 = changes.partitions().map(|one| one.whole.commits).sum();
                prop_assert!(seen <= commits);
                prop_assert!(changes.lost() > 0 || seen == commits);
                if next {
                    changes.next_bin();
                    commits = 0;
                }
            }
        }

        #[test]
        fn a_median_lies_within_a_factor_of_its_sizes(
            sizes in prop::collection::vec(0..1_u64 << 31, 1..50),
        ) {
            let mut counted = Sizes::default();
            sizes.iter().for_each(|bytes| counted.add(*bytes, 1));
            let mut sorted = sizes.clone();
            sorted.sort_unstable();
            let median = sorted[(sorted.len() - 1) / 2] as f32;
            let said = counted.median();
            prop_assert!(said <= median * 1.5 && median <= said * 1.5, "{median}, not {said}");
        }
    }
}
