//! The extension in the SQLite that is bundled for tests, with lease pages written by the test.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use lease::database::Terms;
use lease::{Grant, NodePage, now, path_of};
use rusqlite::{Connection, Error, OpenFlags};

const SECOND: u64 = 1_000_000_000;
/// Short enough to wait for, long enough for a busy machine.
const SHORT: Duration = Duration::from_millis(400);

/// Loads the extension into this process, once.
fn load() {
    static LOADED: Once = Once::new();
    LOADED.call_once(|| {
        let own = std::env::current_exe().expect("own path");
        let library = own.with_file_name("libforeshadow_guard.so");
        let connection = Connection::open_in_memory().expect("opened");
        // SAFETY: the library is ours, built for this test.
        unsafe {
            connection.load_extension_enable().expect("allowed");
            connection
                .load_extension(&library, None::<&str>)
                .expect("loaded");
        }
    });
}

struct Place {
    dir: tempfile::TempDir,
    node: NodePage,
}

impl Place {
    /// A directory with one database, `a.db`, in WAL mode, and a node that vouches for a minute.
    fn new() -> Place {
        load();
        let dir = tempfile::tempdir().expect("a directory");
        let node = NodePage::open(dir.path(), 60 * SECOND).expect("a page");
        node.begin(1);
        node.renew(now());
        let place = Place { dir, node };
        let sql = "pragma journal_mode = wal; create table t(x integer primary key, y)";
        place.open().execute_batch(sql).expect("made");
        place
    }

    fn database(&self) -> PathBuf {
        let dir = self.dir.path().canonicalize().expect("there");
        dir.join("a.db")
    }

    fn open(&self) -> Connection {
        open(&self.database())
    }

    fn give(&self, incarnation: u64) -> Grant {
        let terms = Terms {
            partition: 7,
            epoch: 3,
            node: self.node.path(),
        };
        Grant::give(&self.database(), terms, incarnation).expect("given")
    }

    /// The lease ends after `left`; nobody renews it.
    fn ends_in(&self, left: Duration) {
        self.node
            .renew(now() - 60 * SECOND + left.as_nanos() as u64);
    }
}

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("opened");
    connection
        .busy_timeout(Duration::from_secs(5))
        .expect("set");
    connection
}

fn insert(connection: &Connection) -> Result<usize, Error> {
    connection.execute("insert into t(y) values (randomblob(100))", ())
}

fn rows(connection: &Connection) -> i64 {
    let count = connection.query_row("select count(*) from t", (), |row| row.get(0));
    count.expect("reads go on")
}

fn said(connection: &Connection) -> String {
    let said = connection.query_row("select foreshadow_lease()", (), |row| row.get(0));
    said.expect("it is told")
}

#[track_caller]
fn is_refused<T: std::fmt::Debug>(result: Result<T, Error>) {
    let code = result.as_ref().err().and_then(Error::sqlite_error_code);
    assert_eq!(code, Some(rusqlite::ErrorCode::ReadOnly), "{result:?}");
}

#[test]
fn writes_pass_under_a_lease_and_are_refused_without() {
    let place = Place::new();
    let grant = place.give(1);
    let connection = place.open();
    insert(&connection).expect("granted");
    assert!(
        said(&connection).starts_with("granted: epoch 3"),
        "{}",
        said(&connection)
    );
    grant.take_back().expect("taken back");
    is_refused(insert(&connection));
    is_refused(connection.execute_batch("begin immediate"));
    is_refused(connection.execute_batch("create table u(x)"));
    is_refused(insert(&place.open()));
    assert_eq!(rows(&connection), 1);
    assert!(
        said(&connection).contains("a.db-lease: not granted"),
        "{}",
        said(&connection)
    );
    place.give(1);
    insert(&connection).expect("granted again, without opening it again");
    place.node.begin(2);
    is_refused(insert(&connection));
    assert!(said(&connection).contains("before the sidecar restarted"));
    place.give(2);
    insert(&connection).expect("under the new incarnation");
}

#[test]
fn a_database_without_a_lease_is_written_unless_one_is_required() {
    let place = Place::new();
    let connection = place.open();
    insert(&connection).expect("not guarded");
    assert!(said(&connection).starts_with("not guarded"));
    drop(connection);
    let uri = format!(
        "file:{}?foreshadow_guard=require",
        place.database().display()
    );
    let flags = OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open_with_flags(uri, flags).expect("opened");
    is_refused(insert(&connection));
    assert!(
        said(&connection).contains("a.db-lease: there is no lease"),
        "{}",
        said(&connection)
    );
    place.give(1);
    std::thread::sleep(Duration::from_millis(60));
    insert(&connection).expect("a lease came");
    let by_name = place.database();
    let named = Connection::open_with_flags_and_vfs(by_name, flags, c"foreshadow_guard");
    insert(&named.expect("by its name")).expect("granted");
}

#[test]
fn a_lease_that_vanishes_binds_those_who_saw_it() {
    let place = Place::new();
    let grant = place.give(1);
    let connection = place.open();
    insert(&connection).expect("granted");
    std::fs::remove_file(grant.path()).expect("removed");
    insert(&connection).expect("it is mapped, and the node vouches");
    place.node.begin(2);
    std::thread::sleep(Duration::from_millis(60));
    is_refused(insert(&connection));
    is_refused(insert(&connection));
}

#[test]
fn damaged_truncated_and_newer_leases_refuse_and_say_why() {
    let place = Place::new();
    let grant = place.give(1);
    let page = std::fs::read(grant.path()).expect("a page");
    let connection = place.open();
    insert(&connection).expect("granted");
    drop(connection);
    let mut newer = page.clone();
    newer[8] = 9;
    let mut foreign = page.clone();
    foreign[0] ^= 1;
    let mut lost = page.clone();
    lost[70] ^= 1;
    for (bytes, why) in [
        (&page[..100], "is damaged: it is not 4096 bytes long"),
        (&[], "is damaged: it is not 4096 bytes long"),
        (&foreign, "is damaged: it does not begin as a lease does"),
        (&newer, "is of version 9, known is 1"),
        (&lost, "can't be read: it is not there"),
    ] {
        std::fs::remove_file(grant.path()).expect("removed");
        std::fs::write(grant.path(), bytes).expect("written");
        let connection = place.open();
        is_refused(insert(&connection));
        assert_eq!(rows(&connection), 1);
        let said = said(&connection);
        assert!(said.contains(why) && said.contains("lease"), "{said}");
    }
    place.give(1);
    insert(&place.open()).expect("the daemon mended it");
}

#[test]
fn a_transaction_begun_before_the_end_does_not_commit_after_it() {
    let place = Place::new();
    place.give(1);
    let connection = place.open();
    insert(&connection).expect("granted");
    // Small; and one that spills pages into the log before it commits.
    for blob in [100, 30_000_000] {
        place.node.renew(now());
        connection
            .execute_batch("pragma cache_size = 100; begin immediate")
            .expect("begun");
        connection
            .execute("insert into t(y) values (zeroblob(?))", [blob])
            .expect("written");
        place.ends_in(Duration::ZERO);
        is_refused(connection.execute_batch("commit"));
        assert!(connection.is_autocommit(), "it was rolled back");
        assert_eq!(rows(&connection), 1);
        is_refused(insert(&connection));
        place.node.renew(now());
        insert(&connection).expect("the same connection goes on");
        connection
            .execute("delete from t where x > 1", ())
            .expect("granted");
        let check = connection.query_row("pragma integrity_check", (), |row| row.get(0));
        assert_eq!(check, Ok("ok".to_owned()));
    }
    // What was refused does not come to life when the index of the log is built anew.
    drop(connection);
    assert_eq!(rows(&place.open()), 1);
}

#[test]
fn a_large_transaction_is_refused_in_its_middle_and_takes_nothing_along() {
    let place = Place::new();
    place.give(1);
    let connection = place.open();
    connection
        .execute_batch("pragma cache_size = 10; begin")
        .expect("begun");
    insert(&connection).expect("granted");
    place.ends_in(Duration::ZERO);
    let blob = "insert into t(y) values (zeroblob(1000000))";
    let spilled = connection.execute(blob, ());
    let committed = connection.execute_batch("commit");
    is_refused(spilled.and(committed.map(|()| 0)));
    if !connection.is_autocommit() {
        connection.execute_batch("rollback").expect("rolled back");
    }
    assert_eq!(rows(&connection), 0);
    place.node.renew(now());
    insert(&connection).expect("it goes on");
}

#[test]
fn readers_rebuild_the_index_of_the_log_without_a_lease() {
    let place = Place::new();
    place.give(1);
    let connection = place.open();
    insert(&connection).expect("granted");
    // As after a crash: the log is there, its index is not.
    let copy = place.dir.path().join("b.db");
    let with = |end: &str| PathBuf::from(format!("{}{end}", copy.display()));
    std::fs::copy(place.database(), &copy).expect("copied");
    let log = format!("{}-wal", place.database().display());
    std::fs::copy(log, with("-wal")).expect("copied");
    std::fs::copy(path_of(&place.database()), path_of(&copy)).expect("copied");
    place.ends_in(Duration::ZERO);
    let reader = open(&copy);
    assert_eq!(rows(&reader), 1);
    is_refused(insert(&reader));
    reader
        .execute_batch("pragma wal_checkpoint(truncate)")
        .expect("nothing new is written");
    is_refused(insert(&reader));
}

#[test]
fn rollback_journals_and_exclusive_locking_are_checked_too() {
    let place = Place::new();
    place.give(1);
    let connection = place.open();
    connection
        .execute_batch("pragma journal_mode = delete")
        .expect("changed");
    insert(&connection).expect("granted");
    connection.execute_batch("begin immediate").expect("begun");
    insert(&connection).expect("granted");
    place.ends_in(Duration::ZERO);
    is_refused(connection.execute_batch("commit"));
    is_refused(insert(&connection));
    assert_eq!(rows(&connection), 1);
    place.node.renew(now());
    connection
        .execute_batch("pragma journal_mode = wal")
        .expect("changed");
    drop(connection);
    let connection = place.open();
    connection
        .execute_batch("pragma locking_mode = exclusive")
        .expect("set");
    insert(&connection).expect("granted");
    place.ends_in(Duration::ZERO);
    is_refused(insert(&connection));
    assert_eq!(rows(&connection), 2);
}

#[test]
fn a_writer_stops_at_the_deadline_by_itself() {
    let place = Place::new();
    place.give(1);
    let connection = place.open();
    connection
        .execute_batch("pragma synchronous = off")
        .expect("set");
    place.ends_in(SHORT);
    let deadline = lease::Lease::open(&path_of(&place.database()))
        .expect("mapped")
        .deadline();
    let (mut last, mut count) = (0, 0);
    while insert(&connection).is_ok() {
        (last, count) = (now(), count + 1);
    }
    let late = last.saturating_sub(deadline);
    println!(
        "{count} rows in {SHORT:?}, the last one {} us after the deadline",
        late / 1000
    );
    assert!(count > 0 && late < 50_000_000, "{late} ns late");
    assert_eq!(rows(&connection), count);
}

#[test]
fn what_a_check_costs() {
    let place = Place::new();
    place.give(1);
    let lease = lease::Lease::open(&path_of(&place.database())).expect("mapped");
    let rounds = 200_000;
    let began = Instant::now();
    for _ in 0..rounds {
        lease.check().expect("valid");
    }
    let check = began.elapsed().as_nanos() / rounds;
    let clock = Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(now());
    }
    let clock = clock.elapsed().as_nanos() / rounds;
    let each = |connection: &Connection| {
        connection
            .execute_batch("pragma synchronous = off")
            .expect("set");
        let began = Instant::now();
        for _ in 0..2000 {
            insert(connection).expect("written");
        }
        began.elapsed().as_nanos() / 2000
    };
    let flags = OpenFlags::default();
    let plain = Connection::open_with_flags_and_vfs(place.database(), flags, c"unix");
    let plain = plain.expect("opened");
    let guarded = place.open();
    let figures = [each(&plain), each(&guarded), each(&plain), each(&guarded)];
    println!(
        "check {check} ns, of that the clock {clock} ns; insert plain, guarded: {figures:?} ns"
    );
    assert!(check < 20_000, "{check} ns");
}
