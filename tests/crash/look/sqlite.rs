//! Databases of SQLite: the fence in page 1, the ledger behind a route.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use wal::sqlite::{
    VERSION_FENCED, WAL_FRAME_HEADER_LEN, WAL_HEADER_LEN, WalFrameHeader, WalHeader,
};

use super::{Looked, Told};
use crate::cluster::LIMIT;

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

/// The ledger behind a route, and whether SQLite finds the database whole.
pub fn read(route: &Path, writers: &[u32], acked: &[u64]) -> Looked {
    match ledger(route, writers, acked) {
        Ok((told, wrong)) => Looked::Told(told, wrong),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            Looked::Corrupt(error.to_string())
        }
        Err(error) => Looked::Refused(error.to_string()),
    }
}

fn ledger(
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

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
