//! The native store under threads: the directory is what the log says, whoever comes first.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foreshadow_io::engine::native::store::{Batch, Store, StoreOptions};
use tempfile::tempdir;
use wal::log::Options;

use crate::native_store::{contents, copy, named, open, options};

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
        let keys = |map: &std::collections::BTreeMap<Vec<u8>, Vec<u8>>| {
            map.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(keys(&found), keys(&said));
        assert!(found == said, "as the log says");
    }
}

#[test]
fn the_later_in_the_log_wins_among_overwriters() {
    let root = tempdir().expect("a directory");
    let dir = root.path().join("store");
    let log = Options {
        groups_in_flight: 4,
        ..options(false).log
    };
    let store = Store::open(
        &dir,
        &StoreOptions {
            log,
            ..options(false)
        },
    )
    .expect("a store");
    churn(
        &store,
        3,
        12,
        Duration::from_millis(1500),
        &AtomicU64::new(0),
    );
    assert_as_the_log_says(store, &dir);
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
        &dir,
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
        churn(&store, 40, 6, Duration::from_secs(3), &count);
        running.store(false, Ordering::Relaxed);
    });
    let steps = steps.into_inner();
    assert!(steps > 10, "{steps} steps of compaction");
    assert!(store.failure().is_none(), "{:?}", store.failure());
    assert_as_the_log_says(store, &dir);
}

#[test]
fn the_thread_of_a_store_writes_hints_and_keeps_it_small() {
    let dir = tempdir().expect("a directory");
    let store = Store::open(dir.path(), &options(true)).expect("a store");
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
