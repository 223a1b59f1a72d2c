//! A frozen log: appends wait and nobody sees more than that, or they are refused by the seal.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use foreshadow_wal::log::control::boottime;
use foreshadow_wal::log::{Control, Error, Kind};
use rustix::process::Signal;
use tempfile::tempdir;

use crate::child::{Writer, check, highest};
use crate::support::{assert_same, fill, log, open, read, read_dir};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn appends_wait_for_the_thaw_and_go_on_as_if_nothing_had_been() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let control = Control::open(&log(dir.path())).expect("a log");
    let _tail = control.tail().expect("a lock").expect("nobody else tails");
    let count = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for index in 0..100 {
                    appender.append(Kind(index), b"x").expect("it only waits");
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..20 {
            let frozen = control.freeze(boottime() + LONG).expect("not sealed");
            let before = read(&control).expect("readable");
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(control.word(), frozen, "nothing is acknowledged");
            assert_same(&read(&control).expect("readable"), &before);
            control.thaw();
        }
    });
    assert_eq!(count.load(Ordering::SeqCst), 400);
    assert_eq!(read(&control).expect("readable").len(), 400);
}

#[test]
fn a_seal_ends_the_wait_and_the_log_is_what_it_was_when_it_was_frozen() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let kept = fill(&appender, 10);
    let control = Control::open(&log(dir.path())).expect("a log");
    let _tail = control.tail().expect("a lock").expect("nobody else tails");
    let frozen = control.freeze(boottime() + LONG).expect("not sealed");
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| appender.append(Kind(1), b"refused")))
            .collect();
        std::thread::sleep(Duration::from_millis(5));
        let sealed = control.seal_at(frozen).expect("it is as it was frozen");
        assert_eq!((sealed.lsn, sealed.frozen), (frozen.lsn, false));
        for append in waiting {
            let error = append.join().expect("it returns");
            assert!(matches!(error, Err(Error::Sealed { .. })), "{error:?}");
        }
    });
    control.save_seal().expect("durable");
    assert_same(&read_dir(dir.path()).expect("readable"), &kept);
}

#[test]
fn a_freeze_whose_time_is_over_binds_nobody_and_can_not_be_sealed_any_more() {
    let dir = tempdir().expect("a directory");
    let appender = open(dir.path());
    let control = Control::open(&log(dir.path())).expect("a log");
    let tail = control.tail().expect("a lock").expect("nobody else tails");
    let until = boottime() + Duration::from_millis(30);
    let frozen = control.freeze(until).expect("not sealed");
    appender
        .append(Kind(1), b"late")
        .expect("it goes on by itself");
    assert!(boottime() >= until, "it has waited");
    assert!(
        control.seal_at(frozen).is_err(),
        "there is more than was frozen"
    );
    // Who froze it dies, and its time is long.
    control.freeze(boottime() + LONG).expect("not sealed");
    drop(tail);
    drop(appender);
    open(dir.path())
        .append(Kind(1), b"later")
        .expect("it goes on");
    assert_eq!(read(&control).expect("readable").len(), 2);
}

#[test]
fn a_writer_that_is_stopped_at_any_moment_of_a_freeze_acknowledges_nothing_beyond_it() {
    let mut told_in_all = 0;
    for round in 0..60 {
        let dir = tempdir().expect("a directory");
        drop(open(dir.path()));
        let control = Control::open(&log(dir.path())).expect("a log");
        let _tail = control.tail().expect("a lock").expect("nobody else tails");
        let writer = Writer::start(dir.path());
        writer.wait_for(round % 20);
        let frozen = match round % 2 {
            0 => {
                let frozen = control.freeze(boottime() + LONG);
                writer.stop();
                frozen
            }
            _ => {
                writer.stop();
                control.freeze(boottime() + LONG)
            }
        };
        let sealed = control.seal_at(frozen.expect("not sealed"));
        control.save_seal().expect("durable");
        writer.signal(Signal::CONT);
        let (told, by_itself) = writer.finish();
        assert!(by_itself, "it was refused");
        let sealed = sealed.expect("nothing came in between");
        assert!(highest(&told) < sealed.lsn);
        check(&told, &read(&control).expect("no hole"));
        told_in_all += told.len();
    }
    assert!(told_in_all > 100);
}

#[test]
fn a_writer_that_is_stopped_beyond_its_lease_acknowledges_nothing_when_it_goes_on() {
    let mut told_in_all = 0;
    for round in 0..40 {
        let dir = tempdir().expect("a directory");
        drop(open(dir.path()));
        let control = Control::open(&log(dir.path())).expect("a log");
        let writer = Writer::start(dir.path());
        writer.wait_for(1 + round % 10);
        writer.stop();
        // What was committed was looked at before, or is looked at now, when the lease is over.
        let committed = control.word().lsn;
        control.set_lease(boottime());
        writer.signal(Signal::CONT);
        let (told, by_itself) = writer.finish();
        assert!(by_itself, "it was refused");
        assert!(highest(&told) < committed, "acknowledged after the lease");
        check(&told, &read(&control).expect("no hole"));
        told_in_all += told.len();
    }
    assert!(told_in_all > 40);
}
