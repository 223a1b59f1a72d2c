//! The native engine: puts against raw appends, gets against a hash map and memcpy, opening with
//! and without hints, and a view that takes a new generation over against one that is opened anew.

#[allow(dead_code, reason = "every bench uses a part of it")]
mod report;
#[allow(dead_code, reason = "every bench uses a part of it")]
mod stage;

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use io::engine::native::store::{Batch, Store, StoreOptions};
use io::engine::native::view::{View, ViewOptions};
use report::{Bar, Bound, Figure, Report, median};
use wal::log::control::Creation;
use wal::log::saved::Run;
use wal::log::{Appender, Control, Kind, Options};
use wal::{Epoch, Lsn};

const ROUNDS: usize = 9;
const SLICE: Duration = Duration::from_millis(700);
const VALUE: [u8; 128] = [0x5a; 128];
const KEYS: u64 = 1_000_000;
const BATCH: u64 = 1000;
/// Keys that puts overwrite and gets ask for.
const HOT: u64 = 100_000;
/// What the view of the switchover reads: one record a page, 16 segments.
const PAGES: usize = 16 << 10;

fn main() -> ExitCode {
    let stage = stage::Stage::new("native");
    let mut report = Report::new("native");
    report.note(&format!("on {}", stage.filesystem()));
    let dir = stage.path();
    for threads in [1, 16] {
        puts(&mut report, dir, threads);
    }
    gets(&mut report, dir);
    opens(&mut report, dir, KEYS, 128);
    opens(&mut report, dir, KEYS / 10, 4000);
    switches(&mut report, dir);
    report.finish()
}

fn options() -> StoreOptions {
    StoreOptions {
        log: Options {
            segment_bytes: 16 << 20,
            ..Options::default()
        },
        ..StoreOptions::default()
    }
}

fn key(index: u64) -> [u8; 16] {
    let mut key = [0; 16];
    // Spread, so that neighbours are nowhere near in memory.
    key[..8].copy_from_slice(&index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// How often a second `threads` threads run `once`, which is told a number of its own.
fn rate(threads: u64, once: impl Fn(u64) + Sync) -> f64 {
    let begun = Instant::now();
    let count: u64 = std::thread::scope(|scope| {
        let once = &once;
        let spawn = |thread| {
            scope.spawn(move || {
                let mut count = 0;
                while begun.elapsed() < SLICE {
                    once(count * threads + thread);
                    count += 1;
                }
                count
            })
        };
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        threads.into_iter().map(|t| t.join().expect("done")).sum()
    });
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Overwrites of 100,000 keys beside appends of as many bytes; the store also writes hints, and
/// compacts to stay in its bounds.
fn puts(report: &mut Report, dir: &Path, threads: u64) {
    let store = Store::open(&dir.join("puts"), &options()).expect("a store");
    let raw = Appender::open(&dir.join("raw"), &options().log).expect("a log");
    let record = [&key(0)[..], &VALUE, &[0; 2]].concat();
    let longest = vec![1; 1 << 20];
    for _ in 0..48 {
        raw.append(Kind(0), &longest).expect("room");
    }
    raw.release(raw.position()).expect("spares");
    let (mut ours, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(rate(threads, |count| {
            store.put(&key(count % HOT), &VALUE).expect("room");
        }));
        bound.push(rate(threads, |_| {
            raw.append(Kind(1), &record).expect("room");
        }));
        raw.release(raw.position()).expect("released");
    }
    let usage = store.usage().expect("readable");
    let (ours, bound) = (median(ours), median(bound));
    let case = format!("puts, {threads} threads, 128 B");
    let bound = Bound(bound, "the same records by Appender");
    report.case(&case, Figure(ours, "1/s"), bound, Bar::None);
    report.note(&format!("{usage:?}"));
    assert!(store.failure().is_none(), "{:?}", store.failure());
}

fn gets(report: &mut Report, dir: &Path) {
    let path = dir.join("gets");
    let store = Store::open(&path, &options()).expect("a store");
    fill(&store, HOT, &VALUE);
    let map: HashMap<Vec<u8>, Vec<u8>> = (0..HOT)
        .map(|index| (key(index).to_vec(), VALUE.to_vec()))
        .collect();
    let view = View::open(&path, &ViewOptions::default()).expect("a view");
    let place = |index| store.locate(&key(index)).expect("a place");
    let places: Vec<Lsn> = (0..HOT).map(place).collect();
    let values = vec![1u8; 128 * HOT as usize];
    // The first round brings everything into memory.
    let mut rates: [Vec<f64>; 4] = Default::default();
    for _ in 0..=ROUNDS {
        let spread = |count: u64| (count * 7919) % HOT;
        rates[0].push(rate(1, |count| {
            let value = store.get(&key(spread(count))).expect("readable");
            assert_eq!(black_box(value).expect("there").len(), VALUE.len());
        }));
        rates[1].push(rate(1, |count| {
            black_box(map.get(&key(spread(count))[..]).cloned()).expect("there");
        }));
        let mut payload = Vec::new();
        rates[2].push(one_thread(|count| {
            let at = places[spread(count) as usize];
            let read = view.read_into(at, &mut payload).expect("whole");
            black_box(read).expect("there");
        }));
        let mut copy = [0; 128];
        rates[3].push(one_thread(|count| {
            let at = spread(count) as usize * 128;
            copy.copy_from_slice(&values[at..at + 128]);
            black_box(&copy);
        }));
    }
    let [store, map, view, memcpy] = rates.map(|rates| median(rates[1..].to_vec()));
    let bound = Bound(map, "HashMap lookup and clone");
    report.case(
        "store gets, 1 thread, 128 B",
        Figure(store, "1/s"),
        bound,
        Bar::None,
    );
    let bound = Bound(memcpy, "memcpy of 128 B");
    report.case(
        "view reads by position, 1 thread",
        Figure(view, "1/s"),
        bound,
        Bar::None,
    );
}

fn one_thread(mut once: impl FnMut(u64)) -> f64 {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < SLICE {
        for _ in 0..64 {
            once(count);
            count += 1;
        }
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn fill(store: &Store, keys: u64, value: &[u8]) {
    for first in (0..keys).step_by(BATCH as usize) {
        let mut batch = Batch::default();
        for index in first..(first + BATCH).min(keys) {
            batch.put(&key(index), value);
        }
        store.write(&batch).expect("room");
    }
}

/// Memory of this process in bytes.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<f64>().ok())
        .expect("a number")
        * 1024.0
}

/// The time of an open with hints against one without, and memory per key.
fn opens(report: &mut Report, dir: &Path, keys: u64, value: usize) {
    let path = dir.join(format!("opened-{value}"));
    let options = StoreOptions {
        keeper: false,
        ..options()
    };
    let store = Store::open(&path, &options).expect("a store");
    fill(&store, keys, &vec![7; value]);
    store.write_hints().expect("hinted");
    drop(store);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut memory = 0.0;
    for round in 0..3 {
        let before = resident();
        let begun = Instant::now();
        let store = Store::open(&path, &options).expect("a store");
        with.push(begun.elapsed().as_secs_f64() * 1e3);
        assert!(store.loaded().scanned <= 1 && store.len() as u64 == keys);
        if round == 0 {
            memory = (resident() - before) / keys as f64;
        }
        drop(store);
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|found| found == "hint") {
                fs::remove_file(path).expect("removed");
            }
        }
        let begun = Instant::now();
        let store = Store::open(&path, &options).expect("a store");
        without.push(begun.elapsed().as_secs_f64() * 1e3);
        assert!(store.loaded().hinted.is_empty());
        store.write_hints().expect("hinted");
    }
    let bound = Bound(median(without), "without hints: the log is read");
    let figure = Figure(median(with), "ms");
    report.case(
        &format!("open, {keys} keys, values of {value} B, hints"),
        figure,
        bound,
        Bar::None,
    );
    if keys < KEYS {
        // It fits into what the one before has let go.
        return;
    }
    let bound = Bound(24.0, "16 bytes of key, 8 of place");
    report.case(
        "memory of the key directory",
        Figure(memory, "B/key"),
        bound,
        Bar::None,
    );
}

/// Two generations of one log behind a live path, which is exchanged again and again.
fn switches(report: &mut Report, dir: &Path) {
    let (one, two, live) = (dir.join("gen1"), dir.join("gen2"), dir.join("live"));
    let places = two_generations(&one, &two);
    std::os::unix::fs::symlink(&one, &live).expect("a link");
    let options = ViewOptions::default();
    let view = View::open(&live, &options).expect("a view");
    // What a reader meets who closes and opens: pages are mapped as he touches them.
    let cold = ViewOptions {
        prefault_bytes: 1,
        ..options
    };
    let mut other = View::open(&live, &cold).expect("a view");
    read_all(&view, &places);
    let mut times: [Vec<f64>; 6] = Default::default();
    for round in 0..2 * ROUNDS {
        let next = dir.join("next");
        let target = if round % 2 == 0 { &two } else { &one };
        std::os::unix::fs::symlink(target, &next).expect("a link");
        fs::rename(&next, &live).expect("exchanged");
        assert!(view.refresh().expect("taken over"));
        let switch = view.last_switch().expect("a switchover");
        times[0].push(switch.taken_over.as_secs_f64() * 1e6);
        times[1].push(switch.taken_over.as_secs_f64() * 1e6 / switch.segments as f64);
        times[2].push(switch.prepared.as_secs_f64() * 1e6);
        times[3].push(read_all(&view, &places));
        let begun = Instant::now();
        drop(other);
        other = View::open(&live, &cold).expect("a view");
        times[4].push(begun.elapsed().as_secs_f64() * 1e6);
        times[5].push(read_all(&other, &places));
    }
    let [taken, each, prepared, warm, opened, faults] = times.map(median);
    report.note(&format!(
        "a new generation is prepared beside readers in {prepared:.0} us"
    ));
    let bound = Bound(opened, "closing and opening anew");
    report.case(
        "view take-over, 64 MiB, readers wait",
        Figure(taken, "us"),
        bound,
        Bar::None,
    );
    let bound = Bound(21.0, "mremap of 4 MiB as measured before");
    report.case(
        "view take-over, one segment of 4 MiB",
        Figure(each, "us"),
        bound,
        Bar::None,
    );
    let bound = Bound(faults, "the same after opening anew");
    let case = "first read of 16,384 pages after it";
    report.case(case, Figure(warm, "us"), bound, Bar::None);
    let bound = Bound(opened + faults, "open anew + first read");
    let case = "take-over + first read";
    report.case(case, Figure(taken + warm, "us"), bound, Bar::None);
}

/// A log of 64 MiB, one record a page, and a granted copy of it; the places of the records.
fn two_generations(one: &Path, two: &Path) -> Vec<Lsn> {
    let appender = Appender::open(one, &Options::default()).expect("a log");
    let payload = vec![7; 4096 - 16];
    let batch = vec![(Kind(1), &payload[..]); 64];
    let mut places = Vec::new();
    while places.len() < PAGES {
        let appended = appender.append_batch(&batch, |at| places.push(at));
        appended.expect("room");
    }
    let end = appender.position();
    drop(appender);
    let source = Control::open(one).expect("the log");
    let first = source.saved::<Run>().expect("saved").first;
    let creation = Creation {
        id: source.id(),
        segment_bytes: source.segment_bytes(),
        epoch: Epoch(1),
        first,
        lsn: first,
        sealed: true,
    };
    let mut file = fs::read(one).expect("the log");
    file[..4096].copy_from_slice(&creation.page());
    fs::write(two, file).expect("a copy");
    let copy = Control::open(two).expect("a copy");
    copy.grant(Epoch(2), end).expect("granted");
    places
}

/// Reads all records, one a page, checksum and all: microseconds.
fn read_all(view: &View, places: &[Lsn]) -> f64 {
    let mut payload = Vec::new();
    let begun = Instant::now();
    for at in places {
        let read = view.read_into(*at, &mut payload).expect("whole");
        black_box(read).expect("there");
    }
    begun.elapsed().as_secs_f64() * 1e6
}
