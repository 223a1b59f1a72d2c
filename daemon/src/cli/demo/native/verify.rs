//! What a log says up to its end: its rows, whether it is whole, and its digest. It is read where
//! it lies, as everybody reads it: the live words of its control page are true for this file only.

use std::collections::HashMap;
use std::path::Path;

use io::engine::native::Image;
use io::engine::native::image::PAGE;
use wal::digest::PageHash;
use wal::log::saved::{Ownership, Run};
use wal::log::{Control, Record, Scanner};
use wal::{Digest, Lsn};

use super::record::{self, Entry};
use crate::cli::demo::harness::Error;
use crate::cli::demo::verify::{Found, Rows};

/// Rows of a log, and what is wrong with it if `whole` asks for all checks.
pub fn read(log: &Path, whole: bool) -> Result<Found, Error> {
    let failed = |error: wal::log::Error| Error::new(error.to_string());
    let control = Control::open(log).map_err(failed)?;
    let ownership = control.saved::<Ownership>().map_err(failed)?;
    let mut reading = Reading::default();
    let mut scanner = Scanner::new(&control).map_err(failed)?;
    while let Some(group) = scanner.next_group().map_err(failed)? {
        // Where a log was sealed it ends; what is acknowledged above that never moved with it.
        let above = ownership.sealed && group.header.lsn >= ownership.lsn;
        let mut records = 0;
        for record in group.records() {
            reading.take(&record, above);
            records += 1;
        }
        if records != group.header.records {
            let (at, told) = (group.header.lsn.0, group.header.records);
            let line = format!("{records} records instead of {told} in the group at {at}");
            reading.complaints.push(line);
        }
    }
    let digest = match whole {
        true => Some(digest(&control)?.to_string()),
        false => None,
    };
    Ok(reading.end(whole, digest))
}

/// The digest of a log's image, from its bytes alone.
fn digest(control: &Control) -> Result<Digest, Error> {
    let failed = |error: io::error::Error| Error::new(error.to_string());
    let of_log = |error: wal::log::Error| Error::new(error.to_string());
    let (first, lsn) = (
        control.saved::<Run>().map_err(of_log)?.first,
        control.word().lsn,
    );
    let mut slots = control.slots().map_err(of_log)?;
    let image = Image::read(&mut slots, first, lsn.max(first)).map_err(failed)?;
    let mut hashes = Vec::new();
    let mut bytes = [0; PAGE];
    for page in 1..=image.page_count() {
        if page == Image::gap() {
            hashes.push(PageHash::ABSENT);
            continue;
        }
        let read = image.read_page(slots.file(), page, &mut bytes);
        read.map_err(failed)?;
        hashes.push(PageHash::of(page, &bytes));
    }
    Ok(Digest::of(&hashes))
}

#[derive(Default)]
struct Reading {
    rows: Rows,
    /// The highest seq of every writer so far.
    last: HashMap<u32, u64>,
    founded: Option<u64>,
    accounts: HashMap<u64, u64>,
    after_fence: u64,
    complaints: Vec<String>,
}

impl Reading {
    fn take(&mut self, record: &Record<'_>, above_seal: bool) {
        let at = record.lsn;
        match record::decode(record.kind, record.payload) {
            None => self.complain(at, "a record that no writer writes"),
            Some(Entry::Founding { accounts }) => {
                if self.founded.replace(accounts).is_some() {
                    self.complain(at, "the log begins a second time");
                }
            }
            Some(Entry::Proof) => {}
            Some(Entry::Account(number)) => *self.accounts.entry(number).or_default() += 1,
            Some(Entry::Row(row)) => {
                self.after_fence += u64::from(above_seal);
                let count = self.rows.entry((row.writer, row.seq)).or_default();
                *count += 1;
                if *count > 1 {
                    return;
                }
                // A writer goes on when its last row is acknowledged, so order is time.
                let last = self.last.entry(row.writer).or_default();
                let late = row.seq < *last;
                *last = row.seq.max(*last);
                if late {
                    self.complain(at, "a row that lies behind a later one of its writer");
                }
            }
        }
    }

    fn complain(&mut self, at: Lsn, what: &str) {
        self.complaints.push(format!("{what}, at {}", at.0));
    }

    fn end(mut self, whole: bool, digest: Option<String>) -> Found {
        let expected = self.founded.unwrap_or(0);
        let there = |number: &u64| self.accounts.get(number) == Some(&1);
        let right = (1..=expected).filter(there).count() as u64;
        if self.founded.is_none() || right != expected || self.accounts.len() as u64 != expected {
            let known = self.accounts.len();
            let line = format!("{right} of {expected} accounts are there once, {known} in all");
            self.complaints.push(line);
        }
        if !whole {
            self.complaints.clear();
        }
        Found {
            rows: self.rows,
            complaints: self.complaints,
            after_fence: self.after_fence,
            digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use io::engine::native::Source;

    use super::*;
    use crate::cli::demo::native::create::create;
    use crate::cli::demo::plan::DatabasePlan;

    #[test]
    fn the_digest_is_the_one_that_a_sidecar_computes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("tenant.log");
        let plan = DatabasePlan {
            path: path.clone(),
            page_size: 4096,
            accounts: 12_000,
        };
        create(&path, &plan).expect("made");
        let mut source = Source::attach(&path).expect("attached");
        let task = source.scan().expect("a scan");
        let scan = task.run(&mut |_, _| ControlFlow::Continue(()));
        source.adopt(scan.expect("scanned")).expect("adopted");
        let told = source.digest().to_string();
        let found = read(&path, true).expect("read");
        assert_eq!(found.digest, Some(told));
    }
}
