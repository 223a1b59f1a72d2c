//! Reading a live database: every transaction, none that never happened, whatever its writers do.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use foreshadow_io::engine::{sibling, sqlite::Adopted};
use wal::sqlite::{WAL_HEADER_LEN, WalFrameHeader, WalHeader, frame_offset};

use crate::replica::{Replica, scan};
use crate::worker::{Sqlite, Worker};

/// A directory with a WAL database `t(id, v)` in it, its application running.
pub fn database(page_size: u32) -> (tempfile::TempDir, PathBuf, Worker) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tenant.db");
    let mut app = Worker::bundled(&path);
    app.run(&format!("PRAGMA page_size={page_size}"));
    app.script(&[
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=OFF",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)",
    ]);
    (dir, path, app)
}

const INSERT: &str = "INSERT INTO t(v) VALUES (randomblob(300))";

#[test]
fn every_poll_under_real_writers_ends_at_the_digest_of_all_pages() {
    let (dir, path, mut app) = database(4096);
    app.repeat(50, INSERT);
    let mut replica = Replica::new(&path);
    let mut second = Worker::start(Sqlite::Python, &path);
    second.run("PRAGMA synchronous=OFF");
    app.send(&format!("flood 1500 {INSERT}"));
    second.send("flood 1500 UPDATE t SET v=randomblob(200) WHERE id=abs(random()%40)+1");
    let begin = Instant::now();
    let mut turns = 0;
    while begin.elapsed() < Duration::from_millis(1500) {
        replica.follow();
        turns += 1;
        if turns % 40 == 0 {
            replica.assert_whole();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let made: u64 = [app.answer(), second.answer()]
        .map(|answer| answer.expect("flooded").parse::<u64>().expect("a count"))
        .iter()
        .sum();
    replica.follow();
    replica.assert_whole();
    assert_eq!(replica.commits, made, "each commit is counted once");
    assert!(replica.befores > 0, "previous images were found");
    assert_eq!(replica.source.wants_scan(), None);
    let copy = dir.path().join("copy.db");
    replica.write_to(&copy);
    let mut reader = Worker::bundled(&copy);
    assert_eq!(reader.run("PRAGMA integrity_check"), "ok");
    assert_eq!(
        reader.run("SELECT count(*) FROM t"),
        app.run("SELECT count(*) FROM t")
    );
}

/// A writer was killed between the write of its commit frame and its publication. The frame's
/// checksum is right, but the transaction never happened: the next writer writes over it.
#[test]
fn a_commit_frame_beyond_the_published_one_is_never_read() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(3, INSERT);
    let mut replica = Replica::new(&path);
    let log = sibling(&path, "-wal");
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&log)
        .expect("open");
    let mut head = [0; WAL_HEADER_LEN];
    file.read_exact_at(&mut head, 0).expect("read");
    let header = WalHeader::parse(&head).expect("a header");
    let mark = replica.source.mark();
    let image = vec![7; 4096];
    let frame = WalFrameHeader::new(&header, mark.checksum, 2, 2, &image);
    let offset = frame_offset(mark.frame + 1, 4096);
    file.write_all_at(&frame.encode(), offset).expect("write");
    file.write_all_at(&image, offset + 24).expect("write");
    assert!(replica.source.poll(64).expect("poll").is_none());
    app.run(INSERT);
    replica.follow();
    replica.assert_whole();
    assert_eq!(replica.commits, 1);
}

#[test]
fn transactions_missed_without_the_pin_are_found_by_the_audit_and_repaired_by_a_scan() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(20, INSERT);
    let mut replica = Replica::new(&path);
    replica.source.drop_pin().expect("unpin");
    app.run(INSERT);
    app.run("PRAGMA wal_checkpoint(TRUNCATE)");
    app.repeat(5, INSERT);
    replica.source.take_pin().expect("pin");
    assert!(replica.source.poll(64).expect("poll").is_none());
    assert!(
        replica
            .source
            .wants_scan()
            .expect("lost")
            .contains("1 commits away")
    );
    let Adopted::Change(change) = scan(&mut replica.source) else {
        panic!("the difference is small");
    };
    assert!(change.rescan);
    assert_eq!(change.commits, 6, "one missed, five in the new WAL");
    replica.apply(&change);
    replica.assert_whole();
    app.run(INSERT);
    replica.follow();
    replica.assert_whole();
}

#[test]
fn a_restart_by_others_after_everything_was_consumed_loses_nothing() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(20, INSERT);
    let mut replica = Replica::new(&path);
    replica.follow();
    replica.source.drop_pin().expect("unpin");
    app.run("PRAGMA wal_checkpoint(TRUNCATE)");
    app.repeat(100, INSERT);
    replica.source.take_pin().expect("pin");
    replica.follow();
    assert_eq!((replica.commits, replica.source.wants_scan()), (100, None));
    replica.assert_whole();
}

#[test]
fn pages_of_every_size_are_followed() {
    for page_size in [512, 1024, 2048, 8192, 16_384, 32_768, 65_536] {
        let (_dir, path, mut app) = database(page_size);
        let mut replica = Replica::new(&path);
        assert_eq!(replica.source.page_size(), page_size);
        app.repeat(30, INSERT);
        app.run("DELETE FROM t WHERE id % 3 = 0");
        replica.follow();
        replica.assert_whole();
        assert_eq!(replica.commits, 31, "page size {page_size}");
    }
}

#[test]
fn a_vacuum_shrinks_the_copy_and_growth_fills_it_again() {
    let (_dir, path, mut app) = database(1024);
    app.repeat(400, INSERT);
    let mut replica = Replica::new(&path);
    let full = replica.source.page_count();
    app.script(&["DELETE FROM t WHERE id > 20", "VACUUM"]);
    replica.follow();
    replica.assert_whole();
    assert!(replica.source.page_count() < full / 4);
    // Pages that are allocated and freed in one transaction are never written.
    app.script(&[
        "BEGIN",
        "CREATE TABLE big(v BLOB)",
        "INSERT INTO big VALUES (randomblob(200000))",
        "DELETE FROM big",
        "INSERT INTO t(v) VALUES (randomblob(500))",
        "COMMIT",
    ]);
    replica.follow();
    replica.assert_whole();
    app.repeat(400, INSERT);
    replica.follow();
    replica.assert_whole();
}

#[test]
fn spilled_pages_of_a_rolled_back_transaction_are_not_read() {
    let (_dir, path, mut app) = database(1024);
    app.repeat(10, INSERT);
    let mut replica = Replica::new(&path);
    app.run("PRAGMA cache_size=5");
    app.run("BEGIN");
    app.repeat(300, INSERT);
    assert!(
        replica.source.poll(64).expect("poll").is_none(),
        "spilled, not committed"
    );
    app.run("ROLLBACK");
    app.run(INSERT);
    // A large transaction that spills and rewrites its own frames, then commits.
    app.run("BEGIN");
    app.repeat(300, INSERT);
    app.run("UPDATE t SET v = randomblob(310)");
    app.run("COMMIT");
    replica.follow();
    replica.assert_whole();
    assert_eq!(replica.commits, 2);
}

#[test]
fn a_database_beyond_one_gibibyte_skips_the_lock_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("large.db");
    let mut app = Worker::bundled(&path);
    app.script(&[
        "PRAGMA page_size=65536",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)",
    ]);
    app.close();
    // Make it sparse and almost a gibibyte long: SQLite believes the page count of page 1.
    let lock = (1u32 << 30) / 65_536 + 1;
    let file = std::fs::File::options()
        .write(true)
        .open(&path)
        .expect("open");
    file.write_all_at(&(lock - 3).to_be_bytes(), 28)
        .expect("write");
    file.set_len(u64::from(lock - 3) * 65_536).expect("grow");
    drop(file);
    let mut app = Worker::bundled(&path);
    app.script(&["PRAGMA journal_mode=WAL", "PRAGMA synchronous=OFF"]);
    let mut source = crate::replica::attach_scanned(&path);
    for _ in 0..10 {
        app.run("INSERT INTO t(v) VALUES (randomblob(60000))");
    }
    while let Some(change) = source.poll(64).expect("poll") {
        assert!(change.edits().iter().all(|edit| edit.page != lock));
        source.consume(&change);
    }
    assert!(source.page_count() > lock, "it grew across the lock page");
    let rolled = source.digest();
    assert!(
        source
            .checkpoint()
            .expect("something to copy")
            .run()
            .expect("run")
            .restarted
    );
    assert!(source.poll(64).expect("poll").is_none());
    let again = crate::replica::attach_scanned(&path);
    assert_eq!(again.digest(), rolled);
}

#[test]
fn a_transaction_above_the_limit_of_memory_is_found_by_a_scan() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(10, INSERT);
    let options = foreshadow_io::engine::sqlite::SourceOptions {
        transaction_bytes_max: 1 << 20,
        ..Default::default()
    };
    let mut replica = Replica::with(&path, &options);
    app.run("INSERT INTO t(v) VALUES (randomblob(3000000))");
    replica.follow();
    assert!(
        replica
            .source
            .wants_scan()
            .expect("lost")
            .contains("transaction_bytes_max")
    );
    let Adopted::Change(change) = scan(&mut replica.source) else {
        panic!("the difference is below rescan_bytes_max");
    };
    assert_eq!(change.commits, 1);
    replica.apply(&change);
    replica.assert_whole();
}
