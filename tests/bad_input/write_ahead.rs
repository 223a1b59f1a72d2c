//! Write-ahead logs that are damaged or foreign: what SQLite reads is what is served, no more.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use foreshadow::cli::demo::harness::{Cluster, Tenant};
use rusqlite::Connection;
use wal::sqlite::{Salts, WAL_HEADER_LEN, WalHeader, WordOrder};

use crate::cluster::{LIMIT, moves_on, options, tenants};
use crate::database::rows;
use crate::{applications, goes_on, refusal, served};

/// Transactions in the WAL, each of one row.
const IN_WAL: u32 = 50;

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A database of 10 rows and a WAL with [`IN_WAL`] more, as a crash of the machine leaves it.
fn crashed(at: &Path) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("app.db");
    let connection = Connection::open(&path).expect("opens");
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .expect("set");
    connection
        .pragma_update(None, "wal_autocheckpoint", 0)
        .expect("set");
    connection.execute_batch("CREATE TABLE t(v)").expect("made");
    let insert = |count: u32| {
        for _ in 0..count {
            let insert = "INSERT INTO t VALUES (randomblob(300))";
            connection.execute(insert, []).expect("inserted");
        }
    };
    insert(10);
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .expect("copied back");
    insert(IN_WAL);
    for suffix in ["-wal", ""] {
        fs::copy(sibling(&path, suffix), sibling(at, suffix)).expect("copied");
    }
}

/// How many rows SQLite itself finds in a copy of the files.
fn as_sqlite_reads(path: &Path) -> u32 {
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("copy.db");
    for suffix in ["", "-wal"] {
        fs::copy(sibling(path, suffix), sibling(&copy, suffix)).expect("copied");
    }
    rows(&copy)
}

/// A cluster that is about to start, with a crashed database `hurt.db` beside the healthy one.
fn prepared() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::prepare(&options(2)).expect("prepared");
    cluster.create_tenants(&tenants(1, 2)).expect("made");
    let path = cluster
        .node("node-a")
        .expect("there")
        .place
        .live()
        .join("hurt.db");
    crashed(&path);
    (cluster, path)
}

/// Starts the daemons; `hurt.db` is served with `expected` rows here and, once moved, there.
fn serves(mut cluster: Cluster, expected: u32) {
    cluster.start_all().expect("every daemon is ready");
    cluster.wait_for_shadows(LIMIT).expect("a ready shadow");
    let writers = applications(&cluster);
    served(&cluster, "node-a", "hurt.db");
    let route = cluster.routes().join("hurt.db");
    assert_eq!(rows(&route), expected, "at the first owner");
    let tenant = cluster.tenants[0].clone();
    cluster.tenants.push(Tenant {
        name: "hurt.db".to_owned(),
        ..tenant
    });
    moves_on(&mut cluster, "hurt.db");
    assert_eq!(rows(&route), expected, "at the second owner");
    cluster.tenants.pop();
    goes_on(cluster, writers);
}

#[test]
fn a_wal_that_a_crash_left_is_read_to_its_end() {
    let (cluster, _) = prepared();
    serves(cluster, 10 + IN_WAL);
}

#[test]
fn a_corrupt_wal_is_read_up_to_the_damage() {
    let (cluster, path) = prepared();
    let wal = fs::File::options()
        .read(true)
        .write(true)
        .open(sibling(&path, "-wal"))
        .expect("opens");
    let middle = wal.metadata().expect("there").len() / 2 + 1000;
    let mut byte = [0];
    wal.read_exact_at(&mut byte, middle).expect("reads");
    wal.write_all_at(&[byte[0] ^ 0x10], middle).expect("writes");
    let expected = as_sqlite_reads(&path);
    assert!((11..10 + IN_WAL).contains(&expected), "{expected} rows");
    serves(cluster, expected);
}

#[test]
fn a_wal_whose_frames_have_other_salts_has_no_content() {
    let (cluster, path) = prepared();
    let header = WalHeader::new(WordOrder::NATIVE, 4096, 7, Salts([11, 22])).encode();
    let wal = fs::File::options()
        .write(true)
        .open(sibling(&path, "-wal"))
        .expect("opens");
    assert_eq!(header.len(), WAL_HEADER_LEN);
    wal.write_all_at(&header, 0).expect("writes");
    assert_eq!(as_sqlite_reads(&path), 10);
    serves(cluster, 10);
}

#[test]
fn a_wal_that_is_garbage_has_no_content() {
    let (cluster, path) = prepared();
    fs::write(
        sibling(&path, "-wal"),
        "no write-ahead log at all. ".repeat(999),
    )
    .expect("writes");
    assert_eq!(as_sqlite_reads(&path), 10);
    serves(cluster, 10);
}

#[test]
fn a_foreign_wal_of_another_page_size_is_refused_and_not_touched() {
    let (mut cluster, path) = prepared();
    let header = WalHeader::new(WordOrder::NATIVE, 512, 0, Salts([1, 2])).encode();
    fs::write(sibling(&path, "-wal"), header).expect("writes");
    cluster.start_all().expect("every daemon is ready");
    cluster.wait_for_shadows(LIMIT).expect("a ready shadow");
    let writers = applications(&cluster);
    let reason = refusal(&cluster, "node-a", "hurt.db");
    assert!(reason.contains("pages of 512 bytes"), "{reason}");
    assert!(reason.contains("hurt.db"), "{reason}");
    assert_eq!(fs::read(sibling(&path, "-wal")).expect("there"), header);
    goes_on(cluster, writers);
}
