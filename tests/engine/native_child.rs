//! A process of its own that writes into a store and is killed in the middle of it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use foreshadow_io::engine::native::store::{Error, Store, StoreOptions};
use tempfile::tempdir;

use crate::native_store::{contents, log_in, open, options};

const DIR: &str = "FORESHADOW_TEST_STORE";
const NAME: &str = "native_child::a_writer_that_is_killed_loses_nothing_that_returned";
const THREADS: u64 = 4;
const KEYS: u64 = 10;

fn key(thread: u64, index: u64) -> Vec<u8> {
    format!("{thread}/{}", index % KEYS).into_bytes()
}

/// Every third change is a delete.
fn value(thread: u64, index: u64) -> Option<Vec<u8>> {
    let mut bytes = [thread.to_le_bytes(), index.to_le_bytes()].concat();
    bytes.resize(16 + (index as usize * 31) % 700, index as u8);
    (index % 3 != 2).then_some(bytes)
}

/// Changes until it is killed; tells each change that returned.
fn write(dir: &Path) {
    let options = StoreOptions {
        space_factor: 2,
        ..options(true)
    };
    let store = loop {
        match Store::open(&log_in(dir), &options) {
            Err(Error::InUse { .. }) => std::thread::sleep(Duration::from_millis(10)),
            other => break other.expect("a store"),
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                store.compact_once().expect("compacted");
            }
        });
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for index in 0.. {
                    let key = key(thread, index);
                    match value(thread, index) {
                        Some(value) => store.put(&key, &value),
                        None => store.delete(&key),
                    }
                    .expect("room");
                    let words = [thread.to_le_bytes(), index.to_le_bytes()].concat();
                    std::io::stderr().write_all(&words).expect("a pipe");
                }
            });
        }
    });
}

/// Lets a writer run for a while and kills it: the last change of each thread that returned.
fn killed(dir: &Path, time: Duration) -> BTreeMap<u64, u64> {
    let exe = std::env::current_exe().expect("this test");
    let mut command = Command::new(exe);
    command.args([NAME, "--exact", "--nocapture"]).env(DIR, dir);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("a process");
    let mut said = child.stderr.take().expect("a pipe");
    let listener = std::thread::spawn(move || {
        let (mut last, mut bytes) = (BTreeMap::new(), [0; 16]);
        while said.read_exact(&mut bytes).is_ok() {
            let words = bytes.as_chunks::<8>().0;
            let [thread, index] = [0, 1].map(|at| u64::from_le_bytes(words[at]));
            last.insert(thread, index);
        }
        last
    });
    std::thread::sleep(time);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    listener.join().expect("it listens")
}

#[test]
fn a_writer_that_is_killed_loses_nothing_that_returned() {
    if let Some(dir) = std::env::var_os(DIR) {
        write(Path::new(&dir));
        return;
    }
    let mut changes = 0;
    for round in 0..6 {
        let dir = tempdir().expect("a directory");
        let last = killed(dir.path(), Duration::from_millis(400 + round * 150));
        let found = contents(&open(dir.path()));
        for thread in 0..THREADS {
            let last = last.get(&thread).copied();
            changes += last.map_or(0, |last| last + 1);
            let after = |count: u64| {
                let mut map = BTreeMap::new();
                for index in 0..count {
                    map.remove(&key(thread, index));
                    if let Some(value) = value(thread, index) {
                        map.insert(key(thread, index), value);
                    }
                }
                map
            };
            let prefix = format!("{thread}/").into_bytes();
            let mine = found.iter().filter(|(key, _)| key.starts_with(&prefix));
            let mine: BTreeMap<_, _> = mine.map(|(k, v)| (k.clone(), v.clone())).collect();
            // The change that was under way may be there or not.
            let count = last.map_or(0, |last| last + 1);
            let right = mine == after(count) || mine == after(count + 1);
            assert!(
                right,
                "round {round}, thread {thread}, {count} changes returned"
            );
        }
    }
    assert!(changes > 200, "{changes}");
}
