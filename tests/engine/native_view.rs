//! The mapped view: growth, release, and switchovers under readers that never stop.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use foreshadow_io::engine::native::store::Store;
use foreshadow_io::engine::native::store::record::{self, Change};
use foreshadow_io::engine::native::view::{Follower, View, ViewOptions};
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};
use wal::log::control::Creation;
use wal::log::saved::{Ownership, Run};
use wal::log::{Appender, Control, Error, Kind, Options};
use wal::{Epoch, Lsn};

use crate::native_store::{SEGMENT, log_in, options};
use crate::native_threads::Stop;

/// A live path and the generations that it leads to, one after the other.
struct Live {
    root: TempDir,
    generation: u64,
}

impl Live {
    fn new() -> Live {
        let root = tempdir().expect("a directory");
        let live = Live {
            root,
            generation: 1,
        };
        symlink(live.log(1), live.path()).expect("a link");
        live
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("live")
    }

    fn dir(&self, generation: u64) -> PathBuf {
        self.root.path().join(generation.to_string())
    }

    fn log(&self, generation: u64) -> PathBuf {
        log_in(&self.dir(generation))
    }

    fn store(&self) -> Store {
        Store::open(&self.path(), &options(true)).expect("a store")
    }

    /// Seals the log and fills the next generation from it, in other slots, still sealed.
    fn fill_next(&mut self) -> (Control, Lsn) {
        let (from, to) = (self.log(self.generation), self.log(self.generation + 1));
        self.generation += 1;
        let source = Control::open(&from).expect("the log");
        let end = source.seal().lsn;
        source.save_seal().expect("saved");
        let first = source.saved::<Run>().expect("saved").first;
        let creation = Creation {
            id: source.id(),
            segment_bytes: source.segment_bytes(),
            epoch: source.saved::<Ownership>().expect("saved").epoch,
            first,
            lsn: first,
            sealed: true,
        };
        let file = fs::read(&from).expect("the log");
        let mut copy = creation.page();
        for slot in file[4096..].chunks_exact(SEGMENT as usize).rev() {
            copy.extend_from_slice(slot);
        }
        fs::write(&to, copy).expect("a copy");
        (Control::open(&to).expect("a copy"), end)
    }

    /// Lets the live path lead to the newest generation.
    fn exchange(&self) {
        let next = self.root.path().join("next");
        symlink(self.log(self.generation), &next).expect("a link");
        fs::rename(&next, self.path()).expect("exchanged");
    }

    /// A whole switchover; the old generation is deleted.
    fn switch(&mut self) {
        let old = self.dir(self.generation);
        let (next, end) = self.fill_next();
        let epoch = next.saved::<Ownership>().expect("saved").epoch;
        next.grant(Epoch(epoch.0 + 1), end).expect("granted");
        self.exchange();
        fs::remove_dir_all(old).expect("removed");
    }
}

fn view(path: &Path) -> View {
    let options = ViewOptions {
        window_bytes: 64 * SEGMENT as usize,
        prefault_bytes: 8 * SEGMENT as usize,
    };
    View::open(path, &options).expect("a view")
}

fn appender(path: &Path) -> Appender {
    let options = Options {
        segment_bytes: SEGMENT,
        ..Options::default()
    };
    Appender::open(path, &options).expect("a log")
}

fn payload(index: u64) -> Vec<u8> {
    let mut bytes = index.to_le_bytes().to_vec();
    bytes.resize(8 + (index as usize * 53) % 3000, index as u8);
    bytes
}

#[test]
fn what_is_appended_is_read_by_position_and_in_order() {
    let live = Live::new();
    let log = appender(&live.path());
    let view = view(&live.path());
    let mut scan = view.scan().expect("a scan");
    assert!(scan.next_group().expect("nothing yet").is_none());
    let mut places = Vec::new();
    for index in 0..100u64 {
        let at = log.append(Kind(7), &payload(index)).expect("room");
        places.push(at);
        let group = scan.next_group().expect("whole").expect("the new one");
        let records: Vec<_> = group
            .records()
            .map(|r| (r.lsn, r.payload.to_vec()))
            .collect();
        assert_eq!(records, [(at, payload(index))]);
        let answer = view.read(at).expect("whole").expect("acknowledged");
        assert_eq!((answer.kind, answer.payload), (Kind(7), payload(index)));
        assert_eq!(answer.stamp.generation, 1);
        assert_eq!(answer.stamp.committed, log.position());
    }
    assert!(
        log.position().0 > 3 * u64::from(SEGMENT),
        "several segments"
    );
    assert_eq!(view.read(log.position()).expect("not there yet"), None);
    for (index, at) in places.iter().enumerate() {
        let answer = view.read(*at).expect("whole").expect("acknowledged");
        assert_eq!(answer.payload, payload(index as u64));
    }
}

#[test]
fn what_was_released_is_gone_and_never_something_else() {
    let live = Live::new();
    let log = appender(&live.path());
    let view = view(&live.path());
    let mut places = Vec::new();
    for round in 0..12u64 {
        for index in 0..30 {
            let index = round * 30 + index;
            places.push(log.append(Kind(7), &payload(index)).expect("room"));
        }
        let kept = places.len().saturating_sub(20);
        let first = log.release(places[kept]).expect("released");
        let (mut gone, mut there) = (0, 0);
        for (index, at) in places.iter().enumerate() {
            match view.read(*at) {
                Ok(Some(answer)) => {
                    assert!(*at >= first);
                    assert_eq!(answer.payload, payload(index as u64));
                    there += 1;
                }
                Err(Error::Gone { .. }) => {
                    assert!(*at < first);
                    gone += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(there >= 20 && (round < 3 || gone > 0), "{there} {gone}");
    }
    let mut old = view.scan_from(places[0]);
    assert!(matches!(old.next_group(), Err(Error::Gone { .. })));
    assert!(
        view.scan()
            .expect("a scan")
            .next_group()
            .expect("whole")
            .is_some()
    );
}

#[test]
fn more_segments_than_fit_are_mapped_in_turn() {
    let live = Live::new();
    let log = appender(&live.path());
    let options = ViewOptions {
        window_bytes: 2 * SEGMENT as usize,
        prefault_bytes: 64 * SEGMENT as usize,
    };
    let view = View::open(&live.path(), &options).expect("a view");
    let append = |index| log.append(Kind(7), &payload(index)).expect("room");
    let places: Vec<_> = (0..120).map(append).collect();
    for step in [1, 37, 50] {
        for index in (0..120).map(|index| index * step % 120) {
            let answer = view.read(places[index]).expect("whole").expect("there");
            assert_eq!(answer.payload, payload(index as u64));
        }
    }
}

#[test]
fn a_generation_that_is_still_being_filled_is_not_taken_over() {
    let mut live = Live::new();
    let log = appender(&live.path());
    let at = log.append(Kind(7), &payload(3)).expect("room");
    let view = view(&live.path());
    drop(log);
    let (next, end) = live.fill_next();
    live.exchange();
    assert!(!view.refresh().expect("looked"), "it is behind");
    let stamp = view.stamp().expect("a stamp");
    assert_eq!((stamp.generation, stamp.committed), (1, end));
    assert_eq!(
        view.wait_for(end.after(4096), Duration::from_millis(5))
            .expect("looked"),
        None
    );
    next.grant(Epoch(2), end).expect("granted");
    assert!(view.refresh().expect("looked"));
    let answer = view.read(at).expect("whole").expect("there");
    assert_eq!(answer.payload, payload(3));
    assert_eq!((answer.stamp.generation, answer.stamp.epoch), (2, Epoch(2)));
    assert!(view.last_switch().is_some());
    let log = appender(&live.path());
    let later = log.append(Kind(7), &payload(4)).expect("room");
    let waited = view
        .wait_for(log.position(), Duration::ZERO)
        .expect("looked");
    assert!(waited.is_some());
    assert_eq!(
        view.read(later).expect("whole").expect("there").payload,
        payload(4)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn a_position_where_no_record_begins_is_never_a_record(
            ats in prop::collection::vec(0u64..700_000, 200),
        ) {
        let live = Live::new();
        let log = appender(&live.path());
        let append = |index| (log.append(Kind(7), &payload(index)).expect("room"), payload(index));
        let records: BTreeMap<_, _> = (0..60).map(append).collect();
        let view = view(&live.path());
        for at in ats {
            match view.read(Lsn(at)) {
                Ok(Some(answer)) => prop_assert_eq!(Some(&answer.payload), records.get(&Lsn(at))),
                Ok(None) => prop_assert!(Lsn(at) >= log.position()),
                Err(error) => {
                    prop_assert!(!records.contains_key(&Lsn(at)), "{}", error);
                }
            }
        }
    }
}

const KEYS: u64 = 12;

/// A value of `key` that was written as the `count`th.
fn value(count: u64) -> Vec<u8> {
    let mut bytes = count.to_le_bytes().to_vec();
    bytes.resize(8 + (count as usize * 41) % 1500, count as u8);
    bytes
}

/// What the writer has been told: of each key the newest count, and the position to ask for.
type Tokens = Mutex<BTreeMap<u64, (u64, Lsn)>>;

/// Writes one key after the other, each count once, until told to stop.
fn write(store: &RwLock<Option<Store>>, tokens: &Tokens, running: &AtomicBool) {
    let mut count = 0;
    while running.load(Ordering::Relaxed) {
        let store = store.read().expect("a store");
        let Some(store) = &*store else { continue };
        let key = count % KEYS;
        match store.put(&key.to_le_bytes(), &value(count)) {
            Ok(at) => {
                tokens.lock().expect("tokens").insert(key, (count, at));
                count += 1;
            }
            Err(Error::Sealed { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads on and on: never older than what was promised before, never torn, generations grow.
fn read(view: &View, tokens: &Tokens, running: &AtomicBool, reads: &AtomicU64) {
    let mut scan = view.scan().expect("a scan");
    let (mut newest, mut places) = (BTreeMap::new(), BTreeMap::new());
    let mut last = view.stamp().expect("a stamp");
    while running.load(Ordering::Relaxed) {
        let promised = tokens.lock().expect("tokens").clone();
        for (key, (count, token)) in promised {
            let waited = view
                .wait_for(token, Duration::from_secs(20))
                .expect("looked");
            let stamp = waited.expect("in time");
            assert!(stamp.generation >= last.generation && stamp.epoch >= last.epoch);
            assert!(stamp.committed >= token && stamp.committed >= last.committed);
            last = stamp;
            let mut target = token;
            while scan.position() < target {
                let group = match scan.next_group() {
                    Ok(group) => group.expect("there is more"),
                    Err(Error::Gone { .. }) => {
                        // What was released was moved, to before where the log ends now.
                        scan = view.scan().expect("a scan");
                        target = view.stamp().expect("a stamp").committed;
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                assert!(group.stamp.generation >= last.generation);
                for found in group.records() {
                    let change = Change::read(found.kind, found.payload).expect("a store's");
                    let Change::Put { key, value: bytes } = change else {
                        panic!("nothing is deleted")
                    };
                    let count = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
                    assert_eq!(bytes, value(count), "not torn");
                    let key = u64::from_le_bytes(key.try_into().expect("eight bytes"));
                    assert_eq!(count % KEYS, key);
                    newest.insert(key, count);
                    places.insert(key, (found.lsn, found.payload.to_vec()));
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }
            assert!(
                newest[&key] >= count,
                "key {key}: {} of {count}",
                newest[&key]
            );
            let (at, payload) = &places[&key];
            match view.read(*at) {
                Ok(answer) => {
                    let answer = answer.expect("acknowledged");
                    assert_eq!(answer.payload, *payload);
                    assert!([record::PUT, record::RELOCATED].contains(&answer.kind));
                    assert!(answer.stamp.generation >= last.generation);
                    last = answer.stamp;
                }
                Err(Error::Gone { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_reader_that_never_stops_is_never_older_than_its_token_across_switchovers() {
    let mut live = Live::new();
    let store = RwLock::new(Some(live.store()));
    let view = Arc::new(view(&live.path()));
    let follower = Follower::start(&view).expect("a thread");
    let (tokens, running, reads) = (Tokens::default(), AtomicBool::new(true), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&store, &tokens, &running));
        let readers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| read(&view, &tokens, &running, &reads)))
            .collect();
        let _stop = Stop(&running);
        for round in 0..8 {
            std::thread::sleep(Duration::from_millis(150));
            if round % 2 == 0 {
                // The seal meets a writer in the middle of it.
                let sealer = Control::open(&live.path()).expect("the log");
                sealer.seal();
            }
            let mut open = store.write().expect("a store");
            *open = None;
            live.switch();
            *open = Some(live.store());
            drop(open);
            if writer.is_finished() || readers.iter().any(|reader| reader.is_finished()) {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    });
    let until = Instant::now() + Duration::from_secs(10);
    while view.stamp().expect("a stamp").generation < 9 {
        assert!(Instant::now() < until, "all switchovers are seen");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(follower.failure().is_none(), "{:?}", follower.failure());
    let switch = view.last_switch().expect("eight of them");
    assert!(switch.segments > 0, "{switch:?}");
    let reads = reads.into_inner();
    assert!(reads > 500, "{reads} records read");
}

/// A reader asks for segments that were not mapped yet, of a generation that was just deleted: its
/// file is open, so it is read until the view takes the next one over.
#[test]
fn a_generation_that_was_deleted_is_read_until_the_next_is_taken_over() {
    let mut live = Live::new();
    let log = appender(&live.path());
    let append = |index| log.append(Kind(7), &payload(index)).expect("room");
    let places: Vec<_> = (0..120).map(append).collect();
    let options = ViewOptions {
        window_bytes: 64 * SEGMENT as usize,
        prefault_bytes: 1,
    };
    let view = View::open(&live.path(), &options).expect("a view");
    drop(log);
    live.switch();
    let mut oldest = 1;
    for round in 1..=2 {
        for (index, at) in places.iter().enumerate() {
            let answer = view.read(*at).expect("whole").expect("there");
            assert_eq!(answer.payload, payload(index as u64));
            assert!(answer.stamp.generation >= oldest, "generations grow");
            oldest = answer.stamp.generation;
        }
        assert!(round == 1 || oldest == 2);
        view.refresh().expect("taken over");
    }
}
