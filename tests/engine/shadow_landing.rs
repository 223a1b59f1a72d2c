//! A shadow lands at the live path: applications open it there and write, and what it costs.

use std::time::{Duration, Instant};

use foreshadow_io::engine::shadow::{Found, Opened, Shadow, ShadowPaths, Stage};
use foreshadow_io::remap::{Exchanged, Remap, Target};
use foreshadow_io::urgent::Urgent;
use wal::{Epoch, PartitionName};

use crate::shadow_history::{History, paths};

fn count(db: &rusqlite::Connection) -> i64 {
    db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .expect("count")
}

#[test]
fn applications_write_to_a_landed_shadow_through_the_live_path() {
    let history = History::lively(4096);
    let dir = tempfile::tempdir().expect("dir");
    let (live, generations) = (dir.path().join("live"), dir.path().join("gen"));
    std::fs::create_dir(&live).expect("live");
    let mut remap = Remap::open(&live, &generations).expect("remap");
    let name = PartitionName::new("tenant.db").expect("a name");
    let old = remap.allocate(&name).expect("allocate");
    std::fs::write(remap.path(old, &name), b"tombstone").expect("write");
    remap.exchange(&name, old).expect("exchange");

    let generation = remap.allocate(&name).expect("allocate");
    let files = ShadowPaths::new(&remap.dir(generation), "tenant.db");
    assert_eq!(files.database(), remap.path(generation, &name));
    let mut shadow = Shadow::create(&files, &history.spec()).expect("create");
    history.fill(&mut shadow, 5);
    shadow.prepare_landing(Epoch(2)).expect("prepare");
    for delta in history.deltas(5) {
        shadow.apply(&delta).expect("apply");
    }
    shadow.land_sync().expect("sync");
    assert_eq!(
        remap.exchange(&name, generation).expect("exchange"),
        Exchanged::Replaced(old)
    );

    // Applications are there before the daemon has noted anything.
    let app = rusqlite::Connection::open(live.join("tenant.db")).expect("open");
    let before = count(&app);
    app.execute_batch("INSERT INTO t VALUES(100001, 1, x'00'); PRAGMA wal_checkpoint(TRUNCATE);")
        .expect("write");
    let crash = Shadow::stage(&files).expect("stage");
    assert!(matches!(
        crash,
        Stage::Landing {
            epoch: Epoch(2),
            ..
        }
    ));
    assert_eq!(
        remap.target(&name).expect("target"),
        Target::Generation(generation)
    );
    shadow.promote(Epoch(2)).expect("promote");
    remap.sync_dir(&name).expect("sync");

    app.execute_batch("INSERT INTO t VALUES(100002, 1, x'00');")
        .expect("write");
    let other = rusqlite::Connection::open(live.join("tenant.db")).expect("open");
    assert_eq!(count(&other), before + 2);
    let check: String = other
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("check");
    assert_eq!(check, "ok");
    assert!(matches!(
        Shadow::open(&files).expect("open"),
        Opened::Promoted(Epoch(2))
    ));
}

#[test]
fn opening_a_landing_that_applications_already_serve_changes_nothing() {
    let history = History::lively(4096);
    let dir = tempfile::tempdir().expect("dir");
    let mut shadow = history.shadow(dir.path(), 5);
    shadow.prepare_landing(Epoch(2)).expect("prepare");
    shadow.land_sync().expect("sync");
    drop(shadow);
    let files = paths(dir.path());
    let app = rusqlite::Connection::open(files.database()).expect("open");
    // The -wal is empty then: the worst case, because it looks like no -wal of ours.
    app.execute_batch("UPDATE t SET n=5; PRAGMA wal_checkpoint(TRUNCATE);")
        .expect("write");
    let read = |path: &std::path::Path| std::fs::read(path).expect("read");
    let (database, log) = (read(files.database()), read(files.wal()));
    let Opened::Shadow(mut shadow, _) = Shadow::open(&files).expect("open") else {
        panic!("not promoted yet")
    };
    assert!(
        shadow.settle(history.position(5)).is_err(),
        "it is not what was prepared"
    );
    drop(shadow);
    assert!(read(files.database()) == database && read(files.wal()) == log);
    Shadow::mark_promoted(&files, Epoch(2)).expect("mark");
    app.execute_batch("UPDATE t SET n=6;").expect("write on");
}

/// The source is lost, its target was prepared and a power cut took what its -wal held since: the
/// journal has it, and a takeover under a newer epoch serves it.
#[test]
fn a_landing_that_lost_its_log_catches_up_from_the_journal() {
    let history = History::lively(4096);
    let (dir, last) = (tempfile::tempdir().expect("dir"), history.last());
    let mut shadow = history.shadow(dir.path(), 5);
    shadow.prepare_landing(Epoch(2)).expect("prepare");
    let files = paths(dir.path());
    let prepared = std::fs::read(files.wal()).expect("read");
    for delta in history.deltas(5) {
        shadow.apply(&delta).expect("apply");
    }
    drop(shadow);
    std::fs::write(files.wal(), prepared).expect("write");

    let Opened::Shadow(mut shadow, found) = Shadow::open(&files).expect("open") else {
        panic!("not promoted yet")
    };
    assert!(matches!(
        found,
        Found::Landing {
            epoch: Epoch(2),
            ..
        }
    ));
    // The journal reaches further back than the copy.
    let caught_up = history.deltas(3).iter().fold(None, |_, delta| {
        shadow.catch_up(delta).expect("a delta of the journal")
    });
    assert_eq!(caught_up, Some(history.position(last)));
    shadow.land_under(Epoch(3)).expect("a newer epoch");
    shadow.land_sync().expect("sync");
    history.assert_same(&shadow, last);
    drop(shadow);

    let landing = Stage::Landing {
        epoch: Epoch(3),
        base: history.position(5),
    };
    assert_eq!(Shadow::stage(&files).expect("stage"), landing);
    let Opened::Shadow(mut shadow, _) = Shadow::open(&files).expect("open") else {
        panic!("not promoted yet")
    };
    shadow.settle(history.position(last)).expect("the same");
    shadow.promote(Epoch(3)).expect("promote");
    let app = rusqlite::Connection::open(files.database()).expect("open");
    app.execute_batch("INSERT INTO t VALUES(100001, 1, x'00');")
        .expect("write on");
}

/// The -wal lost nothing, but nobody synced it: the journal says where it is, and it can be.
#[test]
fn a_landing_that_lost_nothing_is_found_by_the_journal() {
    let history = History::lively(4096);
    let (dir, last) = (tempfile::tempdir().expect("dir"), history.last());
    let mut shadow = history.shadow(dir.path(), 5);
    shadow.prepare_landing(Epoch(2)).expect("prepare");
    for delta in history.deltas(5) {
        shadow.apply(&delta).expect("apply");
    }
    drop(shadow);
    let Opened::Shadow(mut shadow, _) = Shadow::open(&paths(dir.path())).expect("open") else {
        panic!("not promoted yet")
    };
    assert!(shadow.position().is_none() && shadow.land_sync().is_err());
    let found = history.deltas(3).iter().fold(None, |_, delta| {
        shadow.catch_up(delta).expect("a delta of the journal")
    });
    assert_eq!(found, Some(history.position(last)));
    shadow.land_sync().expect("sync");
    history.assert_same(&shadow, last);
}

/// Contents come again: one of before the landing was prepared is not where it stands.
#[test]
fn a_landing_does_not_go_back_to_an_earlier_moment_of_the_same_content() {
    let history = History::of(
        4096,
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n)".to_owned(),
            "INSERT INTO t VALUES(1, 0)".to_owned(),
            "UPDATE t SET n=1".to_owned(),
            "UPDATE t SET n=0".to_owned(),
            "UPDATE t SET n=2".to_owned(),
        ],
    );
    let last = history.last();
    assert_eq!(
        history.digest(last - 1),
        history.digest(last - 3),
        "it comes again"
    );
    let dir = tempfile::tempdir().expect("dir");
    let mut shadow = history.shadow(dir.path(), last - 1);
    shadow.prepare_landing(Epoch(2)).expect("prepare");
    drop(shadow);
    let Opened::Shadow(mut shadow, _) = Shadow::open(&paths(dir.path())).expect("open") else {
        panic!("not promoted yet")
    };
    for earlier in [last - 3, last - 2] {
        let delta = history.delta(earlier, earlier + 1);
        let found = shadow.catch_up(&delta).expect("a delta of the journal");
        assert_eq!(found, None, "{earlier}");
    }
    let next = shadow
        .catch_up(&history.delta(last - 1, last))
        .expect("the next");
    assert_eq!(next, Some(history.position(last)));
}

/// Nor is anything of the journal put on top of what applications wrote before a power cut undid
/// the exchange of their path.
#[test]
fn a_landing_that_applications_wrote_to_takes_nothing_from_the_journal() {
    let history = History::lively(4096);
    let dir = tempfile::tempdir().expect("dir");
    let mut shadow = history.shadow(dir.path(), 5);
    shadow.prepare_landing(Epoch(2)).expect("prepare");
    for delta in history.deltas(5) {
        shadow.apply(&delta).expect("apply");
    }
    shadow.land_sync().expect("sync");
    drop(shadow);
    let files = paths(dir.path());
    let app = rusqlite::Connection::open(files.database()).expect("open");
    app.execute_batch("INSERT INTO t VALUES(100001, 1, x'00');")
        .expect("write");
    let log = std::fs::read(files.wal()).expect("read");
    let Opened::Shadow(mut shadow, _) = Shadow::open(&files).expect("open") else {
        panic!("not promoted yet")
    };
    for delta in history.deltas(3) {
        assert_eq!(shadow.catch_up(&delta).expect("a delta"), None);
    }
    assert!(std::fs::read(files.wal()).expect("read") == log);
}

/// Prints what the landing adds to a pause; asserts only that it works.
#[test]
fn the_cost_of_a_landing_is_one_sync_of_room_made_before() {
    let steps: Vec<String> = ["CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, b BLOB);".to_owned()]
        .into_iter()
        .chain((1..=60).map(|n| format!("INSERT INTO t VALUES({n}, {n}, randomblob(100));")))
        .collect();
    let history = History::of(4096, &steps);
    let dir = tempfile::tempdir().expect("dir");
    let mut shadow = history.shadow(dir.path(), 0);
    let deltas = history.deltas(0);
    let urgent = Urgent::start(1).expect("start");
    let mut took: Vec<(Duration, Duration, Duration)> = Vec::new();
    for (n, delta) in deltas.iter().enumerate() {
        let epoch = Epoch(2 + n as u64);
        let prepare = Instant::now();
        shadow.prepare_landing(epoch).expect("prepare");
        let apply = Instant::now();
        shadow.apply(delta).expect("apply");
        let (sync, task) = (Instant::now(), shadow.landing_sync().expect("landing"));
        let (done_out, done_in) = flume::bounded(1);
        urgent
            .run(move || done_out.send(task.run()).expect("send"))
            .expect("run");
        let position = done_in.recv().expect("an answer").expect("sync");
        assert_eq!(Some(position), shadow.position());
        took.push((apply - prepare, sync - apply, sync.elapsed()));
        shadow.abandon_landing().expect("abandon");
    }
    history.assert_same(&shadow, history.last());
    let middle = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    println!(
        "landing p50 (real-time: {}): prepare {:?}, apply {:?}, sync {:?}",
        urgent.is_realtime(),
        middle(took.iter().map(|t| t.0).collect()),
        middle(took.iter().map(|t| t.1).collect()),
        middle(took.iter().map(|t| t.2).collect()),
    );
}

#[test]
fn a_plain_database_is_adopted_under_an_open_connection() {
    let dir = tempfile::tempdir().expect("dir");
    let (live, generations) = (dir.path().join("live"), dir.path().join("live/.gen"));
    std::fs::create_dir(&live).expect("live");
    let path = live.join("tenant.db");
    let before = rusqlite::Connection::open(&path).expect("open");
    before
        .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY);")
        .expect("set up");
    let mut remap = Remap::open(&live, &generations).expect("remap");
    let name = PartitionName::new("tenant.db").expect("a name");
    let generation = remap
        .adopt_plain(&name, wal::Engine::Sqlite)
        .expect("adopt");
    assert_eq!(remap.points_to(&name).expect("target"), Some(generation));
    let after = rusqlite::Connection::open(&path).expect("open through the link");
    before
        .execute_batch("INSERT INTO t VALUES(1);")
        .expect("write by the old way");
    after
        .execute_batch("INSERT INTO t VALUES(2);")
        .expect("write by the new way");
    before
        .execute_batch("INSERT INTO t VALUES(3);")
        .expect("write by the old way");
    for db in [&before, &after] {
        assert_eq!(count(db), 3);
        let check: String = db
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .expect("check");
        assert_eq!(check, "ok");
    }
}
