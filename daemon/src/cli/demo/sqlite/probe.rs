//! A database of SQLite from outside: commits are published in its WAL-index, and durable at a peer
//! when the owner's positions file says so.
//!
//! Reads `-shm` and `positions` with pread and never locks anything, so it disturbs neither SQLite
//! nor the daemon. iChange (offset 8) and mxFrame (offset 16) of the WAL-index header are single
//! aligned words; a torn header only delays a sample by one look.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::cli::demo::clock::now_ns;
use crate::cli::demo::sampler::{Look, Probe, State};
use crate::positions::{SLOT_LEN, Slot, decode_header};

/// A log frame is a page and its header of 24 bytes (SQLite file format, section 4.1).
const FRAME_HEADER_LEN: u64 = 24;

struct Index {
    index: File,
    positions: Option<File>,
    partition: u64,
    slot_at: u64,
    frame_len: u64,
    frames: u32,
}

/// Opens the files beside a database, and the positions of its daemon.
pub fn open(database: &Path, state: Option<&State>) -> Option<Box<dyn Probe>> {
    let mut index = database.as_os_str().to_owned();
    index.push("-shm");
    let index = File::open(index).ok()?;
    let frames = word(&index, 16)?;
    let state = state?;
    Some(Box::new(Index {
        frames,
        index,
        positions: File::open(state.dir.join("positions")).ok(),
        partition: state.partition,
        slot_at: 0,
        frame_len: u64::from(state.page_size) + FRAME_HEADER_LEN,
    }))
}

impl Probe for Index {
    /// A lower count of frames means that the log began anew.
    fn appended(&mut self) -> Option<u64> {
        let frames = word(&self.index, 16)?;
        let before = if frames < self.frames { 0 } else { self.frames };
        self.frames = frames;
        Some(u64::from(frames - before) * self.frame_len)
    }

    fn look(&mut self) -> Option<Look> {
        let change = word(&self.index, 8)?;
        let seen_ns = now_ns();
        let slot = self.read_slot()?;
        Some(Look {
            incarnation: (slot.epoch.0, slot.change_offset.0),
            published: slot.change_offset.lsn(change).0,
            seen_ns,
            durable: slot.durable_best.0,
        })
    }
}

impl Index {
    fn read_slot(&mut self) -> Option<Slot> {
        let (positions, partition) = (self.positions.as_ref()?, self.partition);
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
    use std::fs;

    use rusqlite::Connection;
    use wal::{Epoch, Lsn, PartitionName};

    use super::*;
    use crate::cli::demo::engine::Engine;
    use crate::cli::demo::sampler::{Log, Measured};
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
            let mut log = Log::new(Engine::Sqlite, "tenant.db", route, 4096).expect("valid");
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
