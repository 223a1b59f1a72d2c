//! The seal against writers that are running, stopped and killed: nothing above it was ever
//! acknowledged, everything acknowledged is below it.
//!
//! `FORESHADOW_ROUNDS=1000` sets the number of rounds.

use std::path::Path;

use foreshadow_wal::log::{Control, Word};
use rustix::process::Signal;
use tempfile::tempdir;

use crate::child::{Writer, check, highest};
use crate::support::{assert_same, copy, fill, lies_at, log, open, read, read_dir};

const ROUNDS: u64 = 1000;

/// What becomes of the writer in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It runs while the log is sealed.
    Runs,
    /// It is stopped before and goes on after it.
    Stopped,
    /// It is killed before.
    Killed,
    /// It is stopped before and killed after it, without having run again.
    StoppedAndKilled,
}

const FATES: [Fate; 4] = [
    Fate::Runs,
    Fate::Stopped,
    Fate::Killed,
    Fate::StoppedAndKilled,
];

fn rounds() -> u64 {
    let asked = std::env::var("FORESHADOW_ROUNDS").ok();
    asked.map_or(ROUNDS, |text| text.parse().expect("a number of rounds"))
}

#[test]
fn nothing_above_the_seal_was_ever_acknowledged() {
    let (mut acknowledged, mut above) = (0, 0);
    let rounds = rounds();
    for round in 0..rounds {
        let dir = tempdir().expect("a directory");
        let fate = FATES[(round % 4) as usize];
        let (told, sealed) = seal_round(dir.path(), fate, (round * 7 % 60) as usize);
        assert!(
            sealed.sealed && highest(&told) < sealed.lsn,
            "{fate:?}: {sealed:?}"
        );
        let records = read_dir(dir.path()).expect("no hole below the seal");
        check(&told, &records);
        let other = tempdir().expect("a directory");
        let copied = copy(dir.path(), other.path());
        assert_same(&read_dir(&copied).expect("as after a power cut"), &records);
        acknowledged += told.len();
        above += u64::from(lies_at(dir.path(), sealed.lsn));
    }
    println!(
        "{rounds} rounds, {acknowledged} acknowledged, {above} with whole groups above the seal"
    );
    assert!(
        above > 0,
        "the seal has ended logs that a checksum would not have"
    );
}

fn seal_round(dir: &Path, fate: Fate, count: usize) -> (Vec<[u64; 3]>, Word) {
    drop(open(dir));
    let control = Control::open(&log(dir)).expect("a log");
    let writer = Writer::start(dir);
    writer.wait_for(count);
    match fate {
        Fate::Runs => {}
        Fate::Stopped | Fate::StoppedAndKilled => writer.stop(),
        Fate::Killed => writer.signal(Signal::KILL),
    }
    control.seal();
    let sealed = control.save_seal().expect("durable");
    match fate {
        Fate::Stopped => writer.signal(Signal::CONT),
        Fate::StoppedAndKilled => writer.signal(Signal::KILL),
        Fate::Runs | Fate::Killed => {}
    }
    let (told, by_itself) = writer.finish();
    let expected = matches!(fate, Fate::Runs | Fate::Stopped);
    assert_eq!(by_itself, expected, "refused by the seal: {fate:?}");
    assert_eq!(control.word(), sealed, "nobody moved it");
    (told, sealed)
}

#[test]
fn a_log_whose_leader_was_killed_goes_on_with_all_that_was_acknowledged() {
    let dir = tempdir().expect("a directory");
    drop(open(dir.path()));
    let mut told = Vec::new();
    for round in 0..20 {
        let writer = Writer::start(dir.path());
        writer.wait_for(round * 3 % 25);
        writer.signal(Signal::KILL);
        let (more, _) = writer.finish();
        told.extend(more);
        let appender = open(dir.path());
        let records = read(appender.control()).expect("no hole");
        check(&told, &records);
        if round % 5 == 4 {
            let other = tempdir().expect("a directory");
            let copied = read_dir(&copy(dir.path(), other.path())).expect("as after a power cut");
            assert!(copied.starts_with(&records));
        }
    }
    assert!(told.len() > 100, "{} acknowledged", told.len());
}

/// A seal that could not be made is taken back to be sure, as is one that was taken back before.
#[test]
fn taking_back_a_seal_that_is_none_takes_no_record_back() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let control = Control::open(&log(dir.path())).expect("a log");
    let kept = std::thread::scope(|scope| {
        let filling = scope.spawn(|| fill(&appender, 500));
        while !filling.is_finished() {
            control.unseal().expect("nothing to be done");
        }
        filling.join().expect("nobody refused it")
    });
    assert_same(&read_dir(dir.path()).expect("whole"), &kept);
}
