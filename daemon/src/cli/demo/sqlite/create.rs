//! A tenant database of SQLite, with accounts and an empty ledger.

use std::path::Path;

use rusqlite::Connection;

use crate::cli::demo::harness::Error;
use crate::cli::demo::plan::DatabasePlan;

/// A ledger without a unique key: a row that a move applied twice must be able to exist, so that
/// the verifier can find it. The accounts resemble pgbench's, with its 84 bytes of filler.
const SCHEMA: &str = "
    CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, filler TEXT NOT NULL);
    CREATE TABLE ledger(id INTEGER PRIMARY KEY, writer INTEGER NOT NULL, seq INTEGER NOT NULL,
        generation INTEGER NOT NULL, account INTEGER NOT NULL, amount INTEGER NOT NULL);
    CREATE INDEX ledger_key ON ledger(writer, seq);";

const FILL: &str = "
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
    INSERT INTO accounts SELECT i, 0, printf('%-84d', i) FROM n";

/// Makes a database; closing it leaves nothing beside it.
pub fn create(path: &Path, plan: &DatabasePlan) -> Result<(), Error> {
    let made = make(path, plan);
    made.map_err(|error| Error::new(format!("make {}: {error}", plan.path.display())))
}

fn make(path: &Path, plan: &DatabasePlan) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "page_size", plan.page_size)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute(FILL, [plan.accounts as i64])?;
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::cli::demo::create::run;
    use crate::cli::demo::engine::Engine;
    use crate::cli::demo::plan::{CreatePlan, DatabasePlan};

    #[test]
    fn a_database_appears_whole_in_wal_mode_with_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("live/tenant.db");
        let database = DatabasePlan {
            path: path.clone(),
            page_size: 4096,
            accounts: 9000,
        };
        let plan = CreatePlan {
            engine: Engine::Sqlite,
            stage: dir.path().join("stage"),
            databases: vec![database],
        };
        run(&plan).expect("made");
        let bytes = fs::read(&path).expect("there");
        assert!(
            (800_000..1_200_000).contains(&bytes.len()),
            "{} bytes",
            bytes.len()
        );
        assert_eq!(bytes[18..20], [2, 2], "write and read version say WAL");
        assert_eq!(
            fs::read_dir(dir.path().join("live"))
                .expect("listed")
                .count(),
            1
        );
        assert_eq!(
            fs::read_dir(dir.path().join("stage"))
                .expect("listed")
                .count(),
            0
        );
    }
}
