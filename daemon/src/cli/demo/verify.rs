//! The verifier: compares what writers were told with what is on disk, once nobody writes.
//!
//! Reading changes nothing that counts, so a verdict can be repeated. A row is found by (writer,
//! seq), and sequence numbers have no gaps, so a row above a writer's last acknowledgement plus one
//! was never attempted.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::acks;
use super::engine::Engine;
use super::harness::Error;
use super::plan::{Verdict, VerifyPlan, VerifyTenant};

/// How often each (writer, seq) is in a ledger.
pub type Rows = HashMap<(u32, u64), u64>;

/// Last acknowledged seq of every writer of a tenant.
type Promised = HashMap<u32, u64>;

/// What an engine found in a database.
#[derive(Debug, Default)]
pub struct Found {
    pub rows: Rows,
    /// What is wrong with it.
    pub complaints: Vec<String>,
    /// Rows that lie above where it was fenced, if the engine can tell.
    pub after_fence: u64,
    /// The digest of the whole, if the engine can compute it from the file.
    pub digest: Option<String>,
}

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
    let judge = Judge {
        engine: plan.engine,
        scratch: &plan.scratch,
    };
    for tenant in &plan.tenants {
        let promised = promised.remove(&tenant.tenant).unwrap_or_default();
        judge.tenant(tenant, &promised, &mut verdict);
        verdict.databases += 1;
    }
    Ok(verdict)
}

/// Reads files as their engine does.
struct Judge<'a> {
    engine: Engine,
    scratch: &'a Path,
}

impl Judge<'_> {
    fn tenant(&self, tenant: &VerifyTenant, promised: &Promised, out: &mut Verdict) {
        let name = &tenant.name;
        let found = match self.engine.read(&tenant.database, self.scratch, true) {
            Ok(found) => found,
            Err(error) => {
                out.integrity_failures += 1;
                out.note(format!("{name} at {}: {error}", tenant.database.display()));
                return;
            }
        };
        out.integrity_failures += found.complaints.len() as u64;
        for line in &found.complaints {
            out.note(format!("{name}: {line}"));
        }
        if let (Some(told), Some(digest)) = (&tenant.digest, &found.digest)
            && told != digest
        {
            out.digest_failures += 1;
            out.note(format!(
                "{name}: its digest is {digest}, the daemon said {told}"
            ));
        }
        judge_rows(name, &found.rows, promised, out);
        for path in &tenant.evidence {
            match self.engine.read(path, self.scratch, false) {
                Ok(old) => judge_old(name, path, &old, &found.rows, out),
                Err(error) => {
                    out.integrity_failures += 1;
                    out.note(format!("{name}: {} can't be read: {error}", path.display()));
                }
            }
        }
        for path in &tenant.copies {
            // A tombstone or a shadow that was being filled can't be read, and holds no row either.
            if let Ok(old) = self.engine.read(path, self.scratch, false) {
                judge_old(name, path, &old, &found.rows, out);
            }
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

fn judge_old(name: &str, path: &Path, old: &Found, rows: &Rows, out: &mut Verdict) {
    out.copies_read += 1;
    let only_here = old
        .rows
        .keys()
        .filter(|key| !rows.contains_key(key))
        .count() as u64;
    if old.after_fence > only_here {
        let above = old.after_fence;
        out.accepted_after_fence += above - only_here;
        out.note(format!(
            "{name}: {above} rows above the seal of {}",
            path.display()
        ));
    }
    if only_here > 0 {
        out.accepted_after_fence += only_here;
        out.note(format!(
            "{name}: {only_here} rows only in {}",
            path.display()
        ));
    }
}
