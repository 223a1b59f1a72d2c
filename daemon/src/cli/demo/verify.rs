//! The verifier: compares what writers were told with what is on disk, once nobody writes.
//!
//! Every file is copied with its log and the copy is opened, so a verdict can be repeated. A row is
//! found by (writer, seq), and sequence numbers have no gaps, so a row above a writer's last
//! acknowledgement plus one was never attempted.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::acks;
use super::harness::Error;
use super::plan::{Verdict, VerifyPlan, VerifyTenant};

/// How often each (writer, seq) is in a ledger.
type Rows = HashMap<(u32, u64), u64>;

/// Last acknowledged seq of every writer of a tenant.
type Promised = HashMap<u32, u64>;

/// Accounts whose balance is not the sum of what the ledger says about them.
const BOOKS: &str = "
    SELECT count(*) FROM accounts
    LEFT JOIN (SELECT account, sum(amount) AS sum FROM ledger GROUP BY account)
        ON account = accounts.id
    WHERE balance <> coalesce(sum, 0)";

/// Checks every tenant and writes the verdict where the plan says.
pub fn run(plan: &VerifyPlan) -> Result<(), Error> {
    let verdict = judge(plan)?;
    let json = serde_json::to_vec_pretty(&verdict).map_err(|e| Error::new(e.to_string()))?;
    fs::write(&plan.verdict, json).map_err(|error| Error::at("write", &plan.verdict, error))
}

/// Checks every tenant.
pub fn judge(plan: &VerifyPlan) -> Result<Verdict, Error> {
    let mut promised: HashMap<u32, Promised> = HashMap::new();
    let mut verdict = Verdict::default();
    for journal in acks::read_all(&plan.acks)? {
        let Some(last) = journal.last() else { continue };
        if journal.iter().zip(1..).any(|(ack, seq)| ack.seq != seq) {
            return Err(Error::new(format!(
                "the journal of writer {} has a gap",
                last.writer
            )));
        }
        verdict.acked += last.seq;
        promised
            .entry(last.tenant)
            .or_default()
            .insert(last.writer, last.seq);
    }
    fs::create_dir_all(&plan.scratch).map_err(|e| Error::at("create", &plan.scratch, e))?;
    let scratch = plan.scratch.join("copy.db");
    for tenant in &plan.tenants {
        let promised = promised.remove(&tenant.tenant).unwrap_or_default();
        judge_tenant(tenant, &promised, &scratch, &mut verdict);
        verdict.databases += 1;
    }
    Ok(verdict)
}

fn judge_tenant(tenant: &VerifyTenant, promised: &Promised, scratch: &Path, out: &mut Verdict) {
    let name = &tenant.name;
    let rows = match read_copy(&tenant.database, scratch, true) {
        Ok((rows, complaints)) => {
            out.integrity_failures += complaints.len() as u64;
            complaints
                .into_iter()
                .for_each(|line| out.note(format!("{name}: {line}")));
            rows
        }
        Err(error) => {
            out.integrity_failures += 1;
            out.note(format!("{name} at {}: {error}", tenant.database.display()));
            return;
        }
    };
    judge_rows(name, &rows, promised, out);
    for path in &tenant.evidence {
        match read_copy(path, scratch, false) {
            Ok((old, _)) => judge_old(name, path, &old, &rows, out),
            Err(error) => {
                out.integrity_failures += 1;
                out.note(format!("{name}: {} can't be read: {error}", path.display()));
            }
        }
    }
    for path in &tenant.copies {
        // A tombstone or a shadow that was being filled can't be read, and holds no row either.
        if let Ok((old, _)) = read_copy(path, scratch, false) {
            judge_old(name, path, &old, &rows, out);
        }
    }
}

fn judge_rows(name: &str, rows: &Rows, promised: &Promised, out: &mut Verdict) {
    for (writer, last) in promised {
        let missing: Vec<u64> = (1..=*last)
            .filter(|seq| !rows.contains_key(&(*writer, *seq)))
            .collect();
        out.lost += missing.len() as u64;
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            let count = missing.len();
            out.note(format!(
                "{name}: writer {writer} lost {count} rows in {first}..={last}"
            ));
        }
    }
    for ((writer, seq), count) in rows {
        if *count > 1 {
            out.duplicated += 1;
            out.note(format!(
                "{name}: writer {writer} seq {seq} is there {count} times"
            ));
        }
        if *seq == 0 || *seq > promised.get(writer).copied().unwrap_or(0) + 1 {
            out.phantom += 1;
            out.note(format!("{name}: writer {writer} never tried seq {seq}"));
        }
    }
}

fn judge_old(name: &str, path: &Path, old: &Rows, rows: &Rows, out: &mut Verdict) {
    out.copies_read += 1;
    let only_here = old.keys().filter(|key| !rows.contains_key(key)).count() as u64;
    if only_here > 0 {
        out.accepted_after_fence += only_here;
        out.note(format!(
            "{name}: {only_here} rows only in {}",
            path.display()
        ));
    }
}

/// Rows of a database's copy, and what is wrong with it if `whole` asks for all checks.
fn read_copy(
    database: &Path,
    scratch: &Path,
    whole: bool,
) -> Result<(Rows, Vec<String>), Box<dyn std::error::Error>> {
    for suffix in ["", "-wal", "-shm"] {
        let target = with_suffix(scratch, suffix);
        let source = with_suffix(database, suffix);
        if target.exists() {
            fs::remove_file(&target)?;
        }
        if suffix != "-shm" && source.exists() {
            fs::copy(&source, &target)?;
        }
    }
    let connection = Connection::open(scratch)?;
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
    Ok((rows, complaints))
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
