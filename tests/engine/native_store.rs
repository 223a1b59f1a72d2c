//! The native store: a model, hints, damage, seals and space.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use foreshadow_io::engine::native::store::{Batch, Error, Store, StoreOptions};
use proptest::prelude::*;
use tempfile::tempdir;
use wal::Lsn;
use wal::log::segment::Slots;
use wal::log::{Control, Options};

pub const SEGMENT: u32 = 64 << 10;

pub fn options(keeper: bool) -> StoreOptions {
    StoreOptions {
        log: Options {
            segment_bytes: SEGMENT,
            ..Options::default()
        },
        keeper,
        ..StoreOptions::default()
    }
}

/// The log in a test's directory, which is made.
pub fn log_in(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir).expect("a directory");
    dir.join("log")
}

pub fn open(dir: &Path) -> Store {
    Store::open(&log_in(dir), &options(false)).expect("a store")
}

/// A copy of a store's files: nothing of the live words counts, as after a power cut.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        match fs::copy(entry.path(), to.join(entry.file_name())) {
            // A segment that is being made is not in use yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => drop(other.expect("a copy")),
        }
    }
}

/// Files whose names end so.
pub fn named(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == suffix))
        .collect();
    paths.sort();
    paths
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a store says it holds.
pub fn contents(store: &Store) -> Model {
    let keys = store.keys().into_iter();
    keys.map(|key| {
        let value = store.get(&key).expect("readable").expect("a listed key");
        (key, value)
    })
    .collect()
}

fn assert_same(store: &Store, model: &Model) {
    assert_eq!(store.len(), model.len());
    let found = contents(store);
    for (key, value) in model {
        assert!(found.get(key) == Some(value), "key {key:?}");
    }
    assert_eq!(store.get(b"never").expect("readable"), None);
}

/// The log's file and the offset at which position `at` lies.
fn place_of(dir: &Path, at: Lsn) -> (PathBuf, u64) {
    let mut slots = slots(dir);
    let layout = slots.layout().clone();
    let slot = slots.find(layout.number(at)).expect("readable");
    let begin = layout.slot_at(slot.expect("the segment"));
    (log_in(dir), begin + layout.offset(at))
}

fn slots(dir: &Path) -> Slots {
    let control = Control::open(&log_in(dir)).expect("the log");
    control.slots().expect("its slots")
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path);
    let file = file.expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("damaged");
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Delete(u8),
    Batch(Vec<(u8, Option<usize>)>),
    Compact,
    Hint,
    Reopen,
    PowerCut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![0usize..300, 2_000usize..12_000];
    let change = (0u8..24, prop::option::weighted(0.8, 0usize..200));
    let step = prop_oneof![
        12 => (0u8..24, len).prop_map(|(key, len)| Step::Put(key, len)),
        3 => (0u8..24).prop_map(Step::Delete),
        3 => prop::collection::vec(change, 1..30).prop_map(Step::Batch),
        3 => Just(Step::Compact),
        2 => Just(Step::Hint),
        1 => Just(Step::Reopen),
        1 => Just(Step::PowerCut),
    ];
    prop::collection::vec(step, 1..160)
}

/// Short keys and one that is not in place in the directory.
fn key(index: u8) -> Vec<u8> {
    vec![index; usize::from(index) * 2]
}

fn value(count: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![count as u8; len + 8];
    bytes[..8].copy_from_slice(&(count as u64).to_le_bytes());
    bytes
}

fn play(steps: &[Step]) {
    let root = tempdir().expect("a directory");
    let mut dir = root.path().join("0");
    let mut store = open(&dir);
    let mut model = Model::new();
    for (count, step) in steps.iter().enumerate() {
        match step {
            Step::Put(index, len) => {
                let at = store.put(&key(*index), &value(count, *len));
                assert!(at.expect("room") <= store.position());
                model.insert(key(*index), value(count, *len));
                assert_eq!(
                    store.get(&key(*index)).expect("readable"),
                    model.get(&key(*index)).cloned()
                );
            }
            Step::Delete(index) => {
                store.delete(&key(*index)).expect("room");
                model.remove(&key(*index));
                assert_eq!(store.get(&key(*index)).expect("readable"), None);
            }
            Step::Batch(changes) => {
                let mut batch = Batch::default();
                for (index, len) in changes {
                    match len {
                        Some(len) => {
                            batch.put(&key(*index), &value(count, *len));
                            model.insert(key(*index), value(count, *len));
                        }
                        None => {
                            batch.delete(&key(*index));
                            model.remove(&key(*index));
                        }
                    }
                }
                store.write(&batch).expect("room");
            }
            Step::Compact => {
                store.compact_once().expect("compacted");
            }
            Step::Hint => {
                store.write_hints().expect("hinted");
            }
            Step::Reopen => {
                drop(store);
                store = open(&dir);
                assert_same(&store, &model);
            }
            Step::PowerCut => {
                let next = root.path().join(format!("cut-{count}"));
                copy(&dir, &next);
                dir = next;
                store = open(&dir);
                assert_same(&store, &model);
            }
        }
    }
    assert_same(&store, &model);
    drop(store);
    assert_same(&open(&dir), &model);
    // Without hints as with them.
    for path in named(&dir, "hint") {
        fs::remove_file(path).expect("removed");
    }
    assert_same(&open(&dir), &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_a_map_through_compactions_reopenings_and_power_cuts(steps in steps()) {
        play(&steps);
    }

    #[test]
    fn slots_stay_within_the_stated_multiple_of_what_is_live(
        writes in prop::collection::vec((0u8..40, 0usize..9_000), 100..400),
    ) {
        let dir = tempdir().expect("a directory");
        let store = open(dir.path());
        let mut model = Model::new();
        for (count, (index, len)) in writes.iter().enumerate() {
            store.put(&[*index], &value(count, *len)).expect("room");
            model.insert(vec![*index], value(count, *len));
            if count % 8 == 7 {
                store.compact().expect("compacted");
                let usage = store.usage().expect("readable");
                // A record is less than a quarter of a segment, a put at least a block.
                let growth = 2;
                prop_assert!(usage.segments <= usage.segments_max + growth, "{:?}", usage);
                let slots = slots(dir.path()).look().expect("readable").len() as u64;
                // Four spares, and one that is made ahead.
                prop_assert!(slots <= usage.segments_max + growth + 5, "{} {:?}", slots, usage);
            }
        }
        assert_same(&store, &model);
        drop(store);
        assert_same(&open(dir.path()), &model);
    }
}

/// A store of several finished segments, and what it holds.
fn filled(dir: &Path) -> (Store, Model) {
    let store = open(dir);
    let mut model = Model::new();
    for count in 0..60 {
        let key = vec![(count % 40) as u8; 3];
        store.put(&key, &value(count, 5_000)).expect("room");
        model.insert(key, value(count, 5_000));
        if count % 7 == 3 {
            let gone = vec![(count % 5) as u8; 3];
            store.delete(&gone).expect("room");
            model.remove(&gone);
        }
    }
    (store, model)
}

#[test]
fn hints_are_read_instead_of_segments() {
    let dir = tempdir().expect("a directory");
    let (store, model) = filled(dir.path());
    let written = store.write_hints().expect("hinted");
    assert!(written >= 5, "{written}");
    assert_eq!(store.write_hints().expect("hinted"), 0, "once each");
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.loaded().hinted.len() as u64, written);
    assert_eq!(store.loaded().scanned, 1, "the one that is written into");
    assert_same(&store, &model);
}

#[test]
fn a_damaged_torn_or_foreign_hint_means_a_scan() {
    let dir = tempdir().expect("a directory");
    let (store, model) = filled(dir.path());
    store.write_hints().expect("hinted");
    drop(store);
    let hints = named(dir.path(), "hint");
    let len = fs::metadata(&hints[0]).expect("a hint").len();
    flip(&hints[0], len - 3);
    let torn = File::options().write(true).open(&hints[1]);
    torn.expect("a hint").set_len(80).expect("torn");
    fs::copy(&hints[3], &hints[2]).expect("of another segment");
    fs::write(&hints[4], []).expect("empty");
    let store = open(dir.path());
    assert_eq!(store.loaded().scanned, 5);
    assert_eq!(store.loaded().hinted.len(), hints.len() - 4);
    assert_same(&store, &model);
}

/// Two copies of a log that parted have segments of the same number with different records.
#[test]
fn a_hint_of_another_history_is_not_believed() {
    let root = tempdir().expect("a directory");
    let (one, two) = (root.path().join("1"), root.path().join("2"));
    let store = open(&one);
    store.put(b"both", b"old").expect("room");
    copy(&one, &two);
    let mut model = Model::from([(b"both".to_vec(), b"old".to_vec())]);
    let other = open(&two);
    for count in 0..20 {
        store.put(b"both", &value(count, 900)).expect("room");
        other.put(&[count as u8], &value(count, 900)).expect("room");
        model.insert(vec![count as u8], value(count, 900));
    }
    store.write_hints().expect("hinted");
    drop(other);
    for hint in named(&one, "hint") {
        fs::copy(&hint, two.join(hint.file_name().expect("a name"))).expect("a copy");
    }
    let other = open(&two);
    assert!(other.loaded().hinted.is_empty());
    assert_same(&other, &model);
}

#[test]
fn a_damaged_record_is_an_error_with_its_position_and_never_a_value() {
    let dir = tempdir().expect("a directory");
    let (store, model) = filled(dir.path());
    store.write_hints().expect("hinted");
    let key = model.keys().next().expect("a key").clone();
    let at = store.locate(&key).expect("a place");
    let (path, offset) = place_of(dir.path(), at);
    for byte in [0, 5, 9, 17, 20, 600] {
        flip(&path, offset + byte);
        match store.get(&key) {
            Err(Error::Damaged { at: found, .. }) => assert_eq!(found, at),
            other => panic!("byte {byte}: {other:?}"),
        }
        flip(&path, offset + byte);
        assert_eq!(store.get(&key).expect("mended").as_ref(), model.get(&key));
    }
    // Compaction gives up rather than lose it, and gives nothing back.
    flip(&path, offset + 600);
    let first = store.usage().expect("readable").first;
    while store.usage().expect("readable").first < at {
        match store.compact_once() {
            Ok(_) => {}
            Err(Error::Damaged { .. }) => break,
            other => panic!("{other:?}"),
        }
    }
    let usage = store.usage().expect("readable");
    assert!(usage.first >= first && usage.first <= at, "{usage:?}");
    flip(&path, offset + 600);
    assert_same(&store, &model);
}

#[test]
fn a_sealed_store_is_read_only_and_says_where() {
    let dir = tempdir().expect("a directory");
    let (store, model) = filled(dir.path());
    let sidecar = Control::open(&log_in(dir.path())).expect("the log");
    assert!(store.sealed().is_none());
    let word = sidecar.seal();
    sidecar.save_seal().expect("saved");
    for refused in [store.put(b"new", b"value"), store.delete(b"new")] {
        match refused {
            Err(Error::Sealed { at, .. }) => assert_eq!(at, word.lsn),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.sealed(), Some(word));
    assert_same(&store, &model);
    drop(store);
    match Store::open(&log_in(dir.path()), &options(false)) {
        Err(Error::Sealed { at, .. }) => assert_eq!(at, word.lsn),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_sidecar_holds_is_not_used_again_until_it_lets_go() {
    let dir = tempdir().expect("a directory");
    let (store, mut model) = filled(dir.path());
    let first = store.usage().expect("readable").first;
    let sidecar = Control::open(&log_in(dir.path())).expect("the log");
    let tail = sidecar.tail().expect("a lock").expect("nobody else tails");
    sidecar.set_hold(first);
    let number = sidecar.layout().number(first);
    let is_there = || {
        let mut slots = slots(dir.path());
        slots.look().expect("readable").contains_key(&number)
    };
    let mut write = |store: &Store| {
        for count in 0..60 {
            store.put(b"again", &value(count, 3000)).expect("room");
            model.insert(b"again".to_vec(), value(count, 3000));
            store.compact().expect("compacted");
        }
        assert_same(store, &model);
    };
    let step = store.compact_once().expect("compacted").expect("a step");
    assert!(step.first > first, "it is no part of the log any more");
    write(&store);
    assert!(is_there(), "the one who tails can still read it");
    drop(tail);
    write(&store);
    assert!(!is_there());
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let dir = tempdir().expect("a directory");
    let store = open(dir.path());
    let long = vec![1; 70_000];
    let mut batch = Batch::default();
    batch.put(b"key", b"value");
    batch.put(&long, b"");
    let mut many = Batch::default();
    for index in 0..8 {
        many.put(&[index], &long[..12_000]);
    }
    let refused = [
        store.put(b"key", &long),
        store.put(&long, b""),
        store.write(&batch),
        store.write(&many),
    ];
    for result in refused {
        assert!(matches!(result, Err(Error::TooLong { .. })), "{result:?}");
    }
    assert!(store.is_empty());
    store.put(b"", &long[..15_000]).expect("a quarter");
    assert_eq!(
        store.get(b"").expect("readable"),
        Some(long[..15_000].to_vec())
    );
}

#[test]
fn a_put_that_no_mirror_confirmed_is_in_the_store_as_it_is_in_the_log() {
    let dir = tempdir().expect("a directory");
    let timeout = std::time::Duration::from_millis(5);
    let durability = wal::log::Durability::Mirrored { timeout };
    let log = Options {
        durability,
        ..options(false).log
    };
    let options = StoreOptions {
        log,
        ..options(false)
    };
    let store = Store::open(&log_in(dir.path()), &options).expect("a store");
    let put = store.put(b"key", b"value");
    assert!(matches!(put, Err(Error::NotMirrored { .. })), "{put:?}");
    let model = Model::from([(b"key".to_vec(), b"value".to_vec())]);
    assert_same(&store, &model);
    drop(store);
    assert_same(&open(dir.path()), &model);
}
