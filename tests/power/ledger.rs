//! What a moment owes the writers, and what a database says.

use std::collections::HashMap;
use std::path::Path;

use foreshadow::cli::demo::harness::Ack;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::cuts::Cut;

/// Accounts whose balance is not the sum of what the ledger says about them.
const BOOKS: &str = "
    SELECT count(*) FROM accounts
    LEFT JOIN (SELECT account, sum(amount) AS sum FROM ledger GROUP BY account)
        ON account = accounts.id
    WHERE balance <> coalesce(sum, 0)";

/// Rows of one tenant that must and that may be there at a moment, per writer.
#[derive(Debug)]
pub struct Owed {
    /// Sequence numbers from 1 that were acknowledged, and that had been begun.
    writers: HashMap<u32, (u64, u64)>,
    pub rows: u64,
}

impl Owed {
    pub fn at(cut: &Cut, tenant: u32, acks: &[Vec<Ack>]) -> Owed {
        let of_tenant =
            |journal: &&Vec<Ack>| journal.first().is_some_and(|ack| ack.tenant == tenant);
        let mut writers = HashMap::new();
        for journal in acks.iter().filter(of_tenant) {
            // Each writer waits for one acknowledgement before it begins the next.
            let owed = journal
                .iter()
                .filter(|ack| ack.end_ns < cut.owed_ns)
                .count() as u64;
            let begun = journal
                .iter()
                .filter(|ack| ack.start_ns <= cut.begun_ns)
                .count() as u64;
            writers.insert(journal[0].writer, (owed, begun));
        }
        let rows = writers.values().map(|(owed, _)| owed).sum();
        Owed { writers, rows }
    }

    /// What is wrong with these rows.
    fn judge(&self, rows: &HashMap<(u32, u64), u64>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (writer, (owed, _)) in &self.writers {
            let lost = (1..=*owed).filter(|seq| !rows.contains_key(&(*writer, *seq)));
            let lost: Vec<u64> = lost.collect();
            if let (Some(first), Some(last)) = (lost.first(), lost.last()) {
                let count = lost.len();
                wrong.push(format!(
                    "writer {writer} lost {count} of {owed} acknowledged rows, {first}..={last}"
                ));
            }
        }
        for ((writer, seq), count) in rows {
            if *count > 1 {
                wrong.push(format!("writer {writer} seq {seq} is there {count} times"));
            }
            let begun = self.writers.get(writer).map_or(0, |(_, begun)| *begun);
            if *seq == 0 || *seq > begun {
                wrong.push(format!(
                    "writer {writer} seq {seq} of {begun} was never begun"
                ));
            }
        }
        wrong
    }
}

/// What an application finds at a path.
#[derive(Debug)]
pub enum Met {
    /// There is no database, or it can't be written: the reason.
    Closed(String),
    Writable(Connection),
}

/// Begins to write. An update, because a connection that has met a fence already turns BEGIN
/// IMMEDIATE into a transaction that reads.
const WRITE: &str = "BEGIN IMMEDIATE; UPDATE accounts SET balance = balance WHERE id = 1";

/// Opens a path as an application does, and begins to write.
pub fn meet(path: &Path) -> Result<Met, String> {
    let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
    if !path.exists() {
        return match is_link {
            true => Err(format!("{} points at nothing", path.display())),
            false => Ok(Met::Closed("there is no such file".to_owned())),
        };
    }
    let opened = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE);
    let connection = opened.map_err(|error| format!("{}: {error}", path.display()))?;
    let begun = connection
        .busy_timeout(std::time::Duration::from_secs(20))
        .and_then(|()| connection.pragma_update(None, "synchronous", "FULL"))
        .and_then(|()| connection.execute_batch(WRITE));
    match begun {
        Ok(()) => Ok(Met::Writable(connection)),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::ReadOnly | ErrorCode::NotADatabase | ErrorCode::CannotOpen) => {
                Ok(Met::Closed(error.to_string()))
            }
            _ => Err(format!("{}: {error}", path.display())),
        },
    }
}

/// All that is wrong with a database which takes writes.
pub fn judge(connection: &Connection, owed: &Owed) -> Result<Vec<String>, String> {
    let said = |error: rusqlite::Error| error.to_string();
    let mut wrong = Vec::new();
    let mut check = connection.prepare("PRAGMA integrity_check").map_err(said)?;
    let lines = check
        .query_map([], |row| row.get::<_, String>(0))
        .map_err(said)?;
    for line in lines {
        let line = line.map_err(said)?;
        if line != "ok" {
            wrong.push(line);
        }
    }
    let off: i64 = connection
        .query_row(BOOKS, [], |row| row.get(0))
        .map_err(said)?;
    if off != 0 {
        wrong.push(format!("{off} balances are not the sum of the ledger"));
    }
    let mut select = connection
        .prepare("SELECT writer, seq FROM ledger")
        .map_err(said)?;
    let mut cursor = select.query([]).map_err(said)?;
    let mut rows: HashMap<(u32, u64), u64> = HashMap::new();
    while let Some(row) = cursor.next().map_err(said)? {
        let seq: i64 = row.get(1).map_err(said)?;
        let key = (row.get(0).map_err(said)?, seq.cast_unsigned());
        *rows.entry(key).or_default() += 1;
    }
    wrong.extend(owed.judge(&rows));
    Ok(wrong)
}
