//! Lag as an outsider measures it: from a commit being published in a database's WAL-index until
//! the owner's positions file says that a peer has it durably. Also counts the raw WAL that was
//! written.
//!
//! Reads `-shm` and `positions` with pread and never locks anything, so it disturbs neither SQLite
//! nor the daemon. iChange (offset 8) and mxFrame (offset 16) of the WAL-index header are single
//! aligned words; a torn header only delays a sample by one look.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wal::{Lsn, PartitionName};

use super::clock::now_ns;
use super::harness::Cluster;
use crate::positions::{SLOT_LEN, Slot, decode_header};

/// How often watched databases are looked at.
const LOOK: Duration = Duration::from_micros(50);

/// How often routes are followed anew, and how often the others' logs are measured.
const FOLLOW_NS: u64 = 5_000_000;

/// Commits waiting for a durable position before older ones are given up: a peer is away.
const WAITING_MAX: usize = 100_000;

/// A log frame is a page and its header of 24 bytes (SQLite file format, section 4.1).
const FRAME_HEADER_LEN: u64 = 24;

/// What has been measured so far.
#[derive(Debug, Default)]
pub struct Measured {
    lags_ms: Mutex<Vec<f64>>,
    raw_wal_bytes: AtomicU64,
    stop: AtomicBool,
}

impl Measured {
    /// All lags so far.
    pub fn lags_ms(&self) -> Vec<f64> {
        self.lags_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Bytes of frames that SQLite appended to logs so far.
    pub fn raw_wal_bytes(&self) -> u64 {
        self.raw_wal_bytes.load(Ordering::Relaxed)
    }
}

/// The sampling thread; stops when dropped.
#[derive(Debug)]
pub struct Sampler {
    pub measured: Arc<Measured>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Measures the lag of the first `watched` tenants, and the logs of all.
    pub fn start(cluster: &Cluster, watched: usize) -> Sampler {
        let places = cluster.nodes.iter().map(|node| &node.place);
        let nodes: Vec<_> = places
            .map(|place| (place.dir.clone(), place.state()))
            .collect();
        let mut logs: Vec<Log> = Vec::new();
        for (index, tenant) in cluster.tenants.iter().enumerate() {
            let route = cluster.routes().join(&tenant.name);
            logs.extend(Log::new(
                &tenant.name,
                route,
                tenant.page_size,
                index < watched,
            ));
        }
        let measured = Arc::new(Measured::default());
        let shared = Arc::clone(&measured);
        let thread = thread::spawn(move || run(&mut logs, &nodes, &shared));
        Sampler {
            measured,
            thread: Some(thread),
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.measured.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panicking sampler only loses samples.
            let _ = thread.join();
        }
    }
}

fn run(logs: &mut [Log], nodes: &[(PathBuf, PathBuf)], measured: &Measured) {
    let mut followed_ns = 0;
    while !measured.stop.load(Ordering::Relaxed) {
        let now = now_ns();
        let follow = now.saturating_sub(followed_ns) > FOLLOW_NS;
        if follow {
            followed_ns = now;
        }
        for log in logs.iter_mut() {
            if follow {
                log.follow(nodes);
                log.count(measured);
            }
            if log.watched {
                log.look(measured);
            }
        }
        thread::sleep(LOOK);
    }
}

/// One database's log, wherever it is served now.
struct Log {
    partition: u64,
    route: PathBuf,
    frame_len: u64,
    watched: bool,
    served: Option<Served>,
}

/// The files of the generation that is served now.
struct Served {
    database: PathBuf,
    index: File,
    positions: Option<File>,
    slot_at: u64,
    slot: Slot,
    change: u32,
    frames: u32,
    /// Commits seen and not yet durable at a peer: when, and their lsn.
    waiting: VecDeque<(u64, Lsn)>,
}

impl Log {
    fn new(name: &str, route: PathBuf, page_size: u32, watched: bool) -> Option<Log> {
        let partition = PartitionName::new(name)?.id().0;
        let frame_len = u64::from(page_size) + FRAME_HEADER_LEN;
        Some(Log {
            partition,
            route,
            frame_len,
            watched,
            served: None,
        })
    }

    /// Opens the files behind the route, if they are not the ones that are open.
    fn follow(&mut self, nodes: &[(PathBuf, PathBuf)]) {
        let Ok(database) = fs::canonicalize(&self.route) else {
            return;
        };
        if self
            .served
            .as_ref()
            .is_some_and(|served| served.database == database)
        {
            return;
        }
        let mut index = database.as_os_str().to_owned();
        index.push("-shm");
        let Ok(index) = File::open(index) else { return };
        let state = nodes
            .iter()
            .find(|(dir, _)| database.starts_with(dir))
            .map(|node| &node.1);
        let positions = state.and_then(|state| File::open(state.join("positions")).ok());
        let (Some(change), Some(frames)) = (word(&index, 8), word(&index, 16)) else {
            return;
        };
        let (slot_at, slot) = (0, Slot::default());
        let waiting = VecDeque::new();
        self.served = Some(Served {
            database,
            index,
            positions,
            slot_at,
            slot,
            change,
            frames,
            waiting,
        });
    }

    /// Adds the frames appended since the last look; a lower count means that the log began anew.
    fn count(&mut self, measured: &Measured) {
        let Some(served) = &mut self.served else {
            return;
        };
        let Some(frames) = word(&served.index, 16) else {
            return;
        };
        let before = if frames < served.frames {
            0
        } else {
            served.frames
        };
        let bytes = u64::from(frames - before) * self.frame_len;
        measured.raw_wal_bytes.fetch_add(bytes, Ordering::Relaxed);
        served.frames = frames;
    }

    fn look(&mut self, measured: &Measured) {
        let Some(served) = &mut self.served else {
            return;
        };
        let Some(change) = word(&served.index, 8) else {
            return;
        };
        let seen_ns = now_ns();
        let Some(slot) = served.read_slot(self.partition) else {
            return;
        };
        let same = (slot.epoch, slot.change_offset);
        if same != (served.slot.epoch, served.slot.change_offset) || change < served.change {
            // Another incarnation of the log: what waited can't be told apart any more.
            served.waiting.clear();
            served.change = change;
        }
        served.slot = slot;
        if change > served.change && served.waiting.len() < WAITING_MAX {
            served.change = change;
            served
                .waiting
                .push_back((seen_ns, slot.change_offset.lsn(change)));
        }
        let now = now_ns();
        while let Some((seen_ns, lsn)) = served.waiting.front().copied() {
            if slot.durable_best < lsn {
                break;
            }
            served.waiting.pop_front();
            let lag_ms = (now - seen_ns) as f64 / 1e6;
            measured
                .lags_ms
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(lag_ms);
        }
    }
}

impl Served {
    fn read_slot(&mut self, partition: u64) -> Option<Slot> {
        let positions = self.positions.as_ref()?;
        if let Some(slot) = slot_at(positions, self.slot_at).filter(|s| s.partition == partition) {
            return Some(slot);
        }
        let mut header = [0; SLOT_LEN];
        positions.read_exact_at(&mut header, 0).ok()?;
        let mut offsets = (0..decode_header(&header)?).map(Slot::offset);
        let is_ours = |at: &u64| slot_at(positions, *at).is_some_and(|s| s.partition == partition);
        self.slot_at = offsets.find(is_ours)?;
        slot_at(positions, self.slot_at)
    }
}

/// The slot at `at`; the header's place (0) holds none.
fn slot_at(positions: &File, at: u64) -> Option<Slot> {
    let mut bytes = [0; SLOT_LEN];
    positions
        .read_exact_at(&mut bytes, at)
        .ok()
        .filter(|()| at > 0)?;
    Slot::decode(&bytes)
}

fn word(file: &File, at: u64) -> Option<u32> {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use wal::Epoch;

    use super::*;
    use crate::positions::{ChangeOffset, encode_header};

    /// A node whose only database has had `change` commits when its lsn was 1000.
    struct Fixture {
        dir: tempfile::TempDir,
        writer: Connection,
        slot: Slot,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let path = dir.path().join("tenant.db");
            let writer = Connection::open(&path).expect("opened");
            writer
                .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(a)")
                .expect("made");
            let index = File::open(dir.path().join("tenant.db-shm")).expect("opened");
            let change = word(&index, 8).expect("read");
            let partition = PartitionName::new("tenant.db").expect("valid").id();
            let slot = Slot {
                epoch: Epoch(1),
                durable_best: Lsn(1000),
                change_offset: ChangeOffset::between(Lsn(1000), change),
                ..Slot::new(partition)
            };
            let fixture = Fixture { dir, writer, slot };
            fixture.publish();
            fixture
        }

        fn publish(&self) {
            // Another partition comes first, so the slot has to be found.
            let other = Slot {
                partition: 1,
                ..Slot::default()
            };
            let parts = [encode_header(2), other.encode(), self.slot.encode()].concat();
            fs::write(self.dir.path().join("positions"), parts).expect("written");
        }

        fn log(&self) -> Log {
            let route = self.dir.path().join("tenant.db");
            let mut log = Log::new("tenant.db", route, 4096, true).expect("valid");
            let dir = fs::canonicalize(self.dir.path()).expect("there");
            log.follow(&[(dir.clone(), dir)]);
            log
        }

        fn commit(&self) {
            self.writer
                .execute("INSERT INTO t VALUES(1)", [])
                .expect("committed");
        }
    }

    #[test]
    fn a_commit_lags_until_its_own_position_is_durable() {
        let mut fixture = Fixture::new();
        let (mut log, measured) = (fixture.log(), Measured::default());
        log.look(&measured);
        fixture.commit();
        log.look(&measured);
        fixture.commit();
        log.look(&measured);
        assert!(measured.lags_ms().is_empty(), "nothing is durable yet");
        fixture.slot.durable_best = Lsn(1001);
        fixture.publish();
        log.look(&measured);
        assert_eq!(measured.lags_ms().len(), 1, "one of two commits is durable");
        log.count(&measured);
        assert_eq!(measured.raw_wal_bytes(), 2 * 4120);
    }

    #[test]
    fn a_new_epoch_forgets_what_waited() {
        let mut fixture = Fixture::new();
        let (mut log, measured) = (fixture.log(), Measured::default());
        log.look(&measured);
        fixture.commit();
        log.look(&measured);
        fixture.slot.epoch = Epoch(2);
        fixture.slot.durable_best = Lsn(5000);
        fixture.publish();
        log.look(&measured);
        log.look(&measured);
        assert!(
            measured.lags_ms().is_empty(),
            "an old commit has no position in a new epoch"
        );
    }
}
