//! Makes tenant databases with real SQLite: built aside, closed, then renamed into place whole, so
//! that a daemon which watches the directory never meets half a database.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::harness::Error;
use super::plan::{CreatePlan, DatabasePlan};

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

/// Makes every database of the plan.
pub fn run(plan: &CreatePlan) -> Result<(), Error> {
    fs::create_dir_all(&plan.stage).map_err(|error| Error::at("create", &plan.stage, error))?;
    for (index, database) in plan.databases.iter().enumerate() {
        let staged = plan
            .stage
            .join(format!("{}-{index}.db", std::process::id()));
        create(&staged, database)
            .map_err(|error| Error::new(format!("make {}: {error}", database.path.display())))?;
        publish(&staged, &database.path)?;
    }
    Ok(())
}

fn create(path: &Path, plan: &DatabasePlan) -> rusqlite::Result<()> {
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

fn publish(staged: &Path, path: &Path) -> Result<(), Error> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(|error| Error::at("create", dir, error))?;
    }
    fs::rename(staged, path).map_err(|error| Error::at("rename into", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

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
