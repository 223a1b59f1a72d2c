//! Torn tails, flipped bits, stale pages, old bytes in recycled segments: what was acknowledged is
//! there, or the damage is told.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use foreshadow_wal::Lsn;
use foreshadow_wal::log::{Control, Error, Kind};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::tempdir;

use crate::support::{Records, assert_same, copy, fill, lies_at, log, open, place, read, read_dir};

/// A log of several segments in `dir`, closed.
fn made(dir: &Path) -> Records {
    let appender = open(dir);
    fill(&appender, 90)
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path);
    let file = file.expect("a file");
    file.write_all_at(bytes, at).expect("written");
}

#[test]
fn a_group_that_was_torn_is_no_record_and_appending_goes_on_there() {
    let dir = tempdir().expect("a directory");
    let mut all = made(dir.path());
    // What an open found is saved as durable; what comes after it is not yet.
    all.extend(fill(&open(dir.path()), 2));
    let last = all.last().expect("records").0;
    // As if power had failed within the last write: its first sector is there, the rest is not.
    let group = place(dir.path(), Lsn(last.0 - 64)).expect("it is there");
    overwrite(&log(dir.path()), group + 72, &[0; 64]);
    // The commit word is as it was before that write.
    let other = tempdir().expect("a directory");
    let copied = copy(dir.path(), other.path());
    stale_word(&copied, &all);
    let records = read_dir(&copied).expect("readable");
    assert_same(&records, &all[..all.len() - 1]);
    let appender = open(&copied);
    let lsn = appender.append(Kind(7), b"instead").expect("appended");
    assert_eq!(lsn, last, "in its place");
    let again = read(appender.control()).expect("readable");
    assert_eq!(again[all.len() - 1].2, b"instead");
}

/// Sets the commit word to where the last record's group begins.
fn stale_word(dir: &Path, all: &Records) {
    let last = all.last().expect("records").0;
    let word = 1u64 << 48 | (last.0 - 64) >> 3;
    overwrite(&log(dir), 64, &word.to_le_bytes());
}

#[test]
fn a_stale_control_page_loses_nothing() {
    let dir = tempdir().expect("a directory");
    let mut all = Vec::new();
    let mut pages = Vec::new();
    for _ in 0..4 {
        let appender = open(dir.path());
        for _ in 0..4 {
            let file = fs::read(log(dir.path())).expect("a log");
            pages.push(file[..4096].to_vec());
            all.extend(fill(&appender, 12));
        }
    }
    for page in pages {
        let other = tempdir().expect("a directory");
        let copied = copy(dir.path(), other.path());
        overwrite(&log(&copied), 0, &page);
        assert_same(&read_dir(&copied).expect("readable"), &all);
        let appender = open(&copied);
        let lsn = appender.append(Kind(1), b"more").expect("appended");
        drop(appender);
        let third = tempdir().expect("a directory");
        let records = read_dir(&copy(&copied, third.path())).expect("readable");
        assert_eq!(records.len(), all.len() + 1);
        assert_eq!(records.last().expect("records").0, lsn);
    }
}

#[test]
fn groups_that_an_earlier_run_left_behind_never_come_back() {
    let dir = tempdir().expect("a directory");
    let mut left_behind = 0;
    for round in 0..40 {
        let appender = open(dir.path());
        let control = appender.control();
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| while appender.append(Kind(1), &[round; 100]).is_ok() {});
            }
            let began = appender.position();
            while appender.position().0 < began.0 + 20 * 4096 {
                std::thread::yield_now();
            }
            control.seal();
        });
        drop(appender);
        // What was being written at the seal lies above it, whole, and was refused.
        Control::open(&log(dir.path()))
            .and_then(|log| log.unseal())
            .expect("taken back");
        let appender = open(dir.path());
        appender.append(Kind(2), b"in its place").expect("appended");
        let records = read(appender.control()).expect("readable");
        left_behind += u32::from(lies_at(dir.path(), appender.position()));
        drop(appender);
        let other = tempdir().expect("a directory");
        let copied = read_dir(&copy(dir.path(), other.path())).expect("as after a power cut");
        assert_same(&copied, &records);
    }
    assert!(
        left_behind > 0,
        "a whole group of an earlier run lay right behind the end"
    );
}

#[test]
fn a_seal_ends_the_log_though_whole_groups_lie_above_it() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let kept = fill(&appender, 30);
    let control = Control::open(&log(dir.path())).expect("a log");
    let sealed = control.seal();
    let late = appender.append(Kind(1), b"written, not acknowledged");
    assert!(matches!(late, Err(Error::Sealed { .. })), "{late:?}");
    control.save_seal().expect("durable");
    drop(appender);
    let other = tempdir().expect("a directory");
    for place in [dir.path().to_owned(), copy(dir.path(), other.path())] {
        let control = Control::open(&log(&place)).expect("a log");
        assert_eq!(control.word(), sealed);
        assert_same(&read(&control).expect("readable"), &kept);
        let error =
            foreshadow_wal::log::Appender::open(&log(&place), &crate::support::options()).err();
        assert!(matches!(error, Some(Error::Sealed { .. })), "{error:?}");
    }
}

#[test]
fn a_seal_that_is_not_durable_is_none_after_a_power_cut() {
    let dir = tempdir().expect("a directory");
    let kept = {
        let appender = open(dir.path());
        fill(&appender, 30)
    };
    let control = Control::open(&log(dir.path())).expect("a log");
    control.seal();
    let other = tempdir().expect("a directory");
    let copied = copy(dir.path(), other.path());
    assert_same(&read_dir(&copied).expect("readable"), &kept);
    open(&copied).append(Kind(1), b"on").expect("appended");
    control.unseal().expect("taken back");
    open(dir.path()).append(Kind(1), b"on").expect("appended");
}

#[test]
fn no_flipped_bit_loses_or_changes_a_record_in_silence() {
    let dir = tempdir().expect("a directory");
    let all = made(dir.path());
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(300)
    });
    let cases = (any::<prop::sample::Index>(), 0u8..8);
    let mut told = 0;
    let flips = std::cell::RefCell::new(&mut told);
    runner
        .run(&cases, |(at, bit)| {
            let other = tempdir().expect("a directory");
            let copied = copy(dir.path(), other.path());
            let path = log(&copied);
            let mut bytes = fs::read(&path).expect("a file");
            // The control page matters most, and groups begin with blocks: a quarter of the flips
            // hit the one, a half of them the others.
            let at = match at.index(bytes.len() * 4) {
                at if at < bytes.len() => at,
                at if at < bytes.len() * 3 => at % bytes.len() / 4096 * 4096 + at % 256,
                at => at % 4096,
            };
            bytes[at] ^= 1 << bit;
            fs::write(&path, &bytes).expect("written");
            match read_dir(&copied) {
                Ok(records) => prop_assert!(records == all, "byte {} bit {}", at, bit),
                Err(_) => **flips.borrow_mut() += 1,
            }
            Ok(())
        })
        .expect("nothing goes unnoticed");
    assert!(told > 20, "most flips hit records: {told}");
}

/// The control page is as old as it can be, so what proves the damage are later groups alone.
#[test]
fn a_lost_group_that_later_ones_know_as_committed_is_told() {
    let dir = tempdir().expect("a directory");
    drop(open(dir.path()));
    let page = fs::read(log(dir.path())).expect("a log")[..4096].to_vec();
    let appender = open(dir.path());
    let all = fill(&appender, 90);
    drop(appender);
    // One in the first segment, of which the page knows nothing, up to the last but one.
    for lost in [0, 1, 7, 40, 80, 88] {
        let other = tempdir().expect("a directory");
        let copied = copy(dir.path(), other.path());
        overwrite(&log(&copied), 0, &page);
        let group = place(&copied, Lsn(all[lost].0.0 - 64)).expect("it is there");
        overwrite(&log(&copied), group + 70, b"?!");
        match read_dir(&copied) {
            Err(Error::Damaged { .. }) => {}
            other => panic!("{lost}: {:?}", other.map(|records| records.len())),
        }
    }
}

#[test]
fn damage_below_the_end_is_told_and_where() {
    let dir = tempdir().expect("a directory");
    let all = made(dir.path());
    let (lsn, _, _) = all[20];
    let record = place(dir.path(), lsn).expect("it is there");
    overwrite(&log(dir.path()), record + 20, b"!");
    match read_dir(dir.path()) {
        Err(Error::Damaged { at, .. }) => assert_eq!(at.0, lsn.0 - 64),
        other => panic!("{other:?}"),
    }
    let other = tempdir().expect("a directory");
    let error = read_dir(&copy(dir.path(), other.path())).expect_err("damaged");
    assert!(error.to_string().contains("damaged"), "{error}");
}
