//! Progress as an outsider sees it: a thread that reads one slot of a node's positions file again
//! and again, and notes when each field first reached each lsn.
//!
//! The time is the one that the daemon left in the slot when it wrote it. A field that another one
//! overtook between two looks is reported late by as much, never early.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use foreshadow::positions::{SLOT_LEN, Slot, decode_header};
use wal::{Lsn, PartitionId};

/// A shorter wait would take from the daemons the processor that is measured.
const LOOK: Duration = Duration::from_micros(100);
/// iChange in the WAL-index header.
const CHANGE_AT: u64 = 8;

/// When a position was first seen.
pub type Sighting = (u64, Lsn);

/// What was seen of one slot.
#[derive(Default, Debug)]
pub struct Seen {
    pub consumed: Vec<Sighting>,
    pub applied: Vec<Sighting>,
    pub durable: Vec<Sighting>,
}

/// The observing thread.
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Seen>>,
}

impl Observer {
    /// Looks at the slot of `partition` in each of the state directories.
    pub fn start(states: &[PathBuf], partition: PartitionId) -> Observer {
        let open = |state: &PathBuf| (slot_file(state), slot_at(state, partition));
        let slots: Vec<_> = states.iter().map(open).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // The default slack of 50 us would more than double the time between two looks.
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1000));
            let mut seen: Vec<Seen> = slots.iter().map(|_| Seen::default()).collect();
            while !asked.load(Ordering::Relaxed) {
                for ((file, at), seen) in slots.iter().zip(&mut seen) {
                    if let Some(slot) = read(file, *at) {
                        seen.note(&slot);
                    }
                }
                std::thread::sleep(LOOK);
            }
            seen
        });
        Observer { stop, thread }
    }

    pub fn stop(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the observer only reads")
    }
}

impl Seen {
    fn note(&mut self, slot: &Slot) {
        let lists = [&mut self.consumed, &mut self.applied, &mut self.durable];
        let fields = [slot.consumed, slot.applied_best, slot.durable_best];
        for (list, lsn) in lists.into_iter().zip(fields) {
            if list.last().is_none_or(|(_, last)| *last < lsn) {
                list.push((slot.updated_ns, lsn));
            }
        }
    }
}

/// Milliseconds from each commit's return, given with its lsn, to its first sighting.
pub fn lags_ms(commits: impl Iterator<Item = Sighting>, sightings: &[Sighting]) -> Vec<f64> {
    let lag = |(end_ns, lsn): Sighting| {
        let first = sightings.partition_point(|(_, seen)| *seen < lsn);
        let (at, _) = sightings.get(first)?;
        Some(at.saturating_sub(end_ns) as f64 / 1e6)
    };
    commits.filter_map(lag).collect()
}

/// The slot of `partition` now.
pub fn slot(state: &Path, partition: PartitionId) -> Slot {
    let at = slot_at(state, partition);
    read(&slot_file(state), at).expect("the slot was just found")
}

/// How many transactions the database that a route leads to has seen, as its WAL-index counts.
pub fn change_of(route: &Path) -> u32 {
    let database = std::fs::canonicalize(route).expect("the route leads to a database");
    let mut index = database.into_os_string();
    index.push("-shm");
    let index = File::open(index).expect("an open database has an index");
    let mut word = [0; 4];
    index.read_exact_at(&mut word, CHANGE_AT).expect("a header");
    u32::from_ne_bytes(word)
}

fn slot_file(state: &Path) -> File {
    File::open(state.join("positions")).expect("a daemon keeps a positions file")
}

fn slot_at(state: &Path, partition: PartitionId) -> u64 {
    let file = slot_file(state);
    let mut header = [0; SLOT_LEN];
    file.read_exact_at(&mut header, 0).expect("a header");
    let slots = decode_header(&header).expect("a header of this layout");
    let mut places = (0..slots).map(Slot::offset);
    let is_ours = |at: &u64| read(&file, *at).is_some_and(|slot| slot.partition == partition.0);
    places.find(is_ours).expect("the partition has a slot")
}

fn read(file: &File, at: u64) -> Option<Slot> {
    let mut bytes = [0; SLOT_LEN];
    file.read_exact_at(&mut bytes, at).ok()?;
    Slot::decode(&bytes)
}
