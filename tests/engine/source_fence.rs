//! Freezing and fencing: what connections that are already open can, and can no longer, do.

use std::path::Path;
use std::time::{Duration, Instant};

use foreshadow_io::Kind;
use foreshadow_io::durable::Attributes;
use foreshadow_io::engine::sqlite::{Source, fence_state};
use foreshadow_io::engine::{is_tombstone, tombstone};
use wal::{Engine, PartitionId};

use crate::replica::{Replica, attach_scanned};
use crate::source_tail::database;
use crate::worker::{Sqlite, Worker};

const INSERT: &str = "INSERT INTO t(v) VALUES (randomblob(300))";
const COUNT: &str = "SELECT count(*) FROM t";
const BUDGET: Duration = Duration::from_secs(2);

// SQLite's result codes.
const BUSY: i32 = 5;
const READONLY: i32 = 8;
const CANTOPEN: i32 = 14;
const NOTADB: i32 = 26;
const BUSY_SNAPSHOT: i32 = 517;

/// Freezes, consumes the rest, fences and lets go.
fn fence(source: &mut Source) {
    source.freeze(BUDGET).run().expect("frozen");
    while let Some(change) = source.poll(64).expect("poll") {
        source.consume(&change);
    }
    source
        .fence()
        .expect("everything is consumed")
        .run()
        .expect("durable");
    source.thaw().expect("thaw");
    assert!(source.is_fenced().expect("read"));
}

fn assert_refused(app: &mut Worker, sql: &str) {
    let code = app.try_run(sql).expect_err(sql);
    assert_eq!(code & 0xff, READONLY, "{sql} answered {code}");
}

#[test]
fn no_commit_is_accepted_after_the_fence_by_any_connection() {
    for sqlite in [Sqlite::Bundled, Sqlite::Python] {
        let (_dir, path, mut idle) = database(4096);
        idle.repeat(20, INSERT);
        let mut reading = Worker::start(sqlite, &path);
        reading.script(&["BEGIN", COUNT]);
        let mut waiting = Worker::start(sqlite, &path);
        waiting.run(COUNT);
        let mut opened = Worker::start(sqlite, &path);
        let mut replica = Replica::new(&path);

        replica.source.freeze(BUDGET).run().expect("frozen");
        waiting.send(&format!("x {INSERT}"));
        std::thread::sleep(Duration::from_millis(20));
        replica.follow();
        replica
            .source
            .fence()
            .expect("everything is consumed")
            .run()
            .expect("durable");
        replica.source.thaw().expect("thaw");

        assert_eq!(
            waiting.answer().expect_err("it waited for WRITE") & 0xff,
            READONLY
        );
        assert_refused(&mut idle, INSERT);
        assert_eq!(
            reading.try_run(INSERT),
            Err(BUSY_SNAPSHOT),
            "its snapshot is older"
        );
        reading.run("ROLLBACK");
        assert_refused(&mut reading, INSERT);
        assert_refused(&mut opened, "CREATE TABLE u(x)");
        let mut new = Worker::start(sqlite, &path);
        assert_refused(&mut new, INSERT);
        for undo in ["VACUUM", "PRAGMA user_version=7"] {
            assert_refused(&mut new, undo);
        }
        // A checkpoint may run, and undoes nothing.
        let _checkpointed = new.try_run("PRAGMA wal_checkpoint(PASSIVE)");
        for app in [&mut idle, &mut reading, &mut waiting, &mut opened, &mut new] {
            assert_eq!(app.run(COUNT), "20", "reads go on");
        }
        assert!(fence_state(&path).expect("read"));
        assert!(
            replica.source.poll(64).expect("poll").is_none(),
            "the fence is no change"
        );
        assert_eq!(replica.commits, 0);
        replica.assert_whole();
    }
}

#[test]
fn writers_flat_out_are_frozen_within_the_budget_and_resume_after_the_thaw() {
    let (_dir, path, mut app) = database(4096);
    let mut other = Worker::bundled(&path);
    other.run("PRAGMA synchronous=OFF");
    let mut replica = Replica::new(&path);
    app.send(&format!("flood 800 {INSERT}"));
    other.send(&format!("flood 800 {INSERT}"));
    std::thread::sleep(Duration::from_millis(200));
    replica.source.freeze(BUDGET).run().expect("frozen");
    replica.follow();
    assert!(!replica.source.changed(), "all there is was consumed");
    std::thread::sleep(Duration::from_millis(20));
    assert!(
        !replica.source.changed(),
        "nothing is committed while frozen"
    );
    replica.source.thaw().expect("thaw");
    let made = [app.answer(), other.answer()].map(|answer| {
        answer
            .expect("only waited")
            .parse::<u64>()
            .expect("a count")
    });
    replica.follow();
    assert_eq!(replica.commits, made.iter().sum::<u64>());
    replica.assert_whole();
}

#[test]
fn a_freeze_that_is_granted_too_late_lets_go_at_once() {
    let (_dir, path, mut app) = database(4096);
    let mut source = attach_scanned(&path);
    app.script(&["BEGIN IMMEDIATE", INSERT]);
    let task = source.freeze(Duration::from_millis(30));
    let helper = std::thread::spawn(move || task.run());
    std::thread::sleep(Duration::from_millis(60));
    app.run("COMMIT");
    let error = helper.join().expect("no panic").expect_err("too late");
    assert_eq!(error.kind(), Kind::Retry);
    assert!(!source.is_frozen());
    app.run(INSERT);
    source.freeze(BUDGET).run().expect("free again");
    assert!(source.is_frozen());
    source.thaw().expect("thaw");
    app.run(INSERT);
}

#[test]
fn a_freeze_can_be_given_up_while_it_waits() {
    let (_dir, path, mut app) = database(4096);
    let mut source = attach_scanned(&path);
    app.script(&["BEGIN IMMEDIATE", INSERT]);
    let task = source.freeze(BUDGET);
    let helper = std::thread::spawn(move || task.run());
    std::thread::sleep(Duration::from_millis(20));
    source.thaw().expect("give up");
    app.run("COMMIT");
    helper.join().expect("no panic").expect_err("given up");
    assert!(!source.is_frozen());
    app.run(INSERT);
}

#[test]
fn an_empty_wal_can_be_fenced_and_the_fence_lifted() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(20, INSERT);
    let mut source = attach_scanned(&path);
    assert!(
        source
            .checkpoint()
            .expect("a WAL")
            .run()
            .expect("run")
            .restarted
    );
    assert_eq!(
        source.poll(64).expect("poll").map(|change| change.commits),
        None
    );
    let digest = source.digest();
    fence(&mut source);
    assert_refused(&mut app, INSERT);
    assert!(fence_state(&path).expect("read"));
    assert!(source.poll(64).expect("poll").is_none());
    assert_eq!(
        source.digest(),
        digest,
        "the fence is not part of the digest"
    );

    source.freeze(BUDGET).run().expect("frozen");
    source.lift_fence().expect("a task").run().expect("durable");
    source.thaw().expect("thaw");
    assert!(!source.is_fenced().expect("read"));
    let mut new = Worker::start(Sqlite::Python, &path);
    new.run(INSERT);
    let change = source.poll(64).expect("poll").expect("the insert");
    assert_eq!(change.commits, 1, "neither fence nor lifting count");
    source.consume(&change);
    assert_eq!(new.run("PRAGMA integrity_check"), "ok");
}

#[test]
fn a_database_that_nobody_has_open_can_be_fenced() {
    let (_dir, path, app) = database(4096);
    app.close();
    let mut source = attach_scanned(&path);
    fence(&mut source);
    drop(source);
    let mut app = Worker::bundled(&path);
    assert_refused(&mut app, INSERT);
    assert_eq!(app.run(COUNT), "0");
    assert!(fence_state(&path).expect("read"));
}

/// The fence was checkpointed into the file and the WAL deleted by the last connection to close.
#[test]
fn a_fence_in_the_file_itself_is_seen_and_lifted() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(5, INSERT);
    let mut source = attach_scanned(&path);
    fence(&mut source);
    source.poll(64).expect("poll");
    let done = source.checkpoint().expect("a WAL").run().expect("run");
    assert!(done.restarted, "{done:?}");
    drop(source);
    app.close();
    assert_eq!(std::fs::read(&path).expect("read")[18], 3);
    assert!(fence_state(&path).expect("read"));
    let mut source = attach_scanned(&path);
    assert!(source.is_fenced().expect("read"));
    let mut image = vec![0; 4096];
    source.read_page(1, &mut image).expect("read");
    assert_eq!(image[18..20], [2, 2], "copies carry no fence");
    source.freeze(BUDGET).run().expect("frozen");
    source.lift_fence().expect("a task").run().expect("durable");
    source.thaw().expect("thaw");
    let mut app = Worker::bundled(&path);
    app.run(INSERT);
    assert_eq!(app.run(COUNT), "6");
}

#[test]
fn refused_readers_fail_and_a_dead_sidecar_leaves_the_fence_alone() {
    let (_dir, path, mut app) = database(4096);
    let mut source = attach_scanned(&path);
    fence(&mut source);
    assert_eq!(app.run(COUNT), "0");
    source.refuse_readers().expect("refuse");
    assert_eq!(app.try_run(COUNT).expect_err("refused") & 0xff, CANTOPEN);
    drop(source);
    // The next start of ours finds its own mark, takes it back, and still sees the fence.
    let again = Source::attach(&path, &Default::default()).expect("attach");
    assert!(again.is_fenced().expect("look"));
    assert!(app.try_run(INSERT).is_err(), "writers stay out");
}

#[test]
fn a_tombstone_is_not_a_database_to_anyone() {
    let (dir, path, app) = database(4096);
    drop(app);
    let grave = dir.path().join("moved.db");
    let attributes = Attributes::of(&path).expect("stat");
    assert!(!is_tombstone(Engine::Sqlite, &path));
    tombstone(Engine::Sqlite, &grave, PartitionId(1), &attributes).expect("create");
    assert!(is_tombstone(Engine::Sqlite, &grave));
    for sqlite in [Sqlite::Bundled, Sqlite::Python] {
        let mut app = Worker::start(sqlite, &grave);
        for sql in [
            "SELECT * FROM sqlite_schema",
            "CREATE TABLE t(x)",
            "PRAGMA journal_mode=WAL",
        ] {
            assert_eq!(app.try_run(sql), Err(NOTADB), "{sql}");
        }
    }
    assert!(!Path::new(&format!("{}-wal", grave.display())).exists());
    let error = Source::attach(&grave, &Default::default()).expect_err("refused");
    assert!(error.to_string().contains("tombstone"), "{error}");
}

#[test]
fn a_writer_that_meets_a_freeze_without_patience_is_told_busy_at_once() {
    let (_dir, path, mut app) = database(4096);
    let mut source = attach_scanned(&path);
    app.run("PRAGMA busy_timeout=0");
    source.freeze(BUDGET).run().expect("frozen");
    let begin = Instant::now();
    assert_eq!(app.try_run(INSERT), Err(BUSY));
    assert!(begin.elapsed() < Duration::from_secs(1));
    drop(source);
    app.run(INSERT);
}
