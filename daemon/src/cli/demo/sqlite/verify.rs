//! What a database of SQLite says: its rows, integrity_check, and the balance of its books.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::cli::demo::harness::Error;
use crate::cli::demo::verify::{Found, Rows};

/// Accounts whose balance is not the sum of what the ledger says about them.
const BOOKS: &str = "
    SELECT count(*) FROM accounts
    LEFT JOIN (SELECT account, sum(amount) AS sum FROM ledger GROUP BY account)
        ON account = accounts.id
    WHERE balance <> coalesce(sum, 0)";

/// Rows of a database, and what is wrong with it if `whole` asks for all checks. It is copied to
/// `scratch` with its log, and the copy is opened: SQLite changes what it opens.
pub fn read(database: &Path, scratch: &Path, whole: bool) -> Result<Found, Error> {
    let copy = scratch.join("copy.db");
    copy_to(database, &copy).map_err(|error| Error::at("copy", database, error))?;
    read_copy(&copy, whole).map_err(|error| Error::new(error.to_string()))
}

fn copy_to(database: &Path, copy: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let target = with_suffix(copy, suffix);
        let source = with_suffix(database, suffix);
        if target.exists() {
            fs::remove_file(&target)?;
        }
        if suffix != "-shm" && source.exists() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

fn read_copy(copy: &Path, whole: bool) -> rusqlite::Result<Found> {
    let connection = Connection::open(copy)?;
    let complaints = if whole {
        complaints(&connection)?
    } else {
        Vec::new()
    };
    let mut statement = connection.prepare("SELECT writer, seq FROM ledger")?;
    let mut rows = Rows::new();
    let mut cursor = statement.query([])?;
    while let Some(row) = cursor.next()? {
        let seq = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
        *rows.entry((row.get(0)?, seq)).or_default() += 1;
    }
    Ok(Found {
        rows,
        complaints,
        ..Found::default()
    })
}

fn complaints(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut found: Vec<String> = lines.collect::<rusqlite::Result<_>>()?;
    found.retain(|line| line != "ok");
    let off: u64 = connection
        .query_row(BOOKS, [], |row| row.get::<_, i64>(0))?
        .unsigned_abs();
    if off > 0 {
        found.push(format!("{off} balances are not the sum of the ledger"));
    }
    Ok(found)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
