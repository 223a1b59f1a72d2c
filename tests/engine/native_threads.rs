//! The native store under threads: the directory is what the log says, whoever comes first.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foreshadow_io::engine::native::store::record::Change;
use foreshadow_io::engine::native::store::{Batch, Store, StoreOptions};
use tempfile::tempdir;
use wal::Lsn;
use wal::log::{Options, Scanner};

use crate::native_store::{contents, copy, log_in, named, open, options};

/// A value that says whose it is; `count` is unique.
fn value(key: u64, count: u64) -> Vec<u8> {
    let mut bytes = [key.to_le_bytes(), count.to_le_bytes()].concat();
    bytes.resize(16 + (count as usize * 29) % 900, count as u8);
    bytes
}

fn is_of(key: u64, found: &[u8]) -> bool {
    let count = u64::from_le_bytes(found[8..16].try_into().expect("eight bytes"));
    found == value(key, count)
}

/// Overwrites and deletes `keys` keys from `threads` threads for a while.
fn churn(store: &Store, keys: u64, threads: u64, time: Duration, count: &AtomicU64) {
    let until = Instant::now() + time;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut own = 0;
                while Instant::now() < until {
                    let count = count.fetch_add(1, Ordering::Relaxed);
                    let key = (count * 7 + thread) % keys;
                    let done = match count % 5 {
                        0 => store.delete(&key.to_le_bytes()),
                        1 => {
                            let mut batch = Batch::default();
                            batch.delete(&key.to_le_bytes());
                            batch.put(
                                &((key + 1) % keys).to_le_bytes(),
                                &value((key + 1) % keys, count),
                            );
                            batch.put(&key.to_le_bytes(), &value(key, count));
                            store.write(&batch)
                        }
                        _ => store.put(&key.to_le_bytes(), &value(key, count)),
                    };
                    done.expect("room");
                    // A key that nobody else writes: read your writes.
                    own += 1;
                    let mine = [&b"own"[..], &thread.to_le_bytes()].concat();
                    store.put(&mine, &value(thread, own)).expect("room");
                    let found = store.get(&mine).expect("readable");
                    assert_eq!(found, Some(value(thread, own)));
                }
            });
        }
    });
}

/// The log is the truth: another store that reads it finds what this one says.
fn assert_as_the_log_says(store: Store, dir: &Path) {
    let said = contents(&store);
    let cut = dir.join("../cut");
    copy(dir, &cut);
    drop(store);
    for dir in [dir, &cut] {
        for path in named(dir, "hint") {
            std::fs::remove_file(path).expect("removed");
        }
        let found = contents(&open(dir));
        let keys = |map: &BTreeMap<Vec<u8>, Vec<u8>>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&found), keys(&said));
        assert!(found == said, "as the log says");
    }
}

/// Where the last record of each key lies, as a reader of the log finds it.
fn last_places(store: &Store) -> BTreeMap<Vec<u8>, Lsn> {
    let mut places = BTreeMap::new();
    let mut scanner = Scanner::new(store.control()).expect("a log");
    while let Some(group) = scanner.next_group().expect("whole") {
        for found in group.records() {
            match Change::read(found.kind, found.payload).expect("a store's") {
                Change::Put { key, .. } => places.insert(key.to_vec(), found.lsn),
                Change::Delete { key } => places.remove(key),
            };
        }
    }
    places
}

/// Only what was changed last by two at once tells, so it is looked at often.
#[test]
fn the_later_in_the_log_wins_among_overwriters() {
    let root = tempdir().expect("a directory");
    let dir = root.path().join("store");
    let log = Options {
        groups_in_flight: 4,
        segment_bytes: 1 << 20,
        ..options(false).log
    };
    let options = StoreOptions {
        log,
        ..options(false)
    };
    let store = Store::open(&log_in(&dir), &options).expect("a store");
    for round in 0..150u64 {
        std::thread::scope(|scope| {
            for thread in 0..12 {
                let store = &store;
                scope.spawn(move || {
                    for key in 0..6u64 {
                        let done = match (thread + key + round) % 4 {
                            0 => store.delete(&key.to_le_bytes()),
                            _ => store.put(&key.to_le_bytes(), &value(key, round * 12 + thread)),
                        };
                        done.expect("room");
                    }
                });
            }
        });
        let expected = last_places(&store);
        let keys = store.keys().into_iter();
        let found = keys.map(|key| (key.clone(), store.locate(&key).expect("listed")));
        let found: BTreeMap<_, _> = found.collect();
        assert_eq!(found, expected, "round {round}");
        store.compact_once().expect("compacted");
    }
    assert_as_the_log_says(store, &dir);
}

/// Ends the threads that run beside a test, also when the test fails.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn compaction_races_with_writers_and_readers() {
    let root = tempdir().expect("a directory");
    let dir = root.path().join("store");
    let log = Options {
        groups_in_flight: 3,
        ..options(true).log
    };
    let store = Store::open(
        &log_in(&dir),
        &StoreOptions {
            log,
            ..options(true)
        },
    )
    .expect("a store");
    let (count, running) = (AtomicU64::new(0), AtomicBool::new(true));
    let steps = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while running.load(Ordering::Relaxed) {
                // Worth it or not: every live record moves again and again.
                let step = store.compact_once().expect("compacted");
                steps.fetch_add(u64::from(step.is_some()), Ordering::Relaxed);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while running.load(Ordering::Relaxed) {
                    for key in 0..40u64 {
                        if let Some(found) = store.get(&key.to_le_bytes()).expect("readable") {
                            assert!(is_of(key, &found), "key {key}");
                        }
                    }
                }
            });
        }
        let _stop = Stop(&running);
        churn(&store, 40, 6, Duration::from_secs(3), &count);
    });
    let steps = steps.into_inner();
    assert!(steps > 10, "{steps} steps of compaction");
    assert!(store.failure().is_none(), "{:?}", store.failure());
    assert_as_the_log_says(store, &dir);
}

#[test]
fn the_thread_of_a_store_writes_hints_and_keeps_it_small() {
    let dir = tempdir().expect("a directory");
    let store = Store::open(&log_in(dir.path()), &options(true)).expect("a store");
    for count in 0..400u64 {
        let key = count % 10;
        store
            .put(&key.to_le_bytes(), &value(key, count))
            .expect("room");
    }
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let usage = store.usage().expect("readable");
        let hints = named(dir.path(), "hint").len() as u64;
        if usage.segments <= usage.segments_max && hints + 1 == usage.segments {
            break;
        }
        assert!(Instant::now() < until, "{usage:?}, {hints} hints");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(store.failure().is_none());
}
