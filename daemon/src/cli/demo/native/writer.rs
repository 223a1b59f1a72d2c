//! Appending in Rust: a row is one record. One process appends to a log at a time, so the writers
//! of a tenant share what is open, and the groups that are written.
//!
//! Sealed means: ask the route. It may still lead to what was sealed, or to a log that nobody has
//! been granted yet: both refuse, and a later look finds the new one. A lease that is over and a
//! log in use are waited for, unless the route leads elsewhere meanwhile.
//!
//! A row that is found in the log need not be acknowledged: an append fails, too, if the lease was
//! over by the time that its group was written. So one more record is appended, and if that is
//! acknowledged, all before it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use wal::log::{Appender, Control, Error, Options, Scanner};
use wal::{Lsn, PartitionId, PartitionName};

use super::record::{self, Entry, PROOF, ROW};
use crate::cli::demo::plan::WriterPlan;
use crate::cli::demo::writer::{Book, Refusal, Remedy, Row};

/// How long to wait for a sidecar that does not renew its lease.
const PATIENCE: Duration = Duration::from_millis(1);

/// One for each writer of the plan; those of one tenant share its log.
pub fn books(plan: &WriterPlan) -> Vec<Box<dyn Book>> {
    let mut logs: BTreeMap<&str, Arc<Shared>> = BTreeMap::new();
    let mut books: Vec<Box<dyn Book>> = Vec::new();
    for own in &plan.writers {
        let log = logs.entry(&own.file).or_insert_with(|| {
            let name = PartitionName::new(&own.file);
            Arc::new(Shared {
                route: plan.routes.join(&own.file),
                id: name.expect("a route is named as its partition").id(),
                slot: RwLock::default(),
            })
        });
        books.push(Box::new(Ledger {
            log: Arc::clone(log),
            opened: 0,
            base: None,
        }));
    }
    books
}

/// A process of our own links the crate.
pub fn version() -> String {
    "Rust".to_owned()
}

/// A tenant's log, for all writers of this process.
struct Shared {
    route: PathBuf,
    id: PartitionId,
    slot: RwLock<Slot>,
}

#[derive(Default)]
struct Slot {
    appender: Option<Appender>,
    /// Counts openings, so that a writer closes only what it met the error with.
    number: u64,
}

struct Ledger {
    log: Arc<Shared>,
    /// The number of what it used last.
    opened: u64,
    /// Where the log ended before the present row was tried first: if it is there, it is behind.
    base: Option<Lsn>,
}

impl Book for Ledger {
    fn enter(&mut self, row: &Row, doubtful: bool) -> Result<bool, Refusal> {
        let slot = self.log.opened()?;
        let Some(appender) = &slot.appender else {
            unreachable!("opened above");
        };
        self.opened = slot.number;
        let refused = |error| self.log.refusal(&error, Some(appender));
        let mut found = false;
        if doubtful {
            found = is_there(appender.control(), self.base, row).map_err(refused)?;
        } else {
            self.base = Some(appender.position());
        }
        let appended = match found {
            true => appender.append(PROOF, &[]),
            false => appender.append(ROW, &record::row(row)),
        };
        appended.map(|_| found).map_err(refused)
    }

    fn let_go(&mut self) {
        self.log.close(self.opened);
    }
}

impl Shared {
    /// What is open, or what the route leads to now.
    fn opened(&self) -> Result<RwLockReadGuard<'_, Slot>, Refusal> {
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        if slot.appender.is_some() {
            return Ok(slot);
        }
        drop(slot);
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if slot.appender.is_none() {
            slot.appender = Some(self.open()?);
            slot.number += 1;
        }
        Ok(RwLockWriteGuard::downgrade(slot))
    }

    fn open(&self) -> Result<Appender, Refusal> {
        let refused = |error| self.refusal(&error, None);
        // An appender makes a log where there is none: one that belongs to nobody, as its id says.
        let path = Control::open(&self.route)
            .map_err(refused)?
            .path()
            .to_owned();
        let appender = Appender::open(&path, &Options::default()).map_err(refused)?;
        if appender.control().id() != self.id {
            return Err(Refusal {
                name: "another partition's log".to_owned(),
                remedy: Remedy::Wonder,
            });
        }
        Ok(appender)
    }

    /// Closes what was opened as the `number`th; waits for those who append to it.
    fn close(&self, number: u64) {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if slot.number == number {
            slot.appender = None;
        }
    }

    fn refusal(&self, error: &Error, with: Option<&Appender>) -> Refusal {
        let leads_elsewhere = || {
            let now = fs::canonicalize(&self.route).ok();
            with.is_some_and(|appender| now.as_deref() != Some(appender.control().path()))
        };
        let (name, remedy) = match error {
            Error::LeaseOver if leads_elsewhere() => ("LeaseOver", Remedy::Reopen),
            Error::LeaseOver => ("LeaseOver", Remedy::Wait(PATIENCE)),
            Error::InUse { .. } => ("InUse", Remedy::Wait(PATIENCE)),
            Error::Sealed { .. } => ("Sealed", Remedy::Reopen),
            Error::Broken { .. } => ("Broken", Remedy::Reopen),
            Error::System { .. } => ("System", Remedy::Reopen),
            _ => ("", Remedy::Wonder),
        };
        let name = match name {
            "" | "System" => error.to_string(),
            name => name.to_owned(),
        };
        Refusal { name, remedy }
    }
}

/// Whether a row is in the log, of which nothing can be before `base`.
fn is_there(control: &Control, base: Option<Lsn>, row: &Row) -> wal::log::Result<bool> {
    let mut scanner = match base {
        Some(base) => Scanner::from(control, base)?,
        None => Scanner::new(control)?,
    };
    let is_it = |entry: Entry| match entry {
        Entry::Row(found) => (found.writer, found.seq) == (row.writer, row.seq),
        _ => false,
    };
    while let Some(group) = scanner.next_group()? {
        let mut entries = group
            .records()
            .filter_map(|r| record::decode(r.kind, r.payload));
        if entries.any(is_it) {
            return Ok(true);
        }
    }
    Ok(false)
}
