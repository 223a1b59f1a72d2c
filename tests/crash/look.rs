//! What is on disk, read by other means than the daemon's: which live files take writes, and
//! whether every acknowledged row is in the database that applications are led to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use foreshadow::cli::demo::harness::Cluster;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use wal::sqlite::{
    VERSION_FENCED, WAL_FRAME_HEADER_LEN, WAL_HEADER_LEN, WalFrameHeader, WalHeader,
};

use crate::cluster::LIMIT;

/// Bytes of a record of an ack journal.
const ACK_LEN: u64 = 40;
/// The write version, in page 1.
const WRITE_VERSION_AT: usize = 18;

/// Whether SQLite would take writes at a live path: page 1, in the log or in the file, has no
/// fence. Nothing there is not open.
pub fn is_open(live: &Path) -> bool {
    let Ok(database) = live.canonicalize() else {
        return false;
    };
    // The log first: what is gone from it by then is in the file, where the last connection to
    // close puts it before it removes the log.
    let log = fs::read(suffixed(&database, "-wal")).unwrap_or_default();
    let Ok(bytes) = fs::read(&database) else {
        return false;
    };
    let version = version_in_log(&log).or(bytes.get(WRITE_VERSION_AT).copied());
    version.is_some_and(|version| version < VERSION_FENCED)
}

/// The write version in the newest committed page 1 of a write-ahead log.
fn version_in_log(log: &[u8]) -> Option<u8> {
    let header = WalHeader::parse(log).ok()?;
    let frame_len = WAL_FRAME_HEADER_LEN + header.page_size as usize;
    let (mut seed, mut found, mut pending) = (header.checksum, None, None);
    for frame in log[WAL_HEADER_LEN..].chunks_exact(frame_len) {
        let (head, image) = frame.split_at(WAL_FRAME_HEADER_LEN);
        let head = WalFrameHeader::parse(head).ok()?;
        if !head.holds(&header, seed, image) {
            break;
        }
        seed = head.checksum;
        if head.page == 1 {
            pending = Some(image[WRITE_VERSION_AT]);
        }
        if head.is_commit() {
            found = pending.take().or(found);
        }
    }
    found
}

/// The nodes where a tenant is open, when they are two. A fence is not undone once it was granted,
/// so of a node that is open before and after another one is seen open, both were at once.
pub fn both_open(cluster: &Cluster, tenant: &str) -> bool {
    let live = |index: usize| cluster.nodes[index].place.live().join(tenant);
    is_open(&live(0)) && is_open(&live(1)) && is_open(&live(0))
}

/// What the ledger behind a route says about one writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    rows: u64,
    distinct: u64,
    up_to: u64,
    newest: u64,
}

/// Compares a tenant's ledger with the ack journals of its writers, and asks SQLite whether the
/// database is whole. What is wrong is returned, a line each.
pub fn wrong_rows(cluster: &Cluster, tenant: &str, writers: &[u32]) -> Vec<String> {
    let route = cluster.routes().join(tenant);
    let deadline = Instant::now() + LIMIT;
    loop {
        let before: Vec<u64> = writers.iter().map(|one| acked(cluster, *one)).collect();
        match read(&route, writers, &before) {
            Ok((told, mut wrong)) => {
                for ((writer, told), acked_before) in writers.iter().zip(told).zip(before) {
                    let after = acked(cluster, *writer);
                    if told.up_to != acked_before {
                        let lost = acked_before.abs_diff(told.up_to);
                        wrong.push(format!("{tenant}: writer {writer} lost {lost}: {told:?}"));
                    }
                    if told.rows != told.distinct || told.newest > after + 1 {
                        let phantom = format!("{told:?} of {after}");
                        wrong.push(format!("{tenant}: writer {writer}, phantom: {phantom}"));
                    }
                }
                return wrong;
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                return vec![format!("{tenant}: corrupt: {error}")];
            }
            // As applications do: what a fence or a tombstone gives is met by opening again.
            Err(error) => assert!(Instant::now() < deadline, "{tenant}: {error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn read(
    route: &Path,
    writers: &[u32],
    acked: &[u64],
) -> rusqlite::Result<(Vec<Told>, Vec<String>)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(route, flags)?;
    connection.busy_timeout(LIMIT)?;
    let transaction = connection.transaction()?;
    let mut told = Vec::new();
    for (writer, acked) in writers.iter().zip(acked) {
        let query = "SELECT count(*), count(DISTINCT seq), \
                     count(DISTINCT CASE WHEN seq <= ?2 THEN seq END), coalesce(max(seq), 0) \
                     FROM ledger WHERE writer = ?1";
        let number = |value: i64| value.unsigned_abs();
        told.push(
            transaction.query_row(query, (writer, *acked as i64), |row| {
                Ok(Told {
                    rows: number(row.get(0)?),
                    distinct: number(row.get(1)?),
                    up_to: number(row.get(2)?),
                    newest: number(row.get(3)?),
                })
            })?,
        );
    }
    let mut check = transaction.prepare("PRAGMA integrity_check")?;
    let lines = check.query_map([], |row| row.get::<_, String>(0))?;
    let mut wrong: Vec<String> = lines.collect::<rusqlite::Result<_>>()?;
    wrong.retain(|line| line != "ok");
    Ok((told, wrong))
}

/// How many transactions a writer was told had been committed.
fn acked(cluster: &Cluster, writer: u32) -> u64 {
    let journal = cluster.acks().join(format!("{writer}.ack"));
    fs::metadata(journal).map_or(0, |meta| meta.len() / ACK_LEN)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[test]
fn a_row_that_is_missing_and_one_that_nobody_wrote_are_found() {
    use crate::cluster::{options, started, tenants};
    use foreshadow::cli::demo::harness::{Pace, four_writers};

    let tenants = tenants(1, 2);
    let cluster = started(&options(2), &tenants);
    let load = four_writers(&tenants[0], Pace::Rate(50.0));
    let writers = cluster.start_writers(&load).expect("writers start");
    let all = [1, 2, 3, 4];
    for _ in 0..3 {
        cluster.wait_for_progress(&all, LIMIT).expect("they write");
    }
    let name = &tenants[0].name;
    assert_eq!(wrong_rows(&cluster, name, &all), Vec::<String>::new());
    let route = cluster.routes().join(name);
    let change = |sql: &str| {
        let connection = Connection::open(&route).expect("opens");
        connection.busy_timeout(LIMIT).expect("set");
        assert_eq!(connection.execute(sql, []).expect("done"), 1, "{sql}");
    };
    change("DELETE FROM ledger WHERE writer = 2 AND seq = 1");
    change(
        "INSERT INTO ledger(writer, seq, generation, account, amount) VALUES(3, 99999, 0, 1, 0)",
    );
    let wrong = wrong_rows(&cluster, name, &all);
    let told = |words: &str| wrong.iter().any(|line| line.contains(words));
    assert_eq!(wrong.len(), 2, "{wrong:#?}");
    assert!(
        told("writer 2 lost 1") && told("writer 3, phantom"),
        "{wrong:#?}"
    );
    writers.stop().expect("every writer ends");
}
