//! What is appended is read, in order, once, by whoever asks, across segments and openings.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foreshadow_wal::log::control::Creation;
use foreshadow_wal::log::saved::Run;
use foreshadow_wal::log::{Appender, Control, Durability, Error, Kind, Options, Scanner};
use foreshadow_wal::{Epoch, Lsn};
use tempfile::tempdir;

use crate::support::{
    SEGMENT, assert_same, copy, fill, log, open, options, payload, read, read_dir, read_with, slots,
};

#[test]
fn what_is_appended_is_read_in_order_across_segments_and_openings() {
    let dir = tempdir().expect("a directory");
    let mut expected = Vec::new();
    for _ in 0..3 {
        let appender = open(dir.path());
        expected.extend(fill(&appender, 60));
        assert_same(&read(appender.control()).expect("readable"), &expected);
    }
    assert!(slots(dir.path()) > 3, "several segments");
    assert_same(&read_dir(dir.path()).expect("readable"), &expected);
    let other = tempdir().expect("a directory");
    let moved = copy(dir.path(), other.path());
    assert_same(&read_dir(&moved).expect("as after a power cut"), &expected);
}

#[test]
fn threads_share_groups_and_each_record_is_there_once() {
    const THREADS: u32 = 16;
    const EACH: u32 = 100;
    for groups_in_flight in [1, 4] {
        let dir = tempdir().expect("a directory");
        let options = Options {
            groups_in_flight,
            ..options()
        };
        let appender = Appender::open(&log(dir.path()), &options).expect("a log");
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let appender = &appender;
                scope.spawn(move || {
                    let mut last = Lsn(0);
                    for index in 0..EACH {
                        let bytes = [thread.to_le_bytes(), index.to_le_bytes()].concat();
                        let lsn = appender.append(Kind(1), &bytes).expect("appended");
                        assert!(lsn > last, "one after another");
                        assert!(appender.position() > lsn, "acknowledged");
                        last = lsn;
                    }
                });
            }
        });
        let records = read(appender.control()).expect("readable");
        let different: BTreeSet<_> = records.iter().map(|(_, _, bytes)| bytes).collect();
        let count = (THREADS * EACH) as usize;
        assert_eq!((records.len(), different.len()), (count, count));
        let groups = groups(appender.control());
        assert!(groups < count, "{groups} groups for {count} records");
    }
}

fn groups(control: &Control) -> usize {
    let mut scanner = Scanner::new(control).expect("readable");
    let mut count = 0;
    while scanner.next_group().expect("whole").is_some() {
        count += 1;
    }
    count
}

#[test]
fn a_batch_is_one_group_and_the_longest_fits_exactly() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let payloads: Vec<_> = (0..100).map(payload).collect();
    let batch: Vec<_> = payloads.iter().map(|p| (Kind(3), &p[..])).collect();
    let mut places = Vec::new();
    let end = appender.append_batch(&batch, |lsn| places.push(lsn));
    assert_eq!(end.expect("appended"), appender.position());
    assert_eq!((groups(appender.control()), places.len()), (1, 100));
    // A segment without its head, the group's header and the record's.
    let longest = SEGMENT as usize - 4096 - 64 - 16;
    appender
        .append(Kind(4), &vec![1; longest])
        .expect("it fits");
    let error = appender.append(Kind(4), &vec![1; longest + 1]);
    assert!(matches!(error, Err(Error::TooLong { .. })), "{error:?}");
    assert_eq!(read(appender.control()).expect("readable").len(), 101);
}

#[test]
fn an_empty_batch_and_an_empty_record_are_fine() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let before = appender.position();
    assert_eq!(appender.append_batch(&[], |_| ()).expect("nothing"), before);
    appender.append(Kind(9), &[]).expect("appended");
    let records = read(appender.control()).expect("readable");
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].1, &records[0].2[..]), (9, &[][..]));
}

#[test]
fn released_segments_are_used_again_and_their_old_bytes_are_no_records() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let mut kept = Vec::new();
    for round in 0..12 {
        kept = fill(&appender, 40);
        let first = appender.release(kept[0].0).expect("released");
        assert!(first <= kept[0].0, "what is needed is kept");
        let records = read(appender.control()).expect("readable");
        assert!(records.ends_with(&kept), "round {round}");
        assert!(records.iter().all(|(lsn, _, _)| *lsn >= first));
    }
    let slots = slots(dir.path());
    assert!(slots <= 8, "slots are used again: {slots}");
    drop(appender);
    let other = tempdir().expect("a directory");
    let records = read_dir(&copy(dir.path(), other.path())).expect("readable");
    assert!(records.ends_with(&kept), "after a power cut");
}

#[test]
fn everything_is_released_where_a_group_ends_exactly_with_its_segment() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let longest = SEGMENT as usize - 4096 - 64 - 16;
    for _ in 0..3 {
        appender
            .append(Kind(1), &vec![1; longest])
            .expect("it fits");
        let position = appender.position();
        assert_eq!(position.0 % u64::from(SEGMENT), 0);
        let first = appender.release(position).expect("released");
        assert!(first < position, "the log does not begin behind its end");
    }
    drop(appender);
    let other = tempdir().expect("a directory");
    for place in [dir.path().to_owned(), copy(dir.path(), other.path())] {
        open(&place).append(Kind(2), b"on").expect("appended");
        let records = read_dir(&place).expect("readable");
        assert_eq!(records.last().map(|record| record.1), Some(2));
    }
}

#[test]
fn what_the_sidecar_holds_is_not_used_again() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let all = fill(&appender, 80);
    let sidecar = Control::open(&log(dir.path())).expect("a log");
    let tail = sidecar.tail().expect("a lock").expect("nobody else tails");
    assert!(sidecar.tail().expect("a lock").is_none(), "one at a time");
    sidecar.set_hold(all[5].0);
    let first = appender.release(appender.position()).expect("released");
    assert!(first > all[5].0, "it is no part of the log any more");
    fill(&appender, 80);
    let held = Scanner::from(&sidecar, Lsn(all[5].0.0 - 64)).expect("a reader");
    let held = read_with(held).expect("it is there for the one who tails");
    assert_same(&held[..75], &all[5..]);
    // A sidecar that is dead holds nothing.
    drop(tail);
    fill(&appender, 160);
    let mut late = Scanner::from(&sidecar, Lsn(all[5].0.0 - 64)).expect("a reader");
    let error = late.next_group().err();
    assert!(matches!(error, Some(Error::Gone { .. })), "{error:?}");
}

#[test]
fn the_bell_wakes_who_tails() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let started = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let tail = scope.spawn(|| {
            let control = Control::open(&log(dir.path())).expect("a log");
            let mut scanner = Scanner::new(&control).expect("a reader");
            let (mut count, mut sleeps) = (0, 0);
            while count < 50 {
                let seen = control.bell();
                started.store(true, Ordering::SeqCst);
                match scanner.next_group().expect("whole") {
                    Some(group) => count += group.records().count(),
                    None => {
                        sleeps += 1;
                        control.wait_bell(seen, Duration::from_secs(20));
                    }
                }
            }
            sleeps
        });
        while !started.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        fill(&appender, 50);
        let sleeps = tail.join().expect("the tail ends");
        assert!(sleeps <= 51, "woken once per append at most: {sleeps}");
    });
}

#[test]
fn a_mirrored_append_returns_when_the_mirror_has_it_and_says_when_it_has_not() {
    let dir = tempdir().expect("a directory");
    let timeout = Duration::from_millis(50);
    let options = Options {
        durability: Durability::Mirrored { timeout },
        ..options()
    };
    let appender = Appender::open(&log(dir.path()), &options).expect("a log");
    let began = Instant::now();
    let error = appender.append(Kind(1), b"alone");
    assert!(matches!(error, Err(Error::NotMirrored { .. })), "{error:?}");
    assert!(began.elapsed() >= timeout);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let control = Control::open(&log(dir.path())).expect("a log");
            let began = Instant::now();
            while !done.load(Ordering::SeqCst) && began.elapsed() < Duration::from_secs(60) {
                let seen = control.bell();
                control.set_mirrored(control.word().lsn);
                control.wait_bell(seen, Duration::from_millis(20));
            }
        });
        let long = Options {
            durability: Durability::Mirrored {
                timeout: Duration::from_secs(20),
            },
            ..options
        };
        drop(appender);
        let appender = Appender::open(&log(dir.path()), &long).expect("a log");
        for index in 0..100 {
            let lsn = appender.append(Kind(1), &payload(index)).expect("mirrored");
            assert!(appender.control().mirrored() > lsn);
        }
        done.store(true, Ordering::SeqCst);
    });
    let records = read_dir(dir.path()).expect("readable");
    assert_eq!(records.len(), 101, "what was not confirmed is durable here");
}

#[test]
fn an_open_of_what_must_exist_makes_nothing() {
    let dir = tempdir().expect("a directory");
    let only = Options {
        create: false,
        ..options()
    };
    let missing = Appender::open(&log(dir.path()), &only).expect_err("nothing is there");
    assert!(missing.to_string().contains("No such file"), "{missing}");
    let left = std::fs::read_dir(dir.path()).expect("a directory").count();
    assert_eq!(left, 0, "not even a lock");
    drop(open(dir.path()));
    Appender::open(&log(dir.path()), &only).expect("it is there now");
}

/// Makes a log that nobody opens.
fn make(dir: &Path, epoch: Epoch, sealed: bool) {
    let creation = Creation {
        id: options().id,
        segment_bytes: SEGMENT,
        epoch,
        first: Lsn(4096),
        lsn: Lsn(4096),
        sealed,
    };
    Control::create(&log(dir), creation).expect("a log");
}

#[test]
fn a_sealed_log_is_refused_without_a_trace() {
    let dir = tempdir().expect("a directory");
    make(dir.path(), Epoch(9), true);
    let before = std::fs::read(log(dir.path())).expect("a file");
    let refused = Appender::open(&log(dir.path()), &options()).expect_err("it is sealed");
    let is_told = matches!(
        refused,
        Error::Sealed {
            epoch: Epoch(9),
            at: Lsn(4096)
        }
    );
    assert!(is_told, "{refused}");
    assert_eq!(std::fs::read(log(dir.path())).expect("a file"), before);
    let left = std::fs::read_dir(dir.path()).expect("a directory").count();
    assert_eq!(left, 1, "no lock beside it");
}

/// The run of the newest saved block, and how many were saved.
fn run(dir: &Path) -> (u32, u64) {
    let control = Control::open(&log(dir)).expect("a log");
    let run = control.saved::<Run>().expect("a run");
    (run.run, run.number)
}

#[test]
fn only_the_first_open_finds_its_run_begun() {
    let dir = tempdir().expect("a directory");
    let first = open(dir.path());
    assert_eq!(run(dir.path()), (1, 1), "as it was made");
    drop(first);
    drop(open(dir.path()));
    assert_eq!(run(dir.path()), (2, 2), "though nothing was appended");
    drop(open(dir.path()));
    assert_eq!(run(dir.path()), (3, 3));
}

#[test]
fn a_run_is_not_taken_over_from_another_boot_or_file() {
    let dir = tempdir().expect("a directory");
    make(dir.path(), Epoch(1), false);
    let other = tempdir().expect("a directory");
    let moved = copy(dir.path(), other.path());
    drop(open(&moved));
    assert_eq!(run(&moved).0, 2, "who knows who wrote under the first");
}
