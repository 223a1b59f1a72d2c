//! Writing with the bundled SQLite, default flags: a row in the ledger and its account's balance in
//! one transaction.
//!
//! BUSY and LOCKED are retried on the same connection; every other error (READONLY, NOTADB,
//! CANTOPEN, IOERR: what a fence or a move gives) on a new one.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::cli::demo::plan::WriterPlan;
use crate::cli::demo::writer::{Book, Refusal, Remedy, Row};

const SEEN: &str = "SELECT 1 FROM ledger WHERE writer = ?1 AND seq = ?2";
const INSERT: &str =
    "INSERT INTO ledger(writer, seq, generation, account, amount) VALUES(?1, ?2, ?3, ?4, ?5)";
const UPDATE: &str = "UPDATE accounts SET balance = balance + ?1 WHERE id = ?2";

/// One for each writer of the plan: each has a connection of its own.
pub fn books(plan: &WriterPlan) -> Vec<Box<dyn Book>> {
    let book = |route: PathBuf| Ledger {
        route,
        busy: Duration::from_millis(plan.busy_ms),
        synchronous: plan.synchronous.clone(),
        connection: None,
    };
    let routes = plan.writers.iter().map(|own| plan.routes.join(&own.file));
    routes
        .map(|route| Box::new(book(route)) as Box<dyn Book>)
        .collect()
}

/// The bundled SQLite.
pub fn version() -> String {
    rusqlite::version().to_owned()
}

struct Ledger {
    route: PathBuf,
    busy: Duration,
    synchronous: String,
    connection: Option<Connection>,
}

impl Book for Ledger {
    fn enter(&mut self, row: &Row, doubtful: bool) -> Result<bool, Refusal> {
        self.transact(row, doubtful).map_err(|error| Refusal {
            name: name_of(&error),
            remedy: remedy_of(&error),
        })
    }

    fn let_go(&mut self) {
        self.connection = None;
    }
}

impl Ledger {
    fn transact(&mut self, row: &Row, doubtful: bool) -> rusqlite::Result<bool> {
        if self.connection.is_none() {
            let connection = Connection::open(&self.route)?;
            connection.busy_timeout(self.busy)?;
            connection.pragma_update(None, "synchronous", &self.synchronous)?;
            self.connection = Some(connection);
        }
        let Some(connection) = &mut self.connection else {
            unreachable!("opened above");
        };
        let (seq, account) = (row.seq as i64, row.account as i64);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if doubtful
            && transaction
                .prepare_cached(SEEN)?
                .exists((row.writer, seq))?
        {
            transaction.rollback()?;
            return Ok(true);
        }
        let values = (row.writer, seq, row.generation as i64, account, row.amount);
        transaction.prepare_cached(INSERT)?.execute(values)?;
        transaction
            .prepare_cached(UPDATE)?
            .execute((row.amount, account))?;
        transaction.commit().map(|()| false)
    }
}

fn remedy_of(error: &rusqlite::Error) -> Remedy {
    match error.sqlite_error_code() {
        // The whole busy timeout was waited for.
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Remedy::Wait(Duration::ZERO),
        None | Some(ErrorCode::Unknown) => Remedy::Wonder,
        Some(_) => Remedy::Reopen,
    }
}

fn name_of(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(inner) => format!("{:?}/{}", inner.code, inner.extended_code),
        None => error.to_string(),
    }
}
