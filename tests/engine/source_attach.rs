//! Joining a live database: as one of its own connections, or not at all and saying why.

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use foreshadow_io::Kind;
use foreshadow_io::engine::sqlite::{Adopted, PinState, Source, SourceOptions, Watch};
use foreshadow_io::engine::{self, Sweeper, resolve_inside, sibling};
use wal::sqlite::{Salts, WalHeader, WordOrder};

use crate::replica::{Replica, attach_scanned, scan};
use crate::source_tail::database;
use crate::worker::{Sqlite, Worker};

const INSERT: &str = "INSERT INTO t(v) VALUES (randomblob(300))";
const COUNT: &str = "SELECT count(*) FROM t";

/// Asserts that `path` is refused for a reason that says `word`.
fn assert_refused(path: &Path, word: &str) {
    let source = Source::attach(path, &SourceOptions::default()).map(|_| ());
    let watch = Watch::attach(path).map(|_| ());
    for attached in [source, watch] {
        let error = attached.expect_err(word);
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.reason.contains(word), "{error}");
    }
}

#[test]
fn files_that_are_no_wal_database_are_refused_each_with_its_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    assert_refused(&path("absent.db"), "No such file");
    assert_refused(dir.path(), "not a regular file");
    std::fs::write(path("empty.db"), b"").expect("write");
    assert_refused(&path("empty.db"), "empty");
    std::fs::write(path("text.db"), "To be, or not to be. ".repeat(99)).expect("write");
    assert_refused(&path("text.db"), "encrypted");
    let mut app = Worker::bundled(&path("journal.db"));
    app.run("CREATE TABLE t(x)");
    assert_refused(&path("journal.db"), "rollback journal");
}

#[test]
fn a_wal_database_in_a_state_that_cant_be_joined_is_refused_with_its_reason() {
    let (dir, path, app) = database(4096);
    app.close();
    let copy = |name: &str| {
        let to = dir.path().join(name);
        std::fs::copy(&path, &to).expect("copy");
        to
    };
    let hot = copy("hot.db");
    std::fs::write(sibling(&hot, "-journal"), [0xd9, 0xd5, 5, 0xf9]).expect("write");
    assert_refused(&hot, "hot rollback journal");

    let dotted = copy("dotted.db");
    std::fs::create_dir(sibling(&dotted, ".lock")).expect("create");
    assert_refused(&dotted, "unix-dotfile");

    let garbled = copy("garbled.db");
    let file = std::fs::File::options()
        .write(true)
        .open(&garbled)
        .expect("open");
    file.write_all_at(&[1, 2, 3], 21).expect("write");
    assert_refused(&garbled, "garbled");

    let later = copy("later.db");
    let mut header = WalHeader::new(WordOrder::NATIVE, 4096, 0, Salts([1, 2])).encode();
    header[4..8].copy_from_slice(&3_008_000_u32.to_be_bytes());
    std::fs::write(sibling(&later, "-wal"), header).expect("write");
    assert_refused(&later, "version 3008000");

    let other = copy("other.db");
    let header = WalHeader::new(WordOrder::NATIVE, 512, 0, Salts([1, 2])).encode();
    std::fs::write(sibling(&other, "-wal"), header).expect("write");
    assert_refused(&other, "pages of 512 bytes");
}

#[test]
fn a_database_held_exclusively_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("own.db");
    let mut app = Worker::bundled(&path);
    app.script(&[
        "PRAGMA locking_mode=EXCLUSIVE",
        "PRAGMA journal_mode=WAL",
        "CREATE TABLE t(x)",
    ]);
    assert_refused(&path, "locking_mode=EXCLUSIVE");
    app.run("INSERT INTO t VALUES (1)");
}

#[test]
fn a_link_out_of_the_configured_directories_is_not_followed() {
    let root = tempfile::tempdir().expect("a directory");
    let (live, generations) = (root.path().join("live"), root.path().join("gen"));
    std::fs::create_dir_all(generations.join("1")).expect("create");
    std::fs::create_dir(&live).expect("create");
    std::fs::write(generations.join("1/a.db"), b"x").expect("write");
    std::fs::write(root.path().join("b.db"), b"x").expect("write");
    symlink("../gen/1/a.db", live.join("a.db")).expect("link");
    symlink("../b.db", live.join("b.db")).expect("link");
    let dirs = [live.as_path(), generations.as_path()];
    let real = resolve_inside(&dirs, &live.join("a.db")).expect("inside");
    assert!(real.ends_with("gen/1/a.db"));
    let error = resolve_inside(&dirs, &live.join("b.db")).expect_err("outside");
    assert_eq!(error.kind(), Kind::Refused);
}

#[test]
fn a_closed_database_gets_its_wal_and_index_as_sqlite_would_make_them() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(5, INSERT);
    app.close();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("chmod");
    if std::fs::metadata(&path).expect("stat").uid() == 0 {
        std::os::unix::fs::chown(&path, Some(4321), Some(4322)).expect("chown");
    }
    assert!(!sibling(&path, "-shm").exists() && !sibling(&path, "-wal").exists());
    let mut replica = Replica::new(&path);
    let of = |path: &Path| {
        let meta = std::fs::metadata(path).expect("stat");
        (meta.mode() & 0o777, meta.uid(), meta.gid())
    };
    for suffix in ["-wal", "-shm"] {
        assert_eq!(of(&sibling(&path, suffix)), of(&path), "{suffix}");
    }
    for sqlite in [Sqlite::Bundled, Sqlite::Python] {
        let mut app = Worker::start(sqlite, &path);
        app.run("PRAGMA synchronous=OFF");
        app.repeat(4, INSERT);
        app.close();
        assert!(
            sibling(&path, "-wal").exists(),
            "the last close deletes nothing under us"
        );
    }
    replica.follow();
    assert_eq!(replica.commits, 8);
    replica.assert_whole();
}

#[test]
fn the_index_of_a_crashed_application_is_recovered_like_sqlite_does() {
    for keep_index in [true, false] {
        let (_dir, path, mut app) = database(1024);
        // Above 4,062 frames the index has a second region.
        app.run("PRAGMA wal_autocheckpoint=0");
        app.repeat(3000, INSERT);
        app.script(&["BEGIN", "PRAGMA cache_size=5"]);
        app.repeat(100, INSERT);
        app.kill();
        if !keep_index {
            std::fs::remove_file(sibling(&path, "-shm")).expect("remove");
        }
        let mut replica = Replica::new(&path);
        replica.assert_whole();
        assert!(
            replica.source.mark().frame > 4062,
            "{:?}",
            replica.source.mark()
        );
        let mut app = Worker::start(Sqlite::Python, &path);
        assert_eq!(app.run(COUNT), "3000");
        assert_eq!(app.run("PRAGMA integrity_check"), "ok");
        app.repeat(20, INSERT);
        replica.follow();
        replica.assert_whole();
        assert!(
            replica
                .source
                .checkpoint()
                .expect("a WAL")
                .run()
                .expect("run")
                .restarted
        );
        assert_eq!(app.run("PRAGMA integrity_check"), "ok");
        assert_eq!(app.run(COUNT), "3020");
    }
}

/// A writer was killed between the two copies of the header, and no other connection is there.
#[test]
fn an_index_whose_writer_died_while_publishing_is_recovered() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(30, INSERT);
    let mut replica = Replica::new(&path);
    assert!(!replica.source.recover_index().expect("whole"));
    app.repeat(3, INSERT);
    app.kill();
    let shm = std::fs::File::options()
        .write(true)
        .open(sibling(&path, "-shm"))
        .expect("open");
    shm.write_all_at(&[0xee; 8], 48 + 16).expect("write");
    assert!(replica.source.poll(64).expect("poll").is_none());
    assert!(replica.source.recover_index().expect("recover"));
    replica.follow();
    assert!(
        replica.source.wants_scan().is_some(),
        "the change counter began anew"
    );
    let Adopted::Change(change) = scan(&mut replica.source) else {
        panic!("a small difference");
    };
    replica.apply(&change);
    replica.assert_whole();
    let mut app = Worker::bundled(&path);
    assert_eq!(app.run(COUNT), "33");
    app.run(INSERT);
    replica.follow();
    replica.assert_whole();
}

#[test]
fn a_database_replaced_or_deleted_under_us_is_noticed() {
    let (dir, path, app) = database(4096);
    let source = attach_scanned(&path);
    let watch = Watch::attach(&path).expect("attach");
    source.verify_names().expect("still there");
    watch.verify_names().expect("still there");
    let other = dir.path().join("other");
    std::fs::copy(&path, &other).expect("copy");
    std::fs::rename(&other, &path).expect("replace");
    for error in [source.verify_names(), watch.verify_names()] {
        let error = error.expect_err("replaced");
        assert_eq!(error.kind(), Kind::Fatal);
        assert!(error.reason.contains("replaced"), "{error}");
    }
    drop(app);
    let (_dir, path, app) = database(4096);
    let watch = Watch::attach(&path).expect("attach");
    drop(app);
    std::fs::remove_file(sibling(&path, "-shm")).expect("remove");
    let error = watch.verify_names().expect_err("deleted");
    assert!(error.reason.contains("deleted"), "{error}");
}

#[test]
fn an_adopted_path_is_still_the_same_database() {
    let (dir, path, _app) = database(4096);
    let source = attach_scanned(&path);
    let generation = dir.path().join("gen");
    std::fs::create_dir(&generation).expect("create");
    for suffix in ["", "-wal", "-shm"] {
        let to = sibling(&generation.join("tenant.db"), suffix);
        std::fs::hard_link(sibling(&path, suffix), to).expect("link");
    }
    symlink("gen/tenant.db", dir.path().join("link")).expect("link");
    std::fs::rename(dir.path().join("link"), &path).expect("exchange");
    source.verify_names().expect("same inodes");
}

#[test]
fn a_watch_costs_one_descriptor_and_notices_commits() {
    let (_dir, path, mut app) = database(4096);
    let open = || {
        std::fs::read_dir("/proc/self/fd")
            .expect("proc")
            .filter_map(|fd| {
                std::fs::read_link(fd.expect("entry").path())
                    .ok()
                    .filter(|to| to.starts_with(&_dir))
            })
            .count()
    };
    let watch = Watch::attach(&path).expect("attach");
    assert_eq!(open(), 1);
    assert!(!watch.changed());
    let watch = engine::Watch::Sqlite(watch);
    let mut sweeper = Sweeper::default();
    sweeper.add(42, &watch);
    app.run(INSERT);
    assert!(watch.committed());
    let mut hits = Vec::new();
    sweeper.sweep(|key| hits.push(key));
    sweeper.sweep(|key| hits.push(key));
    assert_eq!(hits, [42], "once for each change");
    let engine::Watch::Sqlite(mut watch) = watch else {
        panic!("it is SQLite's");
    };
    watch.see();
    assert!(!watch.changed());
}

#[test]
fn a_source_that_was_cooled_goes_on_where_it_stood() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(50, INSERT);
    let mut replica = Replica::new(&path);
    let watch_of = |replica: Replica| {
        let Replica { source, .. } = replica;
        source.cool().expect("cool")
    };
    app.run(INSERT);
    replica.follow();
    let digest = replica.source.digest();
    let mut watch = watch_of(replica);
    assert!(!watch.changed());
    assert!(watch.kept_bytes() > 0);
    app.repeat(7, INSERT);
    assert!(watch.changed());
    let source = watch.upgrade(&SourceOptions::default()).expect("upgrade");
    assert_eq!((source.digest(), source.wants_scan()), (digest, None));
    let mut source = source;
    let mut commits = 0;
    while let Some(change) = source.poll(8).expect("poll") {
        commits += change.commits;
        source.consume(&change);
    }
    assert_eq!(commits, 7);
    assert_eq!(source.digest(), attach_scanned(&path).digest());

    // Restarted by others in between, after everything was consumed, then not everything.
    for (before, lost) in [(0, false), (1, true)] {
        let mut watch = source.cool().expect("cool");
        app.repeat(before, INSERT);
        app.run("PRAGMA wal_checkpoint(TRUNCATE)");
        app.repeat(3, INSERT);
        source = watch.upgrade(&SourceOptions::default()).expect("upgrade");
        while let Some(change) = source.poll(8).expect("poll") {
            source.consume(&change);
        }
        assert_eq!(source.wants_scan().is_some(), lost);
        if lost {
            let Adopted::Change(change) = scan(&mut source) else {
                panic!("a small difference");
            };
            source.consume(&change);
        }
        assert_eq!(source.digest(), attach_scanned(&path).digest());
    }
}

#[test]
fn a_saved_table_is_used_only_while_the_wal_still_holds_its_last_frame() {
    let (_dir, path, mut app) = database(4096);
    let mut source = attach_scanned(&path);
    app.repeat(5, INSERT);
    while let Some(change) = source.poll(64).expect("poll") {
        source.consume(&change);
    }
    let saved = source.save().expect("a table");
    drop(source);
    app.repeat(3, INSERT);

    let mut source = Source::attach(&path, &SourceOptions::default()).expect("attach");
    let mut wrong = saved.clone();
    wrong.hashes[0] = wrong.hashes[1];
    assert!(
        !source.resume(wrong).expect("look"),
        "its digest does not hold"
    );
    assert!(source.resume(saved.clone()).expect("look"));
    let change = source
        .poll(64)
        .expect("poll")
        .expect("what was committed since");
    assert_eq!(change.commits, 3);
    source.consume(&change);
    assert_eq!(source.digest(), attach_scanned(&path).digest());
    drop(source);

    app.run("PRAGMA wal_checkpoint(TRUNCATE)");
    app.repeat(9, INSERT);
    let mut source = Source::attach(&path, &SourceOptions::default()).expect("attach");
    assert!(!source.resume(saved).expect("look"), "another WAL");
    assert_eq!(source.pin_state(), PinState::Held);
}

#[test]
fn known_hashes_are_continued_by_what_applications_committed_since() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(5, INSERT);
    app.kill();
    let options = SourceOptions::default();
    let (hashes, frame) = {
        let source = attach_scanned(&path);
        (source.hashes().to_vec(), source.mark().frame)
    };
    let mut app = Worker::bundled(&path);
    app.run("UPDATE t SET v = randomblob(300)");
    app.run("UPDATE t SET v = randomblob(200)");
    let mut source = Source::attach_known(&path, &options, hashes.clone(), frame).expect("attach");
    let change = source.poll(64).expect("poll").expect("the updates");
    assert_eq!(change.commits, 2);
    source.consume(&change);
    assert_eq!(source.digest(), attach_scanned(&path).digest());
    drop(source);

    app.run("PRAGMA wal_checkpoint(TRUNCATE)");
    let error = Source::attach_known(&path, &options, hashes, frame).expect_err("another WAL");
    assert_eq!(error.kind(), Kind::Retry);
}

#[test]
fn three_hundred_databases_are_watched_with_one_sweep() {
    let (dir, path, app) = database(512);
    app.close();
    let mut sweeper = Sweeper::default();
    let mut watches = Vec::new();
    for key in 0..300 {
        let copy = dir.path().join(format!("{key}.db"));
        std::fs::copy(&path, &copy).expect("copy");
        let watch = engine::Watch::Sqlite(Watch::attach(&copy).expect("attach"));
        sweeper.add(key, &watch);
        watches.push(watch);
    }
    let mut one = Worker::bundled(&dir.path().join("7.db"));
    let mut other = Worker::start(Sqlite::Python, &dir.path().join("250.db"));
    one.run(INSERT);
    other.run(INSERT);
    let mut hits = Vec::new();
    sweeper.sweep(|key| hits.push(key));
    hits.sort();
    assert_eq!(hits, [7, 250]);
    sweeper.remove(7);
    one.run(INSERT);
    other.run(INSERT);
    hits.clear();
    sweeper.sweep(|key| hits.push(key));
    assert_eq!(hits, [250]);
}

/// Newer SQLite looks at the dead-man byte before it deletes the `-wal` and `-shm`; older does not.
#[test]
fn a_last_close_that_deletes_the_index_under_a_watch_is_noticed() {
    for (sqlite, deletes) in [(Sqlite::Bundled, false), (Sqlite::Python, true)] {
        let (_dir, path, app) = database(4096);
        let mut last = Worker::start(sqlite, &path);
        last.run(INSERT);
        app.close();
        let watch = Watch::attach(&path).expect("attach");
        last.run(INSERT);
        last.close();
        assert_eq!(watch.verify_names().is_err(), deletes, "{sqlite:?}");
        assert_eq!(sibling(&path, "-wal").exists(), !deletes);
        Replica::new(&path).assert_whole();
    }
}

#[test]
fn a_table_that_was_kept_says_what_changed_after_the_index_was_deleted() {
    let (_dir, path, mut app) = database(4096);
    app.repeat(100, INSERT);
    let mut watch = attach_scanned(&path).cool().expect("cool");
    app.close();
    let mut last = Worker::start(Sqlite::Python, &path);
    last.run("UPDATE t SET v = randomblob(300) WHERE id = 50");
    last.close();
    assert!(watch.verify_names().is_err());
    let mut source = watch
        .upgrade(&SourceOptions::default())
        .expect("attach again");
    assert!(source.poll(64).expect("poll").is_none());
    assert!(source.wants_scan().expect("it does").contains("deleted"));
    let Adopted::Change(change) = scan(&mut source) else {
        panic!("a small difference");
    };
    assert_eq!((change.pages(), change.commits), (1, 1));
    source.consume(&change);
    assert_eq!(source.digest(), attach_scanned(&path).digest());
}

/// Attaching, scanning, freezing, fencing and checkpointing block, and run on helper threads.
#[test]
fn a_source_and_its_tasks_can_be_handed_to_other_threads() {
    fn sendable<T: Send + 'static>() {}
    sendable::<Source>();
    sendable::<Watch>();
    sendable::<Sweeper>();
    sendable::<foreshadow_io::engine::sqlite::ScanTask>();
    sendable::<foreshadow_io::engine::sqlite::FreezeTask>();
    sendable::<foreshadow_io::engine::sqlite::FenceTask>();
    sendable::<foreshadow_io::engine::sqlite::CheckpointTask>();
}
