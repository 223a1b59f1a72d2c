//! What happens on this node, in numbers: the first stage, and the eyes of the others.
//!
//! | module | what it knows |
//! |---|---|
//! | [`access`] | the access event, and its JSON line |
//! | [`haproxy`] | the same out of HAProxy's HTTP log |
//! | [`sketch`] | which keys are asked for most, out of any number |
//! | [`change`] | how much partitions and segments change, and in how large steps |
//! | [`load`] | how busy the node is |
//! | [`history`] | moves and backups |
//!
//! Events and readings go in, with the time; once in a bin [`Observatory::close`] gives out what
//! was seen as a [`Bin`] of samples, in one order everywhere.
//!
//! Invariants: pure; whatever goes in, values are finite and not negative; memory is within
//! [`Settings::bytes_max`]. What was seen once is told in every bin, as 0 where it is silent, until
//! memory is needed for something newer.

pub mod access;
pub mod change;
pub mod haproxy;
pub mod history;
pub mod load;
pub mod sketch;

use std::sync::Arc;

use wal::{PartitionName, Time};

use self::access::Access;
use self::change::{Changes, SAMPLE_BYTES, Summary};
use self::history::{Happening, History};
use self::load::{Gauge, Load, Reading};
use self::sketch::{Count, Held, Limits, NOWHERE, REGIONS_MAX, Region, SLOT_BYTES_MAX, Sketch};

/// Regions of the node that are told apart; more of them are no region.
const NODE_REGIONS_MAX: usize = 256;
/// Bytes of a key that is counted exactly, with its samples, at most.
pub const TOP_BYTES: usize = SLOT_BYTES_MAX + 2 * REGIONS_MAX * SAMPLE_BYTES;

/// What is observed, and in how much memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    pub bin_seconds: u32,
    pub bytes_max: usize,
    /// Keys and partitions whose accesses are counted exactly, at most.
    pub top: usize,
}

impl Settings {
    /// How large a `top` fits into so many bytes.
    pub fn top_max(bytes_max: usize) -> usize {
        bytes_max / 8 * 3 / TOP_BYTES
    }
}

/// What a number is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    Node,
    Partition(Arc<PartitionName>),
    /// The range of a partition's pages of this number, from 0.
    Segment(Arc<PartitionName>, u32),
    Record {
        partition: Option<Arc<PartitionName>>,
        key: Arc<str>,
    },
}

/// What a number says. Counts are of the whole bin; they are not rates.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Signal {
    /// Transactions; of a segment, times that it changed.
    Commits,
    /// Changed pages.
    Pages,
    /// Bytes of deltas; of a segment, its pages' share of them.
    Bytes,
    /// Median bytes of one update, 0 where there was none.
    UpdateSize,
    Accesses {
        region: Option<Arc<str>>,
    },
    AccessBytes {
        region: Option<Arc<str>>,
    },
    /// Of the node: a mean over the bin.
    Load(Gauge),
    Moves,
    Backups,
}

/// One number.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    pub subject: Subject,
    pub signal: Signal,
    pub value: f32,
}

/// Everything that was seen in one stretch of time.
#[derive(Clone, PartialEq, Debug)]
pub struct Bin {
    /// Seconds since 1970; a multiple of the bin's length. Not after the bin before only where the
    /// clock was put back.
    pub begin: i64,
    /// For how long it was looked, at most the bin's length: less for the first bin of a daemon.
    pub seconds: u32,
    /// Bins between the one before and this, in which nobody looked: the clock was put forward, or
    /// the machine slept.
    pub missed: u32,
    /// In order of subject and signal, each pair once.
    pub samples: Vec<Sample>,
}

/// What came from one source of access events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    pub accepted: u64,
    pub malformed: u64,
    /// Lines that are right and name no key.
    pub passed_over: u64,
    /// Events from before the bin into which they were counted.
    pub late: u64,
    /// Events from the future, counted now.
    pub early: u64,
}

/// All that is seen on this node.
#[derive(Clone, Debug)]
pub struct Observatory {
    settings: Settings,
    begin: i64,
    /// When it was begun to look.
    since: i64,
    missed: u32,
    accesses: Sketch<Subject>,
    regions: Vec<Arc<str>>,
    changes: Changes,
    load: Load,
    history: History,
}

impl Observatory {
    /// Begins to look at `now`, in seconds since 1970.
    pub fn new(settings: Settings, now: i64) -> Observatory {
        let limits = Limits {
            held: settings.top.max(1),
            filter_bytes: settings.bytes_max / 4,
        };
        Observatory {
            begin: begin_of(now, settings.bin_seconds),
            since: now,
            missed: 0,
            accesses: Sketch::new(limits),
            regions: Vec::new(),
            changes: Changes::new(settings.bytes_max / 4),
            load: Load::default(),
            history: History::default(),
            settings,
        }
    }

    /// Counts an access that arrived at `now`, and says how its time fits in `tally`.
    pub fn access(&mut self, now: i64, access: &Access, tally: &mut Tally) {
        tally.accepted += 1;
        if let Some(time) = access.time {
            tally.late += u64::from(time < self.begin as f64);
            tally.early += u64::from(time >= now as f64 + 1.0);
        }
        let count = Count {
            region: self.region(access.region.as_deref()),
            accesses: 1,
            bytes: access.bytes,
        };
        let partition = access.partition.as_ref().map_or("", PartitionName::as_str);
        // No partition name holds a NUL, so names of different things differ.
        let name = [partition.as_bytes(), b"\0", access.key.as_bytes()].concat();
        self.accesses
            .add(&name, count, name.len(), || Subject::Record {
                partition: access.partition.clone().map(Arc::new),
                key: access.key.as_str().into(),
            });
        if let Some(name) = &access.partition {
            let bytes = name.as_str().as_bytes();
            let make = || Subject::Partition(Arc::new(name.clone()));
            self.accesses.add(bytes, count, bytes.len(), make);
            if access.is_backup() {
                self.history.add(now, name, Happening::Backup);
            }
        }
    }

    /// Takes in what a shard read of a partition's log.
    pub fn changed(&mut self, partition: &PartitionName, summary: &Summary) {
        self.changes.add(partition, summary);
    }

    /// Takes in the node's counters at a moment of the monotonic clock.
    pub fn load(&mut self, now: Time, reading: Reading) {
        self.load.add(now, reading);
    }

    /// A partition came or left.
    pub fn moved(&mut self, now: i64, partition: &PartitionName, happening: Happening) {
        self.history.add(now, partition, happening);
    }

    /// When the bin that runs ends.
    pub fn due(&self) -> i64 {
        self.begin
            .saturating_add(i64::from(self.settings.bin_seconds))
    }

    /// What was seen in the bin that is over at `now`; `None` while it runs.
    ///
    /// A clock that is put back within the bin lets it go on; one that is put back further, or
    /// forward, ends it, and the next one begins there.
    pub fn close(&mut self, now: i64) -> Option<Bin> {
        let next = begin_of(now, self.settings.bin_seconds);
        if next == self.begin {
            return None;
        }
        let length = self.settings.bin_seconds;
        let looked = now.min(self.due()).saturating_sub(self.since);
        let bin = Bin {
            begin: self.begin,
            seconds: u32::try_from(looked).unwrap_or(0).clamp(1, length),
            missed: self.missed,
            samples: self.samples(),
        };
        let skipped = next.saturating_sub(self.due()) / i64::from(length);
        self.missed = u32::try_from(skipped.max(0)).unwrap_or(u32::MAX);
        self.begin = next;
        // After a jump nobody looked before now; else what comes late is still of this bin's time.
        self.since = if skipped == 0 { next } else { now };
        self.accesses.next_bin();
        self.changes.next_bin();
        self.load.next_bin();
        self.history.next_bin();
        Some(bin)
    }

    /// The beginning of the bin that runs, and since when it is looked.
    pub fn running(&self) -> (i64, i64) {
        (self.begin, self.since)
    }

    /// Bytes in use, of those that grow with what is seen.
    pub fn bytes(&self) -> usize {
        let held = self.accesses.held().len() * 2 * SAMPLE_BYTES;
        self.accesses.bytes() + held + self.changes.bytes() + self.history.bytes()
    }

    pub fn accesses(&self) -> &Sketch<Subject> {
        &self.accesses
    }

    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    pub fn node_load(&self) -> &Load {
        &self.load
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// The name of a region of a count.
    pub fn region_name(&self, region: Region) -> Option<&Arc<str>> {
        self.regions.get(usize::from(region).checked_sub(1)?)
    }

    fn region(&mut self, name: Option<&str>) -> Region {
        let Some(name) = name else { return NOWHERE };
        let known = self.regions.iter().position(|known| **known == *name);
        let at = match known {
            Some(at) => at,
            None if self.regions.len() == NODE_REGIONS_MAX => return NOWHERE,
            None => {
                self.regions.push(name.into());
                self.regions.len() - 1
            }
        };
        at as Region + 1
    }

    fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mut put = |subject: &Subject, signal, value: f64| {
            debug_assert!(value.is_finite() && value >= 0.0);
            samples.push(Sample {
                subject: subject.clone(),
                signal,
                value: value as f32,
            });
        };
        for (gauge, mean) in self.load.means() {
            put(&Subject::Node, Signal::Load(gauge), mean);
        }
        for changed in self.changes.partitions() {
            let whole = Subject::Partition(Arc::clone(&changed.name));
            put_changes(&whole, &changed.whole, &mut put);
            for (number, tally) in &changed.segments {
                let segment = Subject::Segment(Arc::clone(&changed.name), *number);
                put_changes(&segment, tally, &mut put);
            }
        }
        for tally in self.history.partitions() {
            let subject = Subject::Partition(Arc::clone(&tally.name));
            put(&subject, Signal::Moves, tally.moves as f64);
            put(&subject, Signal::Backups, tally.backups as f64);
        }
        for held in self.accesses.held() {
            self.put_accesses(held, &mut put);
        }
        samples.sort_unstable_by(|one, two| {
            let subjects = one.subject.cmp(&two.subject);
            subjects.then_with(|| one.signal.cmp(&two.signal))
        });
        samples
    }

    fn put_accesses(&self, held: &Held<Subject>, put: &mut impl FnMut(&Subject, Signal, f64)) {
        for count in held.counts() {
            let region = self.region_name(count.region).cloned();
            let accesses = Signal::Accesses {
                region: region.clone(),
            };
            put(&held.item, accesses, count.accesses as f64);
            put(
                &held.item,
                Signal::AccessBytes { region },
                count.bytes as f64,
            );
        }
    }
}

fn put_changes(
    subject: &Subject,
    tally: &change::Tally,
    put: &mut impl FnMut(&Subject, Signal, f64),
) {
    put(subject, Signal::Commits, tally.commits as f64);
    put(subject, Signal::Pages, tally.pages as f64);
    put(subject, Signal::Bytes, tally.bytes as f64);
    put(subject, Signal::UpdateSize, f64::from(tally.sizes.median()));
}

/// The beginning of the bin in which `now` lies.
fn begin_of(now: i64, bin_seconds: u32) -> i64 {
    now.saturating_sub(now.rem_euclid(i64::from(bin_seconds.max(1))))
}

#[cfg(test)]
mod tests;
