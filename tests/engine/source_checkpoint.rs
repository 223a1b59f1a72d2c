//! Keeping the WAL small without losing anything and without standing in anyone's way.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use foreshadow_io::engine::sibling;
use foreshadow_io::engine::sqlite::{
    CheckpointTask, Checkpointed, Obstacle, PinState, SourceOptions,
};

use crate::replica::{Replica, attach_scanned};
use crate::source_tail::database;
use crate::worker::{Sqlite, Worker};

const INSERT: &str = "INSERT INTO t(v) VALUES (randomblob(300))";

fn checkpoint(replica: &Replica) -> Checkpointed {
    let task = replica.source.checkpoint().expect("a WAL");
    task.run().expect("run")
}

#[test]
fn a_restart_copies_everything_and_the_tail_goes_on_from_the_start() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(50, INSERT);
    let mut replica = Replica::new(&path);
    for round in 0..5 {
        app.repeat(30, INSERT);
        replica.follow();
        let done = checkpoint(&replica);
        assert!(done.restarted, "round {round}: {done:?}");
        if round % 2 == 0 {
            assert!(replica.source.poll(64).expect("poll").is_none());
            assert_eq!(replica.source.mark().frame, 0);
        }
    }
    app.repeat(10, INSERT);
    replica.follow();
    replica.assert_whole();
    assert_eq!((replica.commits, replica.source.wants_scan()), (160, None));
    assert_eq!(app.run("PRAGMA integrity_check"), "ok");
    assert_eq!(app.run("SELECT count(*) FROM t"), "210");
}

#[test]
fn only_consumed_frames_are_copied() {
    let (_dir, path, mut app) = database(4096);
    let mut replica = Replica::new(&path);
    checkpoint(&replica);
    replica.follow();
    app.repeat(5, INSERT);
    let size = std::fs::metadata(&path).expect("stat").len();
    let done = checkpoint(&replica);
    assert_eq!((done.backfilled, done.obstacle), (0, Some(Obstacle::Tail)));
    assert_eq!(std::fs::metadata(&path).expect("stat").len(), size);
    replica.follow();
    assert_eq!(replica.commits, 5);
    assert!(checkpoint(&replica).restarted);
}

#[test]
fn a_reader_of_the_wal_keeps_its_snapshot_and_delays_the_restart() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(10, INSERT);
    let mut replica = Replica::new(&path);
    let mut reader = Worker::start(Sqlite::Python, &path);
    reader.run("BEGIN");
    assert_eq!(reader.run("SELECT count(*) FROM t"), "10");
    app.repeat(40, INSERT);
    replica.follow();
    let done = checkpoint(&replica);
    assert!(!done.restarted && done.backfilled < done.frames, "{done:?}");
    assert_eq!(reader.run("SELECT count(*) FROM t"), "10");
    assert_eq!(reader.run("SELECT sum(length(v)) FROM t"), "3000");
    reader.run("COMMIT");
    let done = checkpoint(&replica);
    assert!(done.restarted, "{done:?}");
    assert_eq!(reader.run("SELECT count(*) FROM t"), "50");
    replica.follow();
    replica.assert_whole();
}

#[test]
fn a_long_reader_above_the_cap_is_reported_so_that_the_pin_can_be_dropped() {
    let (_dir, path, mut app) = database(4096);
    let options = SourceOptions {
        wal_bytes_max: 64 << 10,
        ..Default::default()
    };
    let mut replica = Replica::with(&path, &options);
    let mut reader = Worker::bundled(&path);
    reader.script(&["BEGIN", "SELECT count(*) FROM t"]);
    app.repeat(100, INSERT);
    replica.follow();
    let done = checkpoint(&replica);
    assert!(done.over_cap && !done.restarted, "{done:?}");
    replica.source.drop_pin().expect("unpin");
    assert!(
        replica.source.checkpoint().is_none(),
        "checkpoints need the pin"
    );
    reader.run("COMMIT");
    app.run("PRAGMA wal_checkpoint(TRUNCATE)");
    app.run(INSERT);
    replica.source.take_pin().expect("pin");
    replica.follow();
    replica.assert_whole();
}

/// Runs checkpoints on a thread of their own, as the daemon does.
struct Helper {
    tasks: mpsc::Sender<CheckpointTask>,
    done: mpsc::Receiver<Checkpointed>,
}

impl Helper {
    fn start() -> Helper {
        let (tasks, queue) = mpsc::channel::<CheckpointTask>();
        let (results, done) = mpsc::channel();
        std::thread::spawn(move || {
            for task in queue {
                let sent = results.send(task.run().expect("checkpoint"));
                sent.expect("the test listens");
            }
        });
        Helper { tasks, done }
    }
}

#[test]
fn the_wal_stays_near_its_cap_under_flat_out_writers_and_nothing_is_lost() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(20, INSERT);
    let cap = 1 << 20;
    let options = SourceOptions {
        wal_bytes_max: cap,
        ..Default::default()
    };
    let mut replica = Replica::with(&path, &options);
    let mut second = Worker::start(Sqlite::Python, &path);
    second.run("PRAGMA synchronous=OFF");
    const UPDATE: &str = "UPDATE t SET v=randomblob(250) WHERE id=abs(random()%20)+1";
    app.send(&format!("flood 2500 {UPDATE}"));
    second.send(&format!("flood 2500 {UPDATE}"));
    let helper = Helper::start();
    let begin = Instant::now();
    let (mut restarts, mut largest) = (0, 0);
    while begin.elapsed() < Duration::from_millis(2500) {
        replica.follow();
        largest = largest.max(replica.source.wal_bytes());
        if replica.source.wal_bytes() > cap / 2
            && let Some(task) = replica.source.checkpoint()
        {
            helper.tasks.send(task).expect("the helper listens");
        }
        restarts += helper.done.try_iter().filter(|done| done.restarted).count();
        std::thread::sleep(Duration::from_micros(200));
    }
    let made: u64 = [app.answer(), second.answer()]
        .map(|answer| answer.expect("flooded").parse::<u64>().expect("a count"))
        .iter()
        .sum();
    replica.follow();
    assert_eq!((replica.commits, replica.source.wants_scan()), (made, None));
    replica.assert_whole();
    assert!(
        restarts >= 2,
        "{restarts} restarts in {made} commits, WAL up to {largest} bytes"
    );
    assert!(
        largest < 48 * cap,
        "the WAL grew to {largest} bytes with {restarts} restarts"
    );
    assert_eq!(app.run("PRAGMA integrity_check"), "ok");
}

/// Every writer used to wait for the application's own checkpoint, and that for our pin, until its
/// busy timeout had passed. The timeout is far longer than what a busy machine takes for the rest.
#[test]
fn an_application_that_truncates_the_wal_does_not_wait_for_the_pin() {
    for sqlite in [Sqlite::Bundled, Sqlite::Python] {
        let (_dir, path, mut app) = database(4096);
        // Two checkpoints at once would make the one that counts answer busy.
        app.run("PRAGMA wal_autocheckpoint=0");
        app.repeat(20, INSERT);
        let mut replica = Replica::new(&path);
        let mut other = Worker::start(sqlite, &path);
        other.script(&["PRAGMA busy_timeout=20000", "PRAGMA synchronous=OFF"]);
        let mut yielded = 0;
        for mode in ["TRUNCATE", "RESTART", "FULL", "TRUNCATE"] {
            app.repeat(10, INSERT);
            app.send(&format!("flood 300 {INSERT}"));
            let begin = Instant::now();
            other.send(&format!("x PRAGMA wal_checkpoint({mode})"));
            let waiter = std::thread::spawn(move || {
                let answer = other.answer();
                (other, answer, begin.elapsed())
            });
            while !waiter.is_finished() || replica.source.pin_state() != PinState::Held {
                replica.follow();
                let state = replica
                    .source
                    .yield_pin_if_asked(Instant::now())
                    .expect("look");
                yielded += usize::from(state == PinState::Yielded);
                std::thread::sleep(Duration::from_micros(100));
            }
            let (worker, answer, took) = waiter.join().expect("no panic");
            other = worker;
            assert_eq!(answer.expect("checkpointed"), "0", "{mode} was not busy");
            assert!(took < Duration::from_secs(10), "{mode} took {took:?}");
            app.answer().expect("writers go on");
            replica.follow();
            assert_eq!(replica.source.wants_scan(), None, "after {mode}");
            replica.assert_whole();
        }
        assert!(yielded > 0, "the pin made way");
    }
}

#[test]
fn a_truncated_wal_is_followed_after_the_pin_came_back() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(20, INSERT);
    let mut replica = Replica::new(&path);
    app.send("x PRAGMA wal_checkpoint(TRUNCATE)");
    let begin = Instant::now();
    while replica.source.pin_state() == PinState::Held {
        replica
            .source
            .yield_pin_if_asked(Instant::now())
            .expect("look");
        assert!(begin.elapsed() < Duration::from_secs(3), "never yielded");
    }
    assert_eq!(app.answer().expect("done"), "0");
    assert_eq!(
        std::fs::metadata(sibling(&path, "-wal"))
            .expect("stat")
            .len(),
        0
    );
    replica
        .source
        .yield_pin_if_asked(Instant::now())
        .expect("look");
    assert_eq!(replica.source.pin_state(), PinState::Held);
    app.repeat(3, INSERT);
    replica.follow();
    assert_eq!((replica.commits, replica.source.wants_scan()), (3, None));
    replica.assert_whole();
}

#[test]
fn a_scan_keeps_the_database_file_as_old_as_its_mark() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(30, INSERT);
    let mut source = attach_scanned(&path);
    let task = source.scan().expect("scan");
    app.repeat(30, INSERT);
    let done = source.checkpoint().expect("a WAL").run().expect("run");
    assert_eq!(done.obstacle, Some(Obstacle::Scan));
    assert!(done.backfilled < done.frames);
    let result = task
        .run(&mut |_, _| std::ops::ControlFlow::Continue(()))
        .expect("run");
    let before = source.digest();
    match source.adopt(result).expect("adopt") {
        foreshadow_io::engine::sqlite::Adopted::Change(change) => {
            assert_eq!(
                (change.digest(), change.pages()),
                (before, 0),
                "nothing was missed"
            );
            source.consume(&change);
        }
        other => panic!("{other:?}"),
    }
    while let Some(change) = source.poll(64).expect("poll") {
        source.consume(&change);
    }
    assert!(
        source
            .checkpoint()
            .expect("a WAL")
            .run()
            .expect("run")
            .restarted
    );
}
